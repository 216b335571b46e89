"""A field for campaigns: real update code of nodes in C, a lossy air, a network server's queue, and real gateways.

Of a node only what an update meets is here: its flash, the firmware's update path, the order in which the firmware
sends its frames, resets, and a power that may fail in the middle of any flash operation. There is one flash in the
host build; each node's is put into it for its wake.
"""

from __future__ import annotations

import base64
import ctypes
import heapq
import json
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.clock import DAY_S
from gateway.config import DownlinkSection, GatewaySettings, NetworkServer, Node
from gateway.service import Gateway
from gateway.store import Store
from nodes.hoststore import MODEL_A, SETTINGS_OFFSET, Flash, Part, UpdateNode
from shared_models.airtime import MAX_PAYLOAD, airtime_s
from shared_models.codes import Board, Crop, EventCode, FPort, Mode, Reason, Refusal
from shared_models.fragmentation import Command, SessionStatusAnswer, decode_answers, session_status_request
from shared_models.frames import Event, Telemetry, TelemetryFlag
from shared_models.messages import Progress, SiteStatus, assignment_topic
from shared_models.settings import Settings

APPLICATION = "campaign"
WAKE_S = 900
FRAMES_PER_WAKE = 3
SETUP_SIZE_1 = 11
LAST_OPERATIONS = (8, 40, 220)
"""Of a wake's flash operations the power fails at one below such a number: few for a fragment, many for a model."""
PARTS = {Board.STM32L072: Part.L0, Board.STM32L432: Part.L4_ECC}


@dataclass(frozen=True)
class Weather:
    """What the field does to nodes and radio."""

    loss: float = 0.3
    """Of frames, each way."""
    data_rates: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    moves: float = 0.05
    """Chance a day that a node's data rate goes up or down by one."""
    resets: float = 0.01
    """Chance of a reset at a wake."""
    cuts: float = 0.2
    """Chance that the power fails at some flash operation of a wake that heard something."""


@dataclass
class Tally:
    """What happened on the air."""

    uplinks: int = 0
    downlinks: int = 0
    airtime_s: float = 0.0
    """Of downlinks."""
    duplicates: int = 0
    """Whole containers that reached a node which had one before, and fragments that told a node nothing new."""
    longest_queue: int = 0
    """Downlinks waiting at one site's network server."""
    resets: int = 0
    cuts: int = 0
    without_model: int = 0
    """Looks at a node that found no valid model, or one that nobody released."""


class Firmware(UpdateNode):
    """The update path, with what the rest of the firmware asks it for."""

    @property
    def backbone(self) -> int:
        """Of the running model; 0 without one."""
        return int(self._library.noria_update_backbone(self._update)) & 0xFFFFFFFF

    def missing(self, package: int) -> int | None:
        """Fragments that the session under way, of that TS004 version, still needs; None: there is none."""
        for answer in decode_answers(self.downlink(session_status_request())).read(package):
            if isinstance(answer, SessionStatusAnswer) and answer.exists:
                return answer.missing
        return None


@dataclass
class FieldNode:
    """One node in the field."""

    dev_eui: str
    board: Board
    site: Site
    saved: tuple[bytes, bytes]
    data_rate: int
    phase_s: int
    dice: random.Random
    reachable: bool = True
    firmware: Firmware | None = None
    reply: bytes = b""
    events: deque[tuple[EventCode, Refusal, int]] = field(default_factory=deque)
    f_cnt: int = 0
    downlinks: int = 0
    containers: int = 0
    package: int = 1
    windows: int = 0
    model_days: int = 0

    @property
    def version(self) -> int:
        """Of the running model."""
        return 0 if self.firmware is None else self.firmware.version


class Site:
    """A farm's gateway, and the queue its network server holds for each node."""

    def __init__(self, name: str, folder: Path, limits: DownlinkSection) -> None:
        self.name = name
        self.queue: dict[str, tuple[str, int, bytes]] = {}
        self._path, self._limits = folder / f"{name}.db", limits
        self.nodes: list[FieldNode] = []

    def start(self) -> None:
        """The process begins, on what its store holds."""
        listed = [Node(dev_eui=n.dev_eui, name="f", crop="maize", board=n.board.name.lower()) for n in self.nodes]
        settings = GatewaySettings(
            site=self.name,
            clock="simulated",
            store=self._path,
            network=NetworkServer(application=APPLICATION),
            downlinks=self._limits,
            nodes=listed,
        )
        self.store = Store(self._path)
        self.store.configure(settings)
        self.gateway = Gateway(settings, self.store)

    def restart(self) -> None:
        """It was killed, and begins again."""
        self.store.close()
        self.start()

    def assign(self, campaign: int, message: bytes) -> None:
        """The server's word."""
        self.gateway.carry_out(assignment_topic(self.name, campaign), message)
        self._collect()

    def event(self, dev_eui: str, name: str, body: dict[str, Any]) -> None:
        """The network server's word."""
        topic = f"application/{APPLICATION}/device/{dev_eui}/event/{name}"
        self.gateway.carry_out(topic, json.dumps(body).encode())
        self._collect()

    def _collect(self) -> None:
        for message in self.store.outgoing("network", 100):
            body = json.loads(message.payload)
            if body["devEui"] in self.queue:
                raise AssertionError(f"a second downlink for {body['devEui']} in the network server's queue")
            self.queue[body["devEui"]] = (body["id"], body["fPort"], base64.b64decode(body["data"]))
            self.store.execute("DELETE FROM outbox WHERE id = ?", (message.outgoing_id,))

    def to_server(self) -> tuple[list[Progress], list[SiteStatus]]:
        """What the site says, once."""
        progress, status = [], []
        for message in self.store.outgoing("server", 100_000):
            if message.topic.endswith("/progress"):
                progress.append(Progress.model_validate_json(message.payload))
            else:
                status.append(SiteStatus.model_validate_json(message.payload))
        self.store.execute("DELETE FROM outbox WHERE broker = 'server'")
        return progress, status

    def daily(self) -> None:
        """What the gateway does once a day."""
        with self.store.transaction():
            self.gateway._daily()


class World:
    """Everything that is not the server.

    Args:
        folder: For the gateways' stores.
        weather: What happens to nodes and frames.
        models: Whether an image may run as a version.
        harm: Squared errors of a model over a window, relative to those of the rule without ML, by version.
        windows_per_day: Dry-downs a node's own judgement gets to see.
    """

    def __init__(
        self,
        folder: Path,
        weather: Weather,
        models: Callable[[int, bytes], bool],
        harm: Callable[[int], float],
        windows_per_day: float = 1.0,
    ) -> None:
        self._folder, self.weather, self._models, self._harm = folder, weather, models, harm
        self._windows_per_day = windows_per_day
        self.tally = Tally()
        self.sites: dict[str, Site] = {}
        self._flash = Flash(Part.L0)

    # Making

    def site(self, name: str, limits: DownlinkSection) -> Site:
        """A farm more."""
        self.sites[name] = Site(name, self._folder, limits)
        return self.sites[name]

    def node(self, site: Site, number: int, model: bytes, public_key: bytes, *, reachable: bool = True) -> FieldNode:
        """A provisioned node at ``site``, running ``model`` as its first."""
        dice = random.Random(number)
        board = (Board.STM32L072, Board.STM32L432)[number % 2]
        dev_eui = f"{0x70B3D57ED0000000 + number:016x}"
        flash = Flash(PARTS[board])
        settings = Settings(
            dev_eui=dev_eui, board=board, crop=Crop.MAIZE, planting_time_s=1_714_543_200, season_days=130,
            season=2024, public_keys=(public_key, bytes(32)),
        )  # fmt: skip
        flash.write(SETTINGS_OFFSET, settings.pack())
        flash.write(MODEL_A, model)
        node = FieldNode(
            dev_eui, board, site, flash.saved(), dice.choice(self.weather.data_rates), dice.randrange(86_400 // WAKE_S)
            * WAKE_S, dice, reachable,
        )  # fmt: skip
        self._boot(node, flash)
        node.saved = flash.saved()
        site.nodes.append(node)
        return node

    # Living

    def day(
        self, start_s: int, nodes: Callable[[], Iterable[FieldNode]], every_s: int, serve: Callable[[int], None]
    ) -> None:
        """A day of these nodes, wake by wake in the order of time; what they said reaches the server now and then.

        Args:
            start_s: When it begins.
            nodes: Those that live through it.
            every_s: How often ``serve`` is called, with the time.
            serve: Carries messages between gateways and server.
        """
        queue = [(start_s + node.phase_s, node.dev_eui, node) for node in nodes]
        heapq.heapify(queue)
        next_s = start_s + every_s
        while queue:
            at_s, dev_eui, node = heapq.heappop(queue)
            while at_s >= next_s:
                serve(next_s)
                next_s += every_s
            self.wake(node, at_s, day_begins=at_s == start_s + node.phase_s)
            # A quiet node's other wakes say nothing; of one that is under way each matters.
            following_s = at_s + WAKE_S
            if self._is_busy(node) and following_s < start_s + DAY_S and following_s % DAY_S != node.phase_s:
                heapq.heappush(queue, (following_s, dev_eui, node))

    def wake(self, node: FieldNode, now_s: int, *, day_begins: bool) -> None:
        """One wake of a node: what it says, what it hears, and what that does to it."""
        flash = self._into_flash(node)
        assert node.firmware is not None
        if node.dice.random() < self.weather.resets:
            self.tally.resets += 1
            self._boot(node, flash)
        if day_begins:
            self._new_day(node, now_s)
        node.reply = node.reply or node.firmware.status()
        node.events.extend(node.firmware.events())
        telemetry = self._telemetry(node, now_s) if day_begins else b""
        cutting = node.dice.random() < self.weather.cuts and node.dev_eui in node.site.queue
        fails_at = self._arm(node, flash) if cutting else None
        for index in range(FRAMES_PER_WAKE):
            frame, telemetry = self._next_frame(node, now_s, telemetry)
            if frame is None or (fails_at is not None and flash.operations >= fails_at):
                break
            self._send(node, now_s + 5 * index, *frame)
        if node.firmware.poll(now_s + 20):
            node.windows, node.model_days = 0, 0
        if fails_at is not None and flash.library.noria_host_flash_power_on():
            self.tally.cuts += 1
            self._boot(node, flash)
        self._look(node)
        node.saved = flash.saved()

    @staticmethod
    def _arm(node: FieldNode, flash: Flash) -> int:
        """Let the power fail in this wake; after how many flash operations."""
        last, torn, seed = node.dice.choice(LAST_OPERATIONS), node.dice.random() < 0.5, node.dice.randrange(1, 1 << 31)
        operation = node.dice.randrange(last)
        flash.library.noria_host_flash_cut(ctypes.c_uint32(operation), ctypes.c_bool(torn), ctypes.c_uint32(seed))
        return flash.operations + operation

    def _is_busy(self, node: FieldNode) -> bool:
        """Whether the node has something to say at its next wake, before the day's report."""
        return bool(node.reply or node.events or (node.firmware is not None and node.firmware.active))

    def _into_flash(self, node: FieldNode) -> Flash:
        flash = self._flash
        part = PARTS[node.board]
        flash.library.noria_host_flash_reset(ctypes.c_uint8(part.erased_byte))
        if part is Part.L4_ECC:
            flash.library.noria_host_flash_ecc()
        flash.restore(node.saved)
        flash.library.noria_settings_load()
        return flash

    def _boot(self, node: FieldNode, flash: Flash) -> None:
        started = node.firmware is not None
        node.firmware, node.reply = Firmware(flash.library), b""
        if started:
            node.events.append((EventCode.BOOTED, Refusal.NONE, node.firmware.version))
        self._look(node)

    def _look(self, node: FieldNode) -> None:
        assert node.firmware is not None
        model = node.firmware.model
        if model is None or not self._models(node.firmware.version, model):
            self.tally.without_model += 1

    def _new_day(self, node: FieldNode, now_s: int) -> None:
        assert node.firmware is not None
        if node.dice.random() < self.weather.moves:
            node.data_rate = min(max(node.data_rate + node.dice.choice((-1, 1)), 0), 5)
        if node.firmware.on_probation:
            node.model_days += 1
            node.windows += int(self._windows_per_day) + (node.dice.random() < self._windows_per_day % 1)
            harm = self._harm(node.firmware.version)
            energy = 1000 * node.windows
            if node.firmware.probation(round(harm * energy), energy, node.windows, now_s):
                node.windows = 0

    def _telemetry(self, node: FieldNode, now_s: int) -> bytes:
        assert node.firmware is not None
        flags = TelemetryFlag.ANCHORED | (TelemetryFlag.UPDATE_ACTIVE if node.firmware.active else TelemetryFlag(0))
        return Telemetry(
            time_s=now_s, flags=flags, mode=Mode.MODEL, board=node.board, battery_mv=3000, vwc_shallow_e4=2000,
            vwc_deep_e4=2000, soil_temp_c100=1800, air_temp_c100=2000, depletion_e1_mm=100, taw_e1_mm=1000,
            threshold_permille=200, forecast_24h_e4=-40, water_season_e1_mm=0, last_reason=Reason.NOT_NEEDED,
            probation=int(node.firmware.on_probation), model_version=node.firmware.version,
            backbone_id=node.firmware.backbone,
        ).encode()  # fmt: skip

    def _next_frame(self, node: FieldNode, now_s: int, telemetry: bytes) -> tuple[tuple[int, bytes] | None, bytes]:
        """In the firmware's order: an answer or poll, events, the day's report."""
        if node.reply:
            frame, node.reply = (int(FPort.FRAGMENTATION), node.reply), b""
            return frame, telemetry
        if node.events:
            code, refusal, version = node.events.popleft()
            event = Event(code, now_s, detail=refusal, model_version=version)
            return (int(FPort.EVENTS), event.encode()), telemetry
        return ((int(FPort.TELEMETRY), telemetry), b"") if telemetry else (None, b"")

    # The air

    def _send(self, node: FieldNode, time_s: int, f_port: int, payload: bytes) -> None:
        node.f_cnt += 1
        self.tally.uplinks += 1
        heard, answered = (node.dice.random() >= self.weather.loss for _ in range(2))
        if not heard or not node.reachable:
            return
        site = node.site
        waiting = site.queue.get(node.dev_eui)
        self.tally.longest_queue = max(self.tally.longest_queue, len(site.queue))
        body = {
            "deduplicationId": f"{node.dev_eui}-{node.f_cnt}",
            "time": datetime.fromtimestamp(time_s, UTC).isoformat(),
            "dr": node.data_rate, "fCnt": node.f_cnt, "fPort": f_port, "data": base64.b64encode(payload).decode(),
        }  # fmt: skip
        site.event(node.dev_eui, "up", body)
        if waiting is None:
            return
        del site.queue[node.dev_eui]
        if len(waiting[2]) > MAX_PAYLOAD[node.data_rate]:
            log = {"code": "DOWNLINK_PAYLOAD_SIZE", "context": {"queue_item_id": waiting[0]}}
            site.event(node.dev_eui, "log", log)
            return
        self.tally.downlinks += 1
        node.downlinks += 1
        self.tally.airtime_s += airtime_s(node.data_rate, len(waiting[2]))
        if answered:
            self._hear(node, waiting[1], waiting[2])
        site.event(node.dev_eui, "txack", {"queueItemId": waiting[0]})

    def _hear(self, node: FieldNode, f_port: int, payload: bytes) -> None:
        assert node.firmware is not None
        firmware = node.firmware
        if f_port == FPort.CONTAINER:
            node.containers += 1
            self.tally.duplicates += node.containers > 1
            firmware.container(payload)
            return
        if payload[0] == Command.DATA_FRAGMENT:
            before = firmware.missing(node.package)
            firmware.downlink(payload)
            self.tally.duplicates += firmware.missing(node.package) == before
            return
        setup = payload[1:] if payload[0] == Command.PACKAGE_VERSION else payload
        if setup and setup[0] == Command.SESSION_SETUP:
            node.package = 1 if len(setup) == SETUP_SIZE_1 else 2
        node.reply = firmware.downlink(payload)
