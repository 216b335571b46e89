"""A small fleet of real processes on loopback: Mosquitto, a server with its SuperLink, gateways with their SuperNodes.

What nodes would have sent is made here from seeds: statistics whose residuals follow one truth, so that a round
has something to release. Everything can be killed, one process at a time, and comes back.
"""

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
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import paho.mqtt.client as mqtt
import psutil

from noria.demo.processes import free_port
from server import commands, signing, store
from server.config import ServerSettings
from server.service import initialise
from shared_models.frames import split_statistics
from shared_models.messages import status_topic
from shared_models.moments import CLASSES, PHI, TARGET_CLASS, TARGET_LIMITS, TARGETS, Snapshot

ROOT = Path(__file__).parents[1]
APPLICATION = "5f1c1f6e-0000-4000-8000-000000000001"
T = TypeVar("T")

PATIENCE_S = 240.0
UPLINK_BYTES = 222


def until(condition: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
    """Look every 50 ms until ``condition`` holds."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise TimeoutError(f"not within {patience_s:.0f} s: {what}")


def truth(seed: int = 7) -> np.ndarray:
    """A residual (4, 9) worth learning, the same at every node."""
    made = np.random.default_rng(seed).normal(0, 0.05, (TARGETS, PHI))
    made[:, -1] = 5.0
    return made


def statistics(seed: int, windows: int, residual: np.ndarray) -> Snapshot:
    """What a node sums over ``windows`` 24 h windows and its share of longer ones."""
    rng = np.random.default_rng(seed)
    gram, moment, energy, count = [], [], [], []
    base = np.linspace(20, 120, PHI - 1)
    rows, columns = np.triu_indices(PHI)
    for window_class in range(CLASSES):
        size = windows * (CLASSES - window_class) // CLASSES
        phi = np.clip(np.rint(base + rng.normal(0, 25, (size, PHI - 1))), 0, 255).astype(np.int64)
        phi = np.concatenate([phi, np.ones((size, 1), np.int64)], axis=1)
        gram += (phi.T @ phi)[rows, columns].tolist()
        count.append(size)
        for target in (target for target in range(TARGETS) if TARGET_CLASS[target] == window_class):
            limit = TARGET_LIMITS[target]
            y = np.clip(np.rint(phi @ residual[target] + rng.normal(0, 4, size)), -limit, limit).astype(np.int64)
            moment += (phi.T @ y).tolist()
            energy.append(int(y @ y))
    return Snapshot.from_integers(gram, moment, energy, count)


class Role:
    """One long-running process of ours, and whatever it starts."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.command = [sys.executable, "-m", *command]
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, stdout=log, stderr=log, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """As the kernel does when memory runs out."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
        self.kill()


class Fleet:
    """The processes, and the eyes on their stores.

    Args:
        folder: Everything they write.
        sites: Names of the gateways.
        nodes: Nodes per gateway.
        reply_timeout_s: How long a round waits for replies.
        server_options: More of the server's TOML, before its tables.
        server_tables: And after them.
    """

    def __init__(
        self,
        folder: Path,
        sites: Sequence[str],
        nodes: int = 4,
        reply_timeout_s: float = 90.0,
        server_options: str = "",
        server_tables: str = "",
    ) -> None:
        self.folder, self.sites = folder, list(sites)
        self.broker_port, self.superlink_port = free_port(), free_port()
        self.settings = self._write_server(reply_timeout_s, server_options, server_tables)
        self.server = Role(["noria", "server", "run", "--config", str(folder / "server.toml")], folder / "server.log")
        self.gateways = {site: self._write_gateway(number, site, nodes) for number, site in enumerate(self.sites)}
        self.backbone = self._initialise()
        self._mosquitto: subprocess.Popen[bytes] | None = None
        self._client: mqtt.Client | None = None
        self._heard: set[str] = set()
        self._frames = 0

    @contextlib.contextmanager
    def running(self, windows: int = 0) -> Iterator[None]:
        """Everything is up while the context lasts; nothing is left of it afterwards.

        Args:
            windows: Statistics of so many windows per node are in the gateways' stores before the server starts, so
                that their first heartbeats speak of them.
        """
        try:
            self._start_broker()
            if windows:
                self._commit_beforehand(windows)
            self.server.start()
            for gateway in self.gateways.values():
                gateway.start()
            self.until_up()
            yield
        finally:
            for role in (*self.gateways.values(), self.server):
                role.stop()
            if self._client is not None:
                self._client.loop_stop()
            if self._mosquitto is not None:
                self._mosquitto.kill()
                self._mosquitto.wait()

    def until_up(self) -> None:
        """The SuperLink answers, the gateways have subscribed, and a SuperNode of each runs."""
        self._until_subscribed()
        until(lambda: self.meta("superlink") == "up", "the SuperLink is up")
        until(lambda: len(self.processes("flower-supernode")) >= len(self.sites), "the SuperNodes run")

    def _until_subscribed(self) -> None:
        until(lambda: self._heard >= {status_topic(site) for site in self.sites}, "the gateways' first heartbeats")

    def _commit_beforehand(self, windows: int) -> None:
        for gateway in self.gateways.values():
            gateway.start()
        self._until_subscribed()
        self.feed(0, windows)
        for gateway in self.gateways.values():
            gateway.stop()

    # What nodes send

    def feed(self, epoch: int, windows: int, disturb: Callable[[], None] = lambda: None) -> None:
        """Each node's cumulative statistics of this epoch; returns when the gateways have committed them."""
        assert self._client is not None
        residual = truth()
        for number, site in enumerate(self.sites):
            for node in range(self._nodes(site)):
                disturb()
                snapshot = statistics(1000 * epoch + 100 * number + node, windows, residual)
                pieces = split_statistics(
                    snapshot.encode(),
                    session=epoch % 256,
                    season=2026,
                    backbone_id=self.backbone,
                    payload_limit=UPLINK_BYTES,
                )
                for piece in pieces:
                    self._uplink(dev_eui(number, node), piece.encode())
        expected = sum(windows * (CLASSES - k) // CLASSES for k in range(CLASSES))
        for site in self.sites:
            until(lambda site=site: self._committed(site, expected) == self._nodes(site), f"{site} has committed")

    def _uplink(self, eui: str, payload: bytes) -> None:
        assert self._client is not None
        self._frames += 1
        body = {
            "deduplicationId": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{eui}/{self._frames}")),
            "time": datetime.now(UTC).isoformat(),
            "deviceInfo": {"devEui": eui},
            "dr": 5,
            "fCnt": self._frames,
            "fPort": 11,
            "data": base64.b64encode(payload).decode(),
            "rxInfo": [{"rssi": -100, "snr": 3.5}],
        }
        site = self.sites[int(eui[:8], 16)]
        topic = f"application/{application(site)}/device/{eui}/event/up"
        self._client.publish(topic, json.dumps(body), qos=1).wait_for_publish(PATIENCE_S)

    # What is to be seen

    def query(self, sql: str, *arguments: object) -> list[sqlite3.Row]:
        """Read the server's store."""
        with contextlib.closing(store.connect(self.settings.database, read_only=True)) as connection:
            return connection.execute(sql, arguments).fetchall()

    def meta(self, key: str) -> str | None:
        found = self.query("SELECT value FROM meta WHERE key = ?", key)
        return found[0]["value"] if found else None

    def processes(self, name: str) -> list[psutil.Process]:
        """Flower's processes of this fleet by the name of their program, oldest first."""
        found = []
        for role in (self.server, *self.gateways.values()):
            with contextlib.suppress(psutil.Error):
                found += psutil.Process(role.pid).children(recursive=True)
        return sorted((process for process in found if _runs(process, name)), key=lambda process: process.pid)

    def _committed(self, site: str, windows: int) -> int:
        """Nodes whose newest snapshot holds so many windows."""
        path = self.folder / f"{site}.db"
        if not path.is_file():
            return 0
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
            try:
                return int(db.execute("SELECT count(*) FROM snapshots WHERE windows = ?", (windows,)).fetchone()[0])
            except sqlite3.OperationalError:  # the gateway is making its tables
                return 0

    # Rounds

    def ask(self) -> int:
        """Ask for a round as ``noria server improve --no-wait`` does; the command's number."""
        with contextlib.closing(store.connect(self.settings.database)) as connection:
            return commands.submit(connection, "benchmark", commands.IMPROVE, {}, int(time.time()))

    def answer(self, command: int) -> tuple[str, dict[str, Any]]:
        """Wait for what became of it."""
        done = "SELECT state, result FROM commands WHERE id = ? AND state NOT IN ('pending', 'running')"
        row = until(lambda: self.query(done, command), "the round has ended")[0]
        return row["state"], json.loads(row["result"])

    def round_state(self) -> str | None:
        """Of the newest round."""
        found = self.query("SELECT state FROM rounds ORDER BY id DESC LIMIT 1")
        return found[0]["state"] if found else None

    def sums_of_newest_round(self) -> dict[str, tuple[bytes, ...]]:
        """Per site, the four arrays as they are in the store."""
        rows = self.query(
            "SELECT * FROM site_sums WHERE round = (SELECT max(id) FROM rounds WHERE state IN ('released', 'refused'))"
        )
        return {row["site"]: (row["gram"], row["moment"], row["energy"], row["count"]) for row in rows}

    def released(self) -> list[tuple[int, str, int, bytes]]:
        """Every container of every release."""
        rows = self.query("SELECT version, kind, base, container FROM artefacts ORDER BY version, kind, base")
        return [tuple(row) for row in rows]  # type: ignore[misc]

    # Setting up

    def _nodes(self, site: str) -> int:
        return (self.folder / f"{site}.toml").read_text(encoding="utf-8").count("[[nodes]]")

    def _write_server(self, reply_timeout_s: float, options: str, tables: str) -> ServerSettings:
        path = self.folder / "server.toml"
        path.write_text(
            f'state_dir = "{self.folder / "server"}"\nkey_file = "{self.folder / "operator.key"}"\n{options}\n'
            f"[broker]\nport = {self.broker_port}\n[superlink]\nport = {self.superlink_port}\n"
            f"[federation]\nminimum_sites = 2\nexpected_sites = {len(self.sites)}\nwait_s = 30\n"
            f"reply_timeout_s = {reply_timeout_s}\n{tables}\n",
            encoding="utf-8",
        )
        return ServerSettings.from_toml(path)

    def _write_gateway(self, number: int, site: str, nodes: int) -> Role:
        path = self.folder / f"{site}.toml"
        path.write_text(
            f'site = "{site}"\nstore = "{self.folder / f"{site}.db"}"\n[broker]\nport = {self.broker_port}\n'
            f'[network]\napplication = "{application(site)}"\n[federation]\ninsecure = true\n'
            f'superlink = "127.0.0.1:{self.superlink_port}"\nhome = "{self.folder / f"flower-{site}"}"\n'
            + "".join(
                f'[[nodes]]\ndev_eui = "{dev_eui(number, node)}"\nname = "field {node}"\ncrop = "maize"\n'
                'board = "stm32l072"\n'
                for node in range(nodes)
            ),
            encoding="utf-8",
        )
        return Role(["gateway", "run", "--config", str(path)], self.folder / f"{site}.log")

    def _initialise(self) -> int:
        signing.generate(self.settings.key_file, seed=bytes(range(32)))
        return initialise(self.settings, int(time.time())).backbone_id

    def _start_broker(self) -> None:
        binary = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        assert binary, "Mosquitto is needed"
        configuration = self.folder / "mosquitto.conf"
        configuration.write_text(
            f"listener {self.broker_port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
            "max_queued_messages 100000\nlog_type error\n",
            encoding="utf-8",
        )
        self._mosquitto = subprocess.Popen([binary, "-c", str(configuration)])
        until(lambda: socket.socket().connect_ex(("127.0.0.1", self.broker_port)) == 0, "Mosquitto listens")
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="nodes")
        self._client.on_connect = lambda client, *_: client.subscribe(status_topic("+"), qos=1)
        self._client.on_message = lambda _client, _data, message: self._heard.add(message.topic)
        self._client.connect("127.0.0.1", self.broker_port)
        self._client.loop_start()


def application(site: str) -> str:
    return f"{APPLICATION}-{site}"


def dev_eui(site: int, node: int) -> str:
    return f"{site:08x}{node:08x}"


def _runs(process: psutil.Process, name: str) -> bool:
    try:
        return any(Path(word).name == name for word in process.cmdline()[:4])
    except psutil.Error:
        return False
