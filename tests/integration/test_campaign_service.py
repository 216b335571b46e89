"""The running server and a real Mosquitto: commands in, assignments out, progress in, hostile messages refused."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import psutil
import pytest
from server_cases import KEY, random_image, release, shared_truth, sums_of
from signing_cases import SlowSigner

from server import commands, federation, making, releases, signing, store
from server.strategy import Collected, SiteSums
from server.verification import verify
from shared_models.codes import Board
from shared_models.container import Receiver, open_container
from shared_models.messages import NodeStatus, Progress, SiteStatus, Tick, progress_topic, status_topic, tick_topic
from shared_models.network import ModelImage, quantise_head

DEADLINE_S = 40.0
NOW_S = 1_700_000_000
UNKNOWN_CAMPAIGN = (
    '{"campaign": 77, "dev_eui": "0000000000000000", "state": "confirmed", "time": "2026-01-01T00:00:00Z"}'
)
MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"never saw: {what}")


class Broker:
    """Mosquitto on a port of its own, and what gateways and conductor would say and hear on it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self.heard: list[tuple[str, Any]] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._ticks = 0
        (folder / "broker.conf").write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {folder}/\nautosave_interval 1\nautosave_on_changes true\n"
        )
        self.start()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="test", clean_session=True)
        self.client.on_message = lambda _client, _data, message: self.heard.append((message.topic, message.payload))
        self.client.on_connect = lambda client, *_: client.subscribe(
            [("noria/v1/sites/+/campaigns/+", 1), ("noria/v1/clock/tock/server", 1)]
        )
        self.client.reconnect_delay_set(1, 1)
        self.client.connect_async("127.0.0.1", self.port)
        self.client.loop_start()
        until(self.client.is_connected, "a connection to the broker")

    def start(self) -> None:
        assert MOSQUITTO
        with (self.folder / "broker.log").open("ab") as log:
            command = [MOSQUITTO, "-c", str(self.folder / "broker.conf")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until(lambda: _listens(self.port), "the broker")

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.client.loop_stop()
        self.kill()

    def say(self, topic: str, payload: str | bytes) -> None:
        self.client.publish(topic, payload, qos=1).wait_for_publish(DEADLINE_S)

    def tick(self, time_s: int) -> dict[str, Any]:
        """Advance the server's clock; everything said before is done when this returns."""
        self._ticks += 1
        tick = Tick(sequence=self._ticks, time=datetime.fromtimestamp(time_s, UTC))
        self.say(tick_topic("server"), tick.model_dump_json())
        return until(lambda: self._tock(self._ticks), f"tock {self._ticks}")

    def _tock(self, sequence: int) -> dict[str, Any] | None:
        tocks = [json.loads(payload) for topic, payload in self.heard if topic.endswith("tock/server")]
        return next((tock for tock in tocks if tock["sequence"] == sequence), None)

    def assignments(self) -> list[dict[str, Any]]:
        return [
            {"site": topic.split("/")[3], **json.loads(payload)}
            for topic, payload in self.heard
            if "/campaigns/" in topic
        ]

    def report(self, site: str, numbers: range, version: int = 1, time_s: int = NOW_S) -> None:
        now = datetime.fromtimestamp(time_s, UTC)
        nodes = [
            NodeStatus(
                dev_eui=f"{number:016x}",
                board=Board.STM32L072,
                model_version=version,
                backbone_id=random_image().backbone_id,
                battery_mv=2990,
                last_seen=now,
                healthy=True,
            )
            for number in numbers
        ]
        status = SiteStatus(site=site, time=now, nodes=nodes, counters={"refused": 2})
        self.say(status_topic(site), status.model_dump_json())

    def progress(self, campaign: int, site: str, device: str, *states: str) -> None:
        for state in states:
            step = Progress(
                campaign=campaign, dev_eui=device, state=state, downlinks=7, time=datetime.fromtimestamp(NOW_S, UTC)
            )
            self.say(progress_topic(site), step.model_dump_json())


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Running:
    """``noria server run`` as a process, and the operator's commands."""

    def __init__(
        self,
        folder: Path,
        broker_port: int,
        options: str = "",
        before_it_starts: Callable[[sqlite3.Connection], None] = lambda _: None,
    ) -> None:
        self.config = folder / "server.toml"
        self.state = folder / "state"
        self.log = folder / "server.log"
        self._read_to = 0
        self.config.write_text(
            f'state_dir = "{self.state}"\nkey_file = "{folder / "operator.key"}"\nclock = "simulated"\n'
            f'factory_model = "{folder / "model-1.bin"}"\n{options}'
            f"[broker]\nport = {broker_port}\n[superlink]\nport = {free_port()}\n[federation]\nminimum_sites = 2\n"
        )
        (folder / "model-1.bin").write_bytes(random_image().pack())
        signing.generate(folder / "operator.key", KEY.secret[:32])
        assert self.cli("server", "init")["version"] == 1
        with contextlib.closing(store.connect(self.state / "server.db")) as connection:
            base = releases.find(connection, 1)
            image = quantise_head(base.image, shared_truth())
            connection.execute(
                "INSERT INTO rounds (id, started_s, finished_s, state, backbone_id, base_version)"
                " VALUES (1, 1, 1, 'released', 1, 1)"
            )
            release(connection, image, base, 1)
            before_it_starts(connection)
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, "server", "run", "-c", str(self.config)], stdout=log, stderr=log
            )
        until(lambda: "connected to broker" in self.log.read_text()[self._read_to :], "the server's connection")

    def end(self, number: signal.Signals, afterwards: Callable[[], None] = lambda: None) -> int:
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(number)
        code = self.process.wait(DEADLINE_S)
        afterwards()
        until(lambda: not any(child.is_running() and child.status() != "zombie" for child in children), "no orphans")
        self._read_to = len(self.log.read_text())
        return code

    def cli(self, *arguments: str, code: int = 0) -> Any:
        command = [sys.executable, "-c", _PROGRAM, *arguments, "-c", str(self.config), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        assert done.returncode == code, done.stderr + done.stdout
        return json.loads(done.stdout) if done.stdout else done.stderr

    def rows(self, sql: str, *arguments: object) -> list[sqlite3.Row]:
        with contextlib.closing(store.connect(self.state / "server.db", read_only=True)) as connection:
            return connection.execute(sql, arguments).fetchall()

    def counter(self, name: str) -> int:
        found = self.rows("SELECT value FROM counters WHERE name = ?", name)
        return found[0]["value"] if found else 0

    def ask(self, action: str, arguments: dict[str, Any]) -> int:
        with contextlib.closing(store.connect(self.state / "server.db")) as connection:
            return commands.submit(connection, "ann", action, arguments, NOW_S)

    def command(self, number: int) -> tuple[str, dict[str, Any]]:
        ((state, result),) = self.rows("SELECT state, result FROM commands WHERE id = ?", number)
        return state, json.loads(result)


_PROGRAM = """
import typer
from server.cli import app, ota_app
root = typer.Typer()
root.add_typer(app, name="server")
root.add_typer(ota_app, name="ota")
root()
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path)
    yield made
    made.close()


@pytest.fixture
def server(tmp_path: Path, broker: Broker) -> Iterator[Running]:
    made = Running(tmp_path, broker.port)
    yield made
    if made.process.poll() is None:
        made.end(signal.SIGTERM)


def test_a_campaign_from_command_to_done_through_hostile_messages_and_a_killed_server(
    broker: Broker, server: Running
) -> None:
    broker.report("champion", range(4))
    broker.report("tunis", range(16, 20))
    # Each of these is refused, counted and acknowledged; none stops the server.
    hostile = [
        (status_topic("champion"), b"\xff\xfe not json"),
        (status_topic("champion"), '{"site": "tunis", "time": "2026-01-01T00:00:00Z", "nodes": [], "counters": {}}'),
        (status_topic("champion"), '{"site": "champion", "surprise": 1}'),
        (progress_topic("champion"), b"x" * 5000),
        (progress_topic("champion"), "[" * 2000),
        (progress_topic("champion"), UNKNOWN_CAMPAIGN),
        (tick_topic("server"), '{"sequence": -1}'),
    ]
    for topic, payload in hostile:
        broker.say(topic, payload)
    assert broker.tick(NOW_S)["busy"] is False
    assert server.counter("mqtt.messages_refused") == len(hostile)
    sites = {entry["site"]: entry["nodes"] for entry in server.cli("server", "status")["sites"]}
    assert sites == {"champion": 4, "tunis": 4}

    # Mistakes are refused before anything is sent.
    assert "no release 9" in server.cli("ota", "create", "--release", "9", code=1)["message"]
    assert "unknown site" in server.cli("ota", "create", "--site", "atlantis", code=1)["message"]
    assert broker.assignments() == []

    # A dry run tells who would get what; nothing is drafted by it.
    expected = server.cli("ota", "plan", "--group", "1", "--group", "100%")
    assert [group["nodes"] for group in expected["groups"]] == [1, 7]

    # Create, approve and start in one step: the canary's site hears of it, with containers that open.
    assert server.cli("ota", "start", "--release", "latest")["campaign_state"] == "running"
    assert broker.tick(NOW_S + 60)["busy"] is True
    (first,) = broker.assignments()
    assert (first["action"], first["version"], len(first["devices"])) == ("run", 2, 1)
    smallest = base64.b64decode(first["artefacts"][0]["container"])
    image = open_container(smallest, Receiver(Board.STM32L072, [KEY.public], 1, random_image()))
    assert isinstance(image, ModelImage)
    assert image.model_id == first["model_id"]

    # Killed without warning, it goes on where it was; what was said meanwhile was kept by the broker.
    server.end(signal.SIGKILL)
    broker.progress(1, first["site"], first["devices"][0], "sending", "activated", "confirmed")
    server.start()
    until(lambda: len({d for message in broker.assignments() for d in message["devices"]}) == 4, "the second group")

    # The broker dies; the next step is published after it has come back.
    broker.kill()
    server.cli("ota", "pause", "1")
    broker.start()
    until(lambda: broker.assignments()[-1]["action"] == "pause", "the pause")
    assert server.counter("mqtt.disconnected") >= 1
    until(broker.client.is_connected, "the test's own connection")
    server.cli("ota", "resume", "1")

    def rest() -> bool:
        status = server.cli("ota", "status", "1")
        for entry in status["devices"]:
            if entry["group_index"] <= status["open_group"] and entry["state"] != "confirmed":
                broker.progress(1, entry["site"], entry["dev_eui"], "activated", "confirmed")
        broker.tick(NOW_S + 120)
        return bool(server.cli("ota", "list")["campaigns"][0]["state"] == "done")

    until(rest, "the end of the campaign")
    overview = server.cli("ota", "status", "1")
    assert (overview["confirmed"], overview["failed"], overview["downlinks"]) == (8, 0, 56)

    # Withdrawn, a release goes to nobody any more; who did what is on record, whole.
    assert server.cli("server", "release", "withdraw", "2", "--reason", "it forgets clay")["version"] == 2
    assert "release 2 is withdrawn" in server.cli("ota", "start", "--release", "2", code=1)["message"]
    assert server.cli("server", "audit", "--verify")["problems"] == []

    # A clean stop: no process and no temporary file of the server's is left, and commands say that nobody listens.
    assert server.end(signal.SIGTERM) == 0
    assert not (server.state / "flower" / "tmp").exists()
    assert "no server runs" in server.cli("ota", "pause", "1", code=2)


def a_round_left_open(connection: sqlite3.Connection) -> None:
    """As a server leaves it that was killed when the sums were in the store."""
    base = releases.find(connection, 2)
    connection.execute(
        "INSERT INTO rounds (id, started_s, state, backbone_id, base_version) VALUES (2, 1, 'asking', ?, 2)",
        (base.backbone_id,),
    )
    sites = tuple(SiteSums(name, 4, 600, sums_of(seed, 2 * shared_truth())) for seed, name in enumerate("abc"))
    federation.keep(connection, 2, Collected(sites, ()))
    commands.begin(connection, commands.submit(connection, "ann", commands.IMPROVE, {}, 1))


def test_while_a_release_is_being_signed_all_else_goes_on_and_a_kill_leaves_the_round_to_the_next_start(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(signing.__file__).parents[1]))
    signer, port = SlowSigner(tmp_path / "signer"), free_port()

    def before_it_starts(connection: sqlite3.Connection) -> None:
        a_round_left_open(connection)
        signer.hold()

    options = f"signing_command = {json.dumps(signer.command)}\nmetrics_port = {port}\n"
    server = Running(tmp_path, broker.port, options, before_it_starts)

    def page(name: str) -> str:
        with (
            contextlib.suppress(urllib.error.HTTPError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}{name}") as answer,
        ):
            return answer.read().decode()
        return ""

    def heartbeat() -> str:
        return server.rows("SELECT value FROM meta WHERE key = 'heartbeat_s'")[0]["value"]

    def hears(site: str) -> None:
        broker.report(site, range(*{"champion": (0, 4), "tunis": (16, 20)}[site]))
        until(lambda: f'noria_site_last_heard_seconds{{site="{site}"}}' in page("/metrics"), f"the heartbeat of {site}")

    def nothing_is_released() -> None:
        assert [tuple(row) for row in server.rows("SELECT state, version FROM rounds WHERE id = 2")] == [
            ("collected", None)
        ]
        assert server.rows("SELECT 1 FROM artefacts WHERE version > 2") == []

    try:
        signer.until_asked()
        before = heartbeat()
        hears("champion")
        assert server.cli("ota", "create", "--release", "2")["campaign"] == 1
        until(lambda: page("/healthz"), "a healthy server")
        until(lambda: heartbeat() != before, "another sign of life")
        # What would make a release too, or another round, waits for its turn.
        keys, again = (
            server.ask(making.KEYS, {"place": "release", "new_key": "11" * 32}),
            server.ask(commands.IMPROVE, {}),
        )
        assert server.cli("ota", "abort", "1")["campaign_state"] == "aborted"
        assert (server.command(keys)[0], server.command(again)[0]) == ("running", "pending")
        assert not signer.asked()
        nothing_is_released()

        def afterwards() -> None:
            nothing_is_released()
            signer.let_go()

        server.end(signal.SIGKILL, afterwards)
        server.start()
        until(lambda: server.command(1)[0] != "running", "the round that was left open")
        state, result = server.command(1)
        assert (state, result["round"], result["version"]) == ("done", 2, 3)
        assert server.command(keys) == ("failed", commands.STOPPED)
        until(lambda: server.command(again)[0] == "running", "the round that waited")

        # A change of keys is signed likewise, and does not keep a round that collects from going on.
        signer.hold()
        keys = server.ask(making.KEYS, {"place": "release", "new_key": "11" * 32})
        signer.until_asked()
        hears("tunis")
        assert server.command(keys)[0] == "running"
        signer.let_go()
        until(lambda: server.command(keys)[0] != "running", "the change of keys")
        assert (server.command(keys)[0], server.command(keys)[1]["version"]) == ("done", 4)
        with contextlib.closing(store.connect(server.state / "server.db", read_only=True)) as connection:
            assert [entry.problems for entry in verify(connection, [KEY.public])] == [()] * 4
        assert server.cli("server", "audit", "--verify")["problems"] == []
    finally:
        signer.close()
        if server.process.poll() is None:
            server.end(signal.SIGTERM)
