"""I2: bad input to a running gateway is refused, logged and counted, and the rest goes on."""

import base64
import json
import urllib.request

import pytest
from gateway_cases import APPLICATION, NODES, SITE, START_S, Conductor, GatewayProcess, Mosquitto, free_port, telemetry

from shared_models.messages import Artefact, Assignment, assignment_topic

TOPIC = f"application/{APPLICATION}/device/{NODES[0]}/event/up"


@pytest.fixture
def running(tmp_path):
    broker, metrics_port = Mosquitto(tmp_path / "broker"), free_port()
    gateway = GatewayProcess(tmp_path, broker.port, extra=f"metrics_port = {metrics_port}")
    gateway.metrics_port = metrics_port
    conductor = Conductor(broker.port)
    try:
        conductor.wait_for_gateway()
        yield gateway, conductor
        assert gateway.stop() == 0
    finally:
        conductor.stop()
        gateway.stop()
        broker.stop()


def test_bad_input_is_refused_counted_and_survived(running):
    gateway, conductor = running
    good = telemetry(START_S).encode()
    conductor.tick(START_S)
    conductor.publish(TOPIC, b"{not json")
    conductor.publish(TOPIC, b"\x00" * 100_000)
    conductor.publish(f"application/{APPLICATION}/device/XYZ/event/up", b"{}")
    conductor.up("ffffffffffffffff", 10, good, f_cnt=0, time_s=START_S)
    conductor.up(NODES[0], 10, good[:-3], f_cnt=0, time_s=START_S)
    conductor.up(NODES[0], 77, good, f_cnt=1, time_s=START_S)
    conductor.up(NODES[0], 10, good, f_cnt=2, time_s=7)
    conductor.up(NODES[0], 10, telemetry(START_S, battery_mv=65_000).encode(), f_cnt=3, time_s=START_S)
    conductor.publish(assignment_topic(SITE, 3), b"[]")
    conductor.publish(f"noria/v1/clock/tick/gateway-{SITE}", b"soon")
    conductor.up(NODES[0], 10, good, f_cnt=4, time_s=START_S)
    conductor.tick(START_S + 3600)
    refused = {name: value for name, value in gateway.counters().items() if name.startswith("refused.")}
    assert refused == {
        "refused.payload": 3,
        "refused.unknown_device": 1,
        "refused.frame": 2,
        "refused.time": 1,
        "refused.implausible": 1,
        "refused.assignment": 1,
        "refused.tick": 1,
    }
    assert gateway.query("SELECT count(*) FROM telemetry") == [(1,)]
    log = gateway.log.read_text()
    assert all(f"refused {name.partition('.')[2]} on" in log for name in refused)
    assert "Traceback" not in log
    metrics = urllib.request.urlopen(f"http://127.0.0.1:{gateway.metrics_port}/metrics").read().decode()
    assert 'noria_gateway_refused_total{reason="frame"} 2.0' in metrics


def test_the_heartbeat_tells_inventory_and_health_but_no_reading(running):
    _gateway, conductor = running
    conductor.tick(START_S)
    conductor.up(NODES[0], 10, telemetry(START_S).encode(), f_cnt=0, time_s=START_S)
    tock = conductor.tick(START_S + 900)
    assert tock["busy"] is False
    status = conductor.statuses[-1]
    assert [node["dev_eui"] for node in status["nodes"]] == [NODES[0]]
    assert status["nodes"][0]["healthy"] is True
    assert "vwc" not in json.dumps(status)


def test_a_downlink_is_published_before_the_tock_and_survives_a_kill(running):
    gateway, conductor = running
    conductor.tick(START_S)
    conductor.up(NODES[0], 10, telemetry(START_S).encode(), f_cnt=0, time_s=START_S)
    container = base64.b64encode(bytes(300)).decode()
    assignment = Assignment(
        campaign=1,
        sequence=1,
        action="run",
        version=2,
        model_id=2,
        artefacts=[Artefact(kind="full", base=0, container=container)],
        devices=[NODES[0]],
    )
    conductor.publish(assignment_topic(SITE, 1), assignment.model_dump_json(), retain=True)
    conductor.up(NODES[0], 10, telemetry(START_S + 900).encode(), f_cnt=1, time_s=START_S + 900)
    assert conductor.tick(START_S + 900)["busy"] is True
    (downlink,) = conductor.downlinks
    assert (downlink["devEui"], downlink["fPort"]) == (NODES[0], 201)
    assert conductor.progress[-1]["state"] == "sending"
    assert conductor.tick(START_S + 1800)["busy"] is False
    gateway.kill()
    gateway.start()
    conductor.txack(downlink)
    conductor.up(NODES[0], 10, telemetry(START_S + 2700).encode(), f_cnt=2, time_s=START_S + 2700)
    assert conductor.tick(START_S + 2700)["busy"] is True
    assert len({command["id"] for command in conductor.downlinks}) == 2
