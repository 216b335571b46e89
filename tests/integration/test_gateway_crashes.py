"""I4: kill the gateway or the broker at any point, and what is committed equals an undisturbed run's."""

import random

import pytest
from gateway_cases import BACKBONE, START_S, Conductor, GatewayProcess, Mosquitto, season

from gateway.sums import load_sums

FACTS = {
    "uplinks": "SELECT uplink_id, dev_eui, received_s, f_port, f_cnt FROM uplinks ORDER BY 1",
    "telemetry": "SELECT * FROM telemetry ORDER BY 1, 2",
    "events": "SELECT * FROM events ORDER BY 1, 2, 3, 4",
    "daily": "SELECT * FROM daily ORDER BY 1, 2",
    "snapshots": "SELECT * FROM snapshots ORDER BY 1, 2, 3",
    "devices": "SELECT * FROM devices ORDER BY 1",
    "counters": "SELECT * FROM counters WHERE name != 'duplicates' ORDER BY 1",
}


def play(directory, disturb):
    """One season; ``disturb(day, position, kill_broker, gateway)`` may kill what it likes before each uplink."""
    broker = Mosquitto(directory / "broker")
    gateway = GatewayProcess(directory, broker.port)
    conductor = Conductor(broker.port)
    try:
        conductor.wait_for_gateway()
        conductor.tick(START_S - 3600)
        for day, uplinks in enumerate(season(seed=7)):
            for position, (dev_eui, f_port, payload, f_cnt, time_s) in enumerate(uplinks):
                disturb(day, position, lambda: conductor.outlive(broker), gateway)
                conductor.up(dev_eui, f_port, payload, f_cnt=f_cnt, time_s=time_s)
            conductor.tick(START_S + (day + 1) * 86_400 - 3600)
        assert gateway.stop() == 0
        return {name: gateway.query(sql) for name, sql in FACTS.items()}, load_sums(gateway.store, BACKBONE)
    finally:
        conductor.stop()
        gateway.stop()
        broker.stop()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return play(tmp_path_factory.mktemp("undisturbed"), lambda *_: None)


def test_an_undisturbed_season_is_complete(undisturbed):
    facts, farm = undisturbed
    expected = {upload[:2] + upload[3:] for day in season(seed=7) for upload in day}
    assert len(facts["uplinks"]) == len(expected)
    assert farm.contributors == 4
    assert farm.windows == 3 * (12 + 13 + 14 + 15)
    assert len(facts["telemetry"]) == 48
    assert sum(row[11] for row in facts["daily"]) == 16 * 200


def test_killing_the_gateway_loses_and_doubles_nothing(undisturbed, tmp_path):
    dice, kills = random.Random(1), []

    def disturb(day, position, _kill_broker, gateway):
        if len(kills) < 6 and dice.random() < 0.03:
            kills.append((day, position))
            gateway.kill()
            gateway.start()

    facts, farm = play(tmp_path, disturb)
    assert len(kills) == 6
    assert facts == undisturbed[0]
    assert farm.sums == undisturbed[1].sums


def test_killing_the_broker_loses_and_doubles_nothing(undisturbed, tmp_path):
    kills = []

    def disturb(day, position, kill_broker, _gateway):
        if (day, position) in {(2, 3), (7, 20)}:
            kills.append(day)
            kill_broker()

    facts, farm = play(tmp_path, disturb)
    assert len(kills) == 2
    assert facts == undisturbed[0]
    assert farm.sums == undisturbed[1].sums
