"""A private Mosquitto, a gateway as a real process, and the two sides it talks to."""

import base64
import json
import queue
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from contextlib import closing
from datetime import UTC, datetime

import numpy as np
import paho.mqtt.client as mqtt

from shared_models.codes import Board, EventCode, Mode, Reason
from shared_models.frames import Event, Telemetry, TelemetryFlag, split_statistics
from shared_models.messages import Tick, status_topic, tick_topic, tock_topic
from shared_models.moments import CLASSES, PHI, TARGET_CLASS, TARGETS, Snapshot

APPLICATION = "5f1c1f6e-0000-4000-8000-000000000001"
SITE = "champion"
START_S = 1_748_736_000
BACKBONE = 0x0A0B0C0D
NODES = [f"00000000000000{n:02x}" for n in range(1, 5)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition, what, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {timeout_s} s: {what}")


class Mosquitto:
    def __init__(self, directory):
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.configuration = directory / "mosquitto.conf"
        self.configuration.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\n"
            f"persistence_location {directory}/\nautosave_interval 1\nautosave_on_changes true\n"
            "max_queued_messages 100000\nlog_type error\n"
        )
        self.binary = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
        self.start()

    def start(self):
        self.process = subprocess.Popen([self.binary, "-c", str(self.configuration)])
        until(self.listening, "Mosquitto listens")

    def listening(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self):
        self.process.kill()
        self.process.wait()

    stop = kill


class GatewayProcess:
    def __init__(self, directory, port, *, extra="", nodes=NODES):
        directory.mkdir(parents=True, exist_ok=True)
        self.store = directory / "gateway.db"
        self.log = directory / "gateway.log"
        self.config = directory / "gateway.toml"
        self.config.write_text(
            f'site = "{SITE}"\nclock = "simulated"\nstore = "{self.store}"\n{extra}\n'
            f'[broker]\nport = {port}\n[network]\napplication = "{APPLICATION}"\n'
            + "".join(
                f'[[nodes]]\ndev_eui = "{dev_eui}"\nname = "field {i}"\ncrop = "maize"\nboard = "stm32l072"\n'
                for i, dev_eui in enumerate(nodes)
            )
        )
        self.start()

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "run", "--config", str(self.config)], stdout=log, stderr=log
            )

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(15)
        return self.process.returncode

    def query(self, sql, *parameters):
        with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True, timeout=10)) as db:
            return db.execute(sql, parameters).fetchall()

    def counters(self):
        return dict(self.query("SELECT name, value FROM counters"))


class Conductor:
    """Network server, server and clock on one connection; QoS 1, persistent, reconnecting."""

    def __init__(self, port):
        self.downlinks, self.progress, self.tocks, self.statuses = [], [], queue.Queue(), []
        self.sequence = 0
        self.unsettled = []
        self.connections = 0
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="conductor", clean_session=False)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = self._connected
        self.client.on_message = self._message
        self.client.max_inflight_messages_set(1)  # keeps the order over a reconnect
        self.subscribed = False
        self.client.on_subscribe = self._subscribed
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        until(lambda: self.subscribed, "the conductor is connected")

    def _connected(self, client, *_):
        topics = [
            "application/+/device/+/command/down",
            "noria/v1/sites/+/progress",
            status_topic("+"),
            tock_topic("+"),
        ]
        client.subscribe([(topic, 1) for topic in topics])

    def _subscribed(self, *_):
        self.subscribed = True
        self.connections += 1

    def _message(self, _client, _userdata, message):
        body = json.loads(message.payload)
        if message.topic.endswith("/command/down"):
            self.downlinks.append(body)
        elif message.topic.endswith("/progress"):
            self.progress.append(body)
        elif message.topic.endswith("/status"):
            self.statuses.append(body)
        else:
            self.tocks.put(body)

    def publish(self, topic, payload, *, retain=False):
        """Return when the broker has acknowledged."""
        self.unsettled.append((topic, payload, retain))
        self._publish(topic, payload, retain)

    def _publish(self, topic, payload, retain):
        self.client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(30)

    def outlive(self, broker):
        """Lose the broker at a moment when it has acknowledged and perhaps not saved; say all of it again."""
        connections = self.connections
        broker.kill()
        broker.start()
        until(lambda: self.connections > connections, "the conductor is connected again")
        for topic, payload, retain in self.unsettled:
            self._publish(topic, payload, retain)

    def up(self, dev_eui, f_port, payload, *, f_cnt, time_s, dr=5, dedup=None):
        body = {
            "deduplicationId": dedup or str(uuid.uuid5(uuid.NAMESPACE_OID, f"{dev_eui}/{f_cnt}/{time_s}/{f_port}")),
            "time": datetime.fromtimestamp(time_s, UTC).isoformat(),
            "deviceInfo": {"devEui": dev_eui},
            "dr": dr,
            "fCnt": f_cnt,
            "fPort": f_port,
            "data": base64.b64encode(payload).decode(),
            "rxInfo": [{"rssi": -100, "snr": 3.5}],
        }
        return self.publish(f"application/{APPLICATION}/device/{dev_eui}/event/up", json.dumps(body))

    def txack(self, downlink):
        body = {"deviceInfo": {"devEui": downlink["devEui"]}, "queueItemId": downlink["id"]}
        topic = f"application/{APPLICATION}/device/{downlink['devEui']}/event/txack"
        return self.publish(topic, json.dumps(body))

    def wait_for_gateway(self):
        until(lambda: self.statuses, "the gateway's first heartbeat")

    def tick(self, time_s, *, timeout_s=30.0):
        """Tick and wait for its tock."""
        self.sequence += 1
        tick = Tick(sequence=self.sequence, time=datetime.fromtimestamp(time_s, UTC))
        self.publish(tick_topic(f"gateway-{SITE}"), tick.model_dump_json())
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                tock = self.tocks.get(timeout=0.5)
            except queue.Empty:
                continue
            if tock["sequence"] == self.sequence:
                self.unsettled.clear()
                return tock
        raise AssertionError(f"no tock for {self.sequence}")

    def stop(self):
        self.client.disconnect()
        self.client.loop_stop()


def telemetry(time_s, **changes):
    values = {
        "time_s": time_s,
        "flags": TelemetryFlag.ANCHORED,
        "mode": Mode.MODEL,
        "board": Board.STM32L072,
        "battery_mv": 3000,
        "vwc_shallow_e4": 2100,
        "vwc_deep_e4": 2400,
        "soil_temp_c100": 1810,
        "air_temp_c100": 2200,
        "depletion_e1_mm": 134,
        "taw_e1_mm": 1200,
        "threshold_permille": 200,
        "forecast_24h_e4": -45,
        "water_season_e1_mm": 400,
        "last_reason": Reason.NOT_NEEDED,
        "probation": 0,
        "model_version": 1,
        "backbone_id": BACKBONE,
    }
    return Telemetry(**(values | changes))


def watered(time_s):
    return Event(EventCode.WATERED, time_s, reason=Reason.DEPLETED, dose_e1_mm=200, taw_e1_mm=1200, model_version=1)


def snapshot(rng, windows, truth=None):
    """A plausible snapshot of ``windows`` 24 h windows, as a node would have summed it.

    Its residuals are noise, and ``truth`` (4, 9) · φ where there is something to learn.
    """
    phi = rng.integers(0, 256, (windows, PHI))
    phi[:, -1] = 1
    residual = rng.integers(-40, 41, (TARGETS, windows))
    if truth is not None:
        residual = np.clip(np.rint(truth @ phi.T + residual / 10).astype(np.int64), -127, 127)
    gram = np.stack([phi.T @ phi] * CLASSES)
    upper = np.triu_indices(PHI)
    return Snapshot.from_integers(
        gram=[int(v) for k in range(CLASSES) for v in gram[k][upper]],
        moment=[int(v) for t in range(TARGETS) for v in residual[t] @ phi],
        energy=[int((residual[t] ** 2).sum()) for t in range(TARGETS)],
        count=[windows] * len(set(TARGET_CLASS)),
    )


def season(seed, days=12):
    """A farm's uplinks, day by day: (dev_eui, f_port, payload, f_cnt, time_s), some lost, repeated or late."""
    rng, dice = np.random.default_rng(seed), random.Random(seed)
    counters, days_of_uplinks = dict.fromkeys(NODES, 0), []
    for day in range(days):
        uplinks = []
        for n, dev_eui in enumerate(NODES):
            time_s = START_S + day * 86_400 + n * 60
            frames = [(10, telemetry(time_s).encode())]
            if day % 3 == 0:
                frames.append((12, watered(time_s).encode()))
            if day % 4 == 3:
                encoded = snapshot(rng, day + 1 + n).encode()
                pieces = split_statistics(encoded, session=day, season=2025, backbone_id=BACKBONE, payload_limit=51)
                frames += [(11, piece.encode()) for piece in pieces]
            for i, (f_port, payload) in enumerate(frames):
                uplinks.append((dev_eui, f_port, payload, counters[dev_eui], time_s + i))
                counters[dev_eui] += 1
        uplinks += dice.sample(uplinks, k=3)
        days_of_uplinks.append(uplinks)
    return days_of_uplinks
