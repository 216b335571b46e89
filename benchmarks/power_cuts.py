"""Power cut at every flash operation of every phase of a node's life, and at every pair of operations.

The invariant (I1): afterwards the node runs a complete verified model, the old or the new, its settings and its state
are the old or the new, and what was interrupted can be completed. The host build tries every operation and every pair
of operations, on all kinds of flash, cut cleanly and torn; the emulated boards try every operation of the very ELF
files. The same eyes judge both: the C that boots, over what the flash holds.
"""

from __future__ import annotations

import dataclasses
import struct
import sys
import warnings
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import monocypher

from nodes.emulator.bench import Bench
from nodes.emulator.firmware import Firmware
from nodes.emulator.flash import PowerCutError
from nodes.emulator.interfaces import Downlink
from nodes.emulator.node import EmulatedNode
from nodes.firmware.build import build
from nodes.flash_map import BOOT
from nodes.hoststore import MODEL_A, SETTINGS_OFFSET, STATE_A, STATE_B, Flash, Part, UpdateNode
from shared_models.codes import Board, Crop, FPort
from shared_models.container import (
    RELEASE_KEY,
    KeyChange,
    authenticate,
    build_delta,
    build_full,
    build_head,
    build_keys,
    build_personal,
    sign,
)
from shared_models.factory import factory_image
from shared_models.fragmentation import FragmentationAnswer, Fragmenter, SessionSetupAnswer
from shared_models.frames import SettingsChange, decode_uplink
from shared_models.settings import Setting, Settings

START_S = 1_777_593_600
"""2026-05-01 00:00 UTC."""
STATE_BYTES, STATE_VERSION = 992, 7
STATE_AREA, LOG_MAGIC = 0x1000, b"NR"
DEV_EUI, UPDATE_KEY = "a1b2c3d4e5f60718", bytes(range(7, 23))
PROBATION_BOOTS = 8
CHANGE = SettingsChange({Setting.DOSE_E1_MM: 150, Setting.PLANTING_TIME_S: START_S + 10 * 86_400})
CUTS = ((False, 1), (True, 12_345), (True, 99_991))
"""Whether torn, and with which noise."""
BOARD_PAIRS = 16
"""Of two cuts in a row on a board, about so many are tried in each phase."""
PARTS = {Board.STM32L072: Part.L0, Board.STM32L432: Part.L4}


class NotRecoveredError(AssertionError):
    """A node was not what it must be after a power cut; the text says when and how."""


@dataclass(frozen=True)
class Facts:
    """What a node that boots now stands on."""

    version: int
    on_probation: bool
    missing: int | None
    """Fragments of the session under way; None: there is none."""
    settings: Settings | None
    state: bytes | None
    keys: bytes
    """Of the last change of keys, see :func:`changed_keys`."""


@dataclass(frozen=True)
class Phase:
    """One part of a node's life, as the host build lives it.

    Args:
        prepare: Brings a provisioned flash to the moment before.
        story: From a reset on; told again after a cut, it completes what was interrupted.
        versions: Models that may run after a cut.
        completed: What must hold once the story was told to its end.
    """

    prepare: Callable[[Flash], None]
    story: Callable[[Flash], None]
    versions: frozenset[int]
    completed: Callable[[Facts], bool]


@dataclass(frozen=True)
class Release:
    """What the nodes of these trials know and are sent."""

    public_key: bytes
    images: dict[int, bytes]
    """The factory's model and its successor, by version."""
    containers: dict[str, bytes]
    """The successor in every kind of container, and a change of the release key."""


@cache
def release() -> Release:
    """The release of these trials."""
    secret, next_secret = bytes(range(32)), bytes(range(1, 33))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        public, next_public = (monocypher.compute_signing_public_key(key) for key in (secret, next_secret))
    factory = factory_image()
    successor = dataclasses.replace(factory, head=dataclasses.replace(factory.head, bias=factory.head.bias + 7))
    containers = {
        "full": sign(build_full(successor, 2), secret + public),
        "head": sign(build_head(successor, 2), secret + public),
        "delta": sign(build_delta(successor, factory, 2), secret + public),
        "personal": authenticate(build_personal(successor, factory, 2), UPDATE_KEY, DEV_EUI),
        "keys": sign(build_keys(KeyChange(RELEASE_KEY, next_public), 2), secret + public),
    }
    return Release(public, {1: factory.pack(), 2: successor.pack()}, containers)


def provisioned(board: Board) -> Settings:
    """A node's page."""
    return Settings(
        dev_eui=DEV_EUI,
        board=board,
        crop=Crop.MAIZE,
        planting_time_s=START_S + 8 * 86_400 + 6 * 3600,
        season_days=120,
        season=2026,
        wake_phase_s=137,
        telemetry_period_h=1,
        public_keys=(release().public_key, bytes(32)),
        update_key=UPDATE_KEY,
    )


def provision(flash: Flash, board: Board = Board.STM32L072) -> None:
    """What the factory writes."""
    flash.write(SETTINGS_OFFSET, provisioned(board).pack())
    flash.write(MODEL_A, release().images[1])


def newest_state(region: bytes) -> bytes | None:
    """Payload of the newest valid record of core state."""
    return _newest(region, (STATE_A, STATE_B), STATE_AREA)


def changed_keys(region: bytes) -> bytes:
    """Version and keys of the last change of keys; empty while the settings page's are trusted."""
    record = _newest(region, (BOOT[0].offset, BOOT[1].offset), BOOT[0].size) or bytes(92)
    changed = record[24:92]
    return changed if any(changed[:4]) else b""


def _newest(region: bytes, areas: tuple[int, int], size: int) -> bytes | None:
    """Payload of a log's newest valid record: an oracle of its own, whatever the payload's layout."""
    newest: tuple[int, bytes] | None = None
    for area in areas:
        limit = area + size
        at = region.find(LOG_MAGIC, area, limit)
        while at >= 0:
            _, length, sequence = struct.unpack_from("<HHI", region, at)
            end = at + 8 + -(-length // 8) * 8 + 8
            if end <= limit and zlib.crc32(region[at : end - 4]) == int.from_bytes(region[end - 4 : end], "little"):
                newest = max(newest or (0, b""), (sequence, region[at + 8 : end - 8]))
            at = region.find(LOG_MAGIC, at + 1, limit)
    return None if newest is None else newest[1]


def look(flash: Flash) -> Facts:
    """Boot once more, and see.

    Raises:
        NotRecoveredError: the running model is not the one its version names.
    """
    settings = flash.load_settings()
    if settings is None:
        raise NotRecoveredError("no settings")
    node = UpdateNode(flash.library)
    expected = release().images[node.version] if node.version else None
    if node.model != expected:
        raise NotRecoveredError(f"the running model is not version {node.version}")
    poll = node.status()
    region = flash.read()
    # Whatever the session's form: the other of the two bytes is zero with so few fragments.
    missing = max(poll[3], poll[4]) if poll else None
    return Facts(node.version, node.on_probation, missing, settings, newest_state(region), changed_keys(region))


def _state(number: int) -> bytes:
    return bytes((number * 31 + i) % 256 for i in range(STATE_BYTES))


def _boot(flash: Flash) -> UpdateNode:
    flash.load_settings()
    return UpdateNode(flash.library)


def _booted(flash: Flash) -> None:
    _boot(flash)


def _saved_often(flash: Flash) -> None:
    _boot(flash)
    for number in range(STATE_AREA // STATE_BYTES):  # the next record goes to the other area
        flash.save_state(_state(number), STATE_VERSION)


def _save(flash: Flash) -> None:
    _boot(flash)
    flash.save_state(_state(100), STATE_VERSION)


def _sender(package: int = 1) -> Fragmenter:
    return Fragmenter(release().containers["full"], 222, 2, package)


def _stage(flash: Flash, package: int = 1) -> None:
    node, sender = _boot(flash), _sender(package)
    node.downlink(sender.setup())
    for step in range(sender.count):
        node.downlink(sender.fragment(step))


def _staged(flash: Flash) -> None:
    _booted(flash)
    _stage(flash)


def _install(flash: Flash) -> None:
    _boot(flash).receive(release().containers["full"], 2, 222, package=1)


def _install_in_session(flash: Flash, kind: str) -> None:
    _boot(flash).receive(release().containers[kind], 2, 51)


def _install_whole(flash: Flash, kind: str) -> None:
    node = _boot(flash)
    node.container(release().containers[kind])
    node.poll()


def _installed(flash: Flash) -> None:
    _booted(flash)
    _install(flash)


def _confirm(flash: Flash) -> None:
    _boot(flash).probation(0, 0, 8)


def _roll_back(flash: Flash) -> None:
    _boot(flash).probation(1000, 10, 8)


def _change(flash: Flash) -> None:
    _boot(flash)
    flash.change_settings(CHANGE.encode())


def _changed_often(flash: Flash) -> None:
    _boot(flash)
    for number in range(23):  # the next record goes to the other area
        flash.change_settings(SettingsChange({Setting.DAILY_CAP_MM: 41 + number}).encode())


def _runs_the_successor(facts: Facts) -> bool:
    return facts.version == 2 and facts.on_probation


OLD, EITHER, NEW = frozenset({1}), frozenset({1, 2}), frozenset({2})
PHASES = {
    "boot": Phase(lambda _: None, _booted, OLD, lambda facts: facts.version == 1),
    "statistics save": Phase(_saved_often, _save, OLD, lambda facts: bytes(facts.state or b"").startswith(_state(100))),
    "staging": Phase(_booted, _stage, OLD, lambda facts: facts.missing == 0),
    "staging, TS004 v2": Phase(_booted, partial(_stage, package=2), OLD, lambda facts: facts.missing == 0),
    "install and switch": Phase(_staged, _install, EITHER, lambda facts: facts.version == 2 and facts.on_probation),
    "delta in a session": Phase(_booted, partial(_install_in_session, kind="delta"), EITHER, _runs_the_successor),
    "head in one frame": Phase(_booted, partial(_install_whole, kind="head"), EITHER, _runs_the_successor),
    "personal head in one frame": Phase(_booted, partial(_install_whole, kind="personal"), EITHER, _runs_the_successor),
    "change of keys in one frame": Phase(
        _booted, partial(_install_whole, kind="keys"), OLD, lambda facts: bool(facts.keys)
    ),
    "change of keys on probation": Phase(
        _installed, partial(_install_whole, kind="keys"), NEW, lambda facts: bool(facts.keys)
    ),
    "boot on probation": Phase(_installed, _booted, NEW, lambda facts: facts.on_probation),
    "confirm": Phase(_installed, _confirm, NEW, lambda facts: not facts.on_probation),
    "rollback": Phase(_installed, _roll_back, EITHER, lambda facts: facts.version == 1),
    "settings change": Phase(
        _changed_often, _change, OLD, lambda facts: facts.settings is not None and facts.settings.dose_e1_mm == 150
    ),
}


class HostTrial:
    """One phase on one kind of flash.

    Args:
        name: Of the phase.
        part: Kind of flash.
        sanitize: Use the build that aborts on undefined behaviour.
    """

    def __init__(self, name: str, part: Part, *, sanitize: bool = False) -> None:
        self.phase, self._what = PHASES[name], f"{name}, {part.name}"
        self.flash = Flash(part, sanitize=sanitize)
        provision(self.flash)
        self.phase.prepare(self.flash)
        self._before = self.flash.saved()
        self._facts = [self._look_after(self._before)]
        self.flash.restore(self._before)
        self.phase.story(self.flash)
        self.operations = self.flash.operations
        self._facts.append(self._look_after(self.flash.saved()))

    def single(self, operation: int, *, torn: bool, seed: int) -> None:
        """Cut once, and judge.

        Raises:
            NotRecoveredError: the node did not recover.
        """
        self.flash.restore(self._before)
        with self.flash.cut(operation, torn=torn, seed=seed):
            self.phase.story(self.flash)
        self._judge(f"{self._what}: cut at {operation}, torn {torn}, seed {seed}")

    def pairs(self, operation: int, *, torn: bool, seed: int, every: int = 1) -> int:
        """Cut, then cut the recovery at each of its operations, and judge each; how many.

        Raises:
            NotRecoveredError: the node did not recover.
        """
        self.flash.restore(self._before)
        with self.flash.cut(operation, torn=torn, seed=seed):
            self.phase.story(self.flash)
        once = self.flash.saved()
        self.flash.restore(once)
        self.phase.story(self.flash)
        seconds = range(seed % every, self.flash.operations + 1, every)
        for second in seconds:
            self.flash.restore(once)
            with self.flash.cut(second, torn=torn, seed=seed + second):
                self.phase.story(self.flash)
            self._judge(f"{self._what}: cut at {operation}, then {second}, torn {torn}, seed {seed}")
        return len(seconds)

    def _look_after(self, saved: tuple[bytes, bytes]) -> Facts:
        self.flash.restore(saved)
        return look(self.flash)

    def _judge(self, what: str) -> None:
        self._require(look(self.flash), what)
        self.phase.story(self.flash)
        facts = look(self.flash)
        self._require(facts, what)
        if not self.phase.completed(facts):
            raise NotRecoveredError(f"{what}: not completed afterwards: model {facts.version}")

    def _require(self, facts: Facts, what: str) -> None:
        old, new = self._facts
        for name in ("settings", "state", "keys"):
            if getattr(facts, name) not in (getattr(old, name), getattr(new, name)):
                raise NotRecoveredError(f"{what}: {name} neither the old nor the new")
        if facts.version not in self.phase.versions:
            raise NotRecoveredError(f"{what}: model {facts.version} runs")


### Boards


class Farm(Bench):
    """A steady world, and an air that gives each uplink one downlink: the update's next step or a change."""

    def __init__(self, *, updates: bool = False, change: bytes | None = None, container: bytes | None = None) -> None:
        super().__init__()
        self._sender = _sender() if updates else None
        once = (FPort.SETTINGS, change) if change is not None else (FPort.CONTAINER, container)
        self._once = None if once[1] is None else Downlink(int(once[0]), once[1])
        self.restart()

    def restart(self) -> None:
        """The node has been silent: begin again."""
        self._accepted, self._said, self._step = False, False, 0

    def uplink(
        self,
        dev_eui: str,
        time_s: float,
        f_port: int,
        payload: bytes,
        data_rate: int,
        confirmed: bool,  # noqa: FBT001
    ) -> list[Downlink]:
        """One downlink, if anything is left to say."""
        del dev_eui, time_s, data_rate, confirmed
        if self._once is not None and not self._said:
            self._said = True
            return [self._once]
        if self._sender is None:
            return []
        frame = decode_uplink(f_port, payload)
        if isinstance(frame, FragmentationAnswer):
            self._accepted |= any(isinstance(answer, SessionSetupAnswer) for answer in frame.answers)
        if not self._accepted:
            return [Downlink(int(FPort.FRAGMENTATION), self._sender.setup())]
        self._step += 1
        return [Downlink(int(FPort.FRAGMENTATION), self._sender.fragment(self._step - 1))]


@dataclass(frozen=True)
class BoardPhase:
    """The same part of a node's life on an emulated board.

    Args:
        prepare: Brings the flash to the moment before, by the host build.
        start_s: When the battery goes in, after START_S.
        duration_s: How long the story takes.
        second_day: The node lived through the same hours a day before.
        farm: What surrounds the node.
        versions: Models that may run after a cut.
        completed: What must hold once the node has lived through it.
    """

    prepare: Callable[[Flash], None]
    versions: frozenset[int]
    completed: Callable[[Facts], bool]
    start_s: int = 0
    duration_s: int = 1_000
    second_day: bool = False
    farm: Callable[[], Farm] = field(default=Farm)


def _doubtful(flash: Flash) -> None:
    """On its last boot of probation."""
    _installed(flash)
    for _ in range(PROBATION_BOOTS):
        _boot(flash)


def _proved_tomorrow(flash: Flash) -> None:
    """At the dawn of the second day nothing has spoken against the new model for 28 days."""
    _staged(flash)
    _boot(flash).poll(START_S - 27 * DAY_S)


DAY_S = 86_400
BEFORE_DAWN_S = 6 * 3600 - 1_200
SAVES_APART_S = 5
RADIO_PAUSE_S = 2 * 900
"""A node that lost its power twice before a transmission went well waits so long with the next."""
BOARD_PHASES = {
    "boot": BoardPhase(lambda _: None, OLD, lambda facts: facts.version == 1),
    "statistics save": BoardPhase(
        _booted,
        OLD,
        lambda facts: facts.state is not None,
        start_s=DAY_S + BEFORE_DAWN_S,
        duration_s=1_800,
        second_day=True,
    ),
    "staging, install and switch": BoardPhase(
        _booted,
        EITHER,
        lambda facts: facts.version == 2 and facts.on_probation,
        duration_s=6_500,
        farm=lambda: Farm(updates=True),
    ),
    "install and switch": BoardPhase(_staged, EITHER, lambda facts: facts.version == 2 and facts.on_probation),
    "head in one frame": BoardPhase(
        _booted, EITHER, _runs_the_successor, farm=lambda: Farm(container=release().containers["head"])
    ),
    "personal head in one frame": BoardPhase(
        _booted, EITHER, _runs_the_successor, farm=lambda: Farm(container=release().containers["personal"])
    ),
    "change of keys in one frame": BoardPhase(
        _booted, OLD, lambda facts: bool(facts.keys), farm=lambda: Farm(container=release().containers["keys"])
    ),
    "boot on probation": BoardPhase(_installed, NEW, lambda facts: facts.on_probation, duration_s=10),
    "confirm": BoardPhase(
        _proved_tomorrow,
        NEW,
        lambda facts: not facts.on_probation,
        start_s=DAY_S + BEFORE_DAWN_S,
        duration_s=1_800,
        second_day=True,
    ),
    "rollback": BoardPhase(_doubtful, EITHER, lambda facts: facts.version == 1, duration_s=10),
    "settings change": BoardPhase(
        _changed_often,
        OLD,
        lambda facts: facts.settings is not None and facts.settings.dose_e1_mm == 150,
        farm=lambda: Farm(change=CHANGE.encode()),
    ),
}


class BoardTrial:
    """One phase on one emulated board."""

    def __init__(self, name: str, firmware: Firmware) -> None:
        self.phase, self._what = BOARD_PHASES[name], f"{name}, {firmware.board.name}"
        self._firmware, self._part = firmware, PARTS[firmware.board]
        flash = Flash(self._part)
        provision(flash, firmware.board)
        self.phase.prepare(flash)
        self._region = flash.read()
        if self.phase.second_day:
            node, _ = self._start(earlier_s=DAY_S)
            node.run_until(self._end_s - DAY_S)
            self._region = node.flash
        node, _ = self._start()
        # A phase may save more than once: at its start, and when its work is done.
        self._facts = [self._look(self._region)]
        while node.time_s < self._end_s:
            node.run_until(min(node.time_s + SAVES_APART_S, self._end_s))
            self._facts.append(self._look(node.flash))
        self.operations = node.flash_operations

    def single(self, operation: int, *, torn: bool, seed: int) -> None:
        """Cut once, power on again, live on, and judge.

        Raises:
            NotRecoveredError: the node did not recover.
        """
        what = f"{self._what}: cut at {operation}, torn {torn}, seed {seed}"
        node, farm = self._start()
        self._cut(node, farm, operation, self._end_s, what, torn=torn, seed=seed)
        self._live_on(node, what, cuts=1)

    def double(self, operation: int, second: int, *, torn: bool, seed: int) -> bool:
        """Cut, power on again, and cut once more at the recovery's operation ``second``; whether there was such a one.

        Raises:
            NotRecoveredError: the node did not recover.
        """
        what = f"{self._what}: cut at {operation}, then {second}, torn {torn}, seed {seed}"
        node, farm = self._start()
        self._cut(node, farm, operation, self._end_s, what, torn=torn, seed=seed)
        ends_s = node.time_s + self.phase.duration_s + RADIO_PAUSE_S
        node.cut_power_at(node.flash_operations + second, torn=torn, seed=seed + 1)
        try:
            node.run_until(ends_s)
        except PowerCutError:
            self._require(self._look(node.flash), what, afterwards=True)
            node.power_cycle()
            farm.restart()
            self._live_on(node, what, cuts=2)
            return True
        return False

    def _cut(
        self, node: EmulatedNode, farm: Farm, operation: int, ends_s: float, what: str, *, torn: bool, seed: int
    ) -> None:
        node.cut_power_at(operation, torn=torn, seed=seed)
        try:
            node.run_until(ends_s)
        except PowerCutError:
            self._require(self._look(node.flash), what)
        else:
            raise NotRecoveredError(f"{what}: the operation was never reached")
        node.power_cycle()
        farm.restart()

    def _live_on(self, node: EmulatedNode, what: str, cuts: int) -> None:
        node.run_until(node.time_s + self.phase.duration_s + cuts * RADIO_PAUSE_S)
        facts = self._look(node.flash)
        self._require(facts, what, afterwards=True)
        if not self.phase.completed(facts):
            raise NotRecoveredError(f"{what}: not completed afterwards: model {facts.version}")

    @property
    def _end_s(self) -> float:
        return START_S + self.phase.start_s + self.phase.duration_s

    def _start(self, earlier_s: int = 0) -> tuple[EmulatedNode, Farm]:
        farm, start_s = self.phase.farm(), START_S + self.phase.start_s - earlier_s
        page = provisioned(self._firmware.board).pack()
        node = EmulatedNode(self._firmware, page, None, farm, farm, start_s, 5)
        node.provision_flash(self._region)
        return node, farm

    def _look(self, region: bytes) -> Facts:
        flash = Flash(self._part)
        flash.write(0, region)
        return look(flash)

    def _require(self, facts: Facts, what: str, *, afterwards: bool = False) -> None:
        if facts.settings not in [known.settings for known in self._facts]:
            raise NotRecoveredError(f"{what}: settings neither the old nor the new")
        # Afterwards the node has lived on and remembers more.
        if not afterwards and facts.state not in [known.state for known in self._facts]:
            raise NotRecoveredError(f"{what}: a state that the undisturbed node never saved")
        if facts.keys not in [known.keys for known in self._facts]:
            raise NotRecoveredError(f"{what}: keys neither the old nor the new")
        if facts.version not in self.phase.versions:
            raise NotRecoveredError(f"{what}: model {facts.version} runs")


def measure() -> dict[str, Any]:
    """Every single cut; every pair on the host build and some on the boards. A failure ends it."""
    return {
        "host": {part.name: {name: host(name, part) for name in PHASES} for part in Part},
        "boards": {
            board.name.lower(): {name: on_board(name, Firmware.load(path)) for name in BOARD_PHASES}
            for board, path in build().items()
        },
    }


def host(name: str, part: Part) -> dict[str, int]:
    """Every cut and every pair of one phase on one kind of flash."""
    trial = HostTrial(name, part)
    singles = list(_cuts(trial.operations))
    for operation, torn, seed in singles:
        trial.single(operation, torn=torn, seed=seed)
    pairs = sum(
        trial.pairs(operation, torn=torn, seed=seed + operation)
        for operation in range(trial.operations)
        for torn, seed in CUTS[:2]
    )
    return _report(f"{part.name}, {name}", trial.operations, singles=len(singles), pairs=pairs)


def on_board(name: str, firmware: Firmware) -> dict[str, int]:
    """Every cut of one phase on one board, and a sample of two in a row."""
    trial = BoardTrial(name, firmware)
    cuts = [(operation, torn, operation + 1) for operation in range(trial.operations) for torn in (False, True)]
    for operation, torn, seed in cuts:
        trial.single(operation, torn=torn, seed=seed)
    step = max(1, trial.operations // BOARD_PAIRS)
    pairs = sum(
        trial.double(operation, operation * 7 % 23, torn=operation % 2 == 0, seed=operation + 1)
        for operation in range(0, trial.operations, step)
    )
    return _report(f"{firmware.board.name}, {name}", trial.operations, singles=len(cuts), pairs=pairs)


def _report(what: str, operations: int, **cuts: int) -> dict[str, int]:
    # A cut without recovery raises: what is counted has recovered.
    result = {"operations": operations, **cuts, "recovered": sum(cuts.values())}
    print(f"{what}: {result}", file=sys.stderr, flush=True)
    return result


def _cuts(operations: int) -> Iterable[tuple[int, bool, int]]:
    return ((operation, torn, seed + operation) for operation in range(operations) for torn, seed in CUTS)
