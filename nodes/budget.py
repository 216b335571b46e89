"""What the firmware costs, figure by figure, against what it must and what we would like it to cost.

Everything is measured on the ELF files that ship: sizes from the linker, the stack bound from the disassembly,
the rest on the emulated boards.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any

import monocypher
import numpy as np
from unicorn import UC_ARCH_ARM, UC_MODE_THUMB, Uc, UcError
from unicorn.arm_const import (
    UC_ARM_REG_LR,
    UC_ARM_REG_R0,
    UC_ARM_REG_R1,
    UC_ARM_REG_R2,
    UC_ARM_REG_R3,
    UC_ARM_REG_SP,
    UC_CPU_ARM_CORTEX_M0,
    UC_CPU_ARM_CORTEX_M4,
)

from nodes.emulator.cycles import CycleCounter
from nodes.emulator.firmware import FLASH_BASE, Firmware
from nodes.emulator.node import EmulatedNode
from nodes.energy_report import energy_report
from nodes.firmware.build import build, sizes
from nodes.stack import deepest_stack
from nodes.trial import DAY_S, TrialAir, TrialPlot
from shared_models.codes import Board, Crop, EventCode
from shared_models.container import build_full, sign
from shared_models.factory import factory_image
from shared_models.fragmentation import Fragmenter
from shared_models.frames import Event, FrameError, decode_uplink
from shared_models.network import INPUTS, zero_head
from shared_models.settings import NO_KEY, Settings

KIB = 1024
PLANTING_S = 1_778_306_400
"""2026-05-09 06:00 UTC."""
COMMISSIONING_DAYS, GROWING_DAYS, UPDATE_DAYS = 8, 30, 2
WAKE_PERIOD_S, DAWN_S = 900, 6 * 3600
INFERENCES = 50
SF9_DATA_RATE = 3
ROUTINE, DAWN = "routine wake", "dawn wake"
_CORES = {Board.STM32L072: UC_CPU_ARM_CORTEX_M0, Board.STM32L432: UC_CPU_ARM_CORTEX_M4}
_NAMES = {Board.STM32L072: "M0+", Board.STM32L432: "M4"}
_BENCH_RAM, _BENCH_RAM_SIZE = 0x2000_0000, 0x4000


class BudgetError(RuntimeError):
    """A figure that could not be measured; the text says why."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the budget."""

    name: str
    board: str
    value: float
    unit: str
    must: float | None = None
    moonshot: float | None = None
    more_is_better: bool = False

    @property
    def passes(self) -> bool:
        """Whether it is what it must be."""
        return self.must is None or self._reaches(self.must)

    @property
    def reaches_moonshot(self) -> bool:
        """Whether it is what we would like it to be."""
        return self.moonshot is not None and self._reaches(self.moonshot)

    def _reaches(self, limit: float) -> bool:
        return self.value >= limit if self.more_is_better else self.value <= limit

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {
            "pass": self.passes if self.must is not None else None,
            "moonshot_reached": self.reaches_moonshot if self.moonshot is not None else None,
        }


def measure() -> list[Figure]:
    """Every figure, of both boards.

    Raises:
        FirmwareBuildError: the firmware could not be built.
        BudgetError: a node did not do what a figure is about.
    """
    figures: list[Figure] = []
    for board, path in build().items():
        figures += _of_board(board, Firmware.load(path))
    return figures


def _of_board(board: Board, firmware: Firmware) -> list[Figure]:
    name, small = _NAMES[board], board == Board.STM32L072
    used, bound = sizes(board), deepest_stack(firmware)
    inference = max(inference_cycles(firmware))
    quiet = wake_cycles(firmware)

    def limits(must: int, moonshot: int) -> tuple[int | None, int | None]:
        return (must, moonshot) if small else (None, None)

    wake_limits, ram_limits = limits(120_000, 60_000), limits(12 * KIB, 8 * KIB)
    watermark = stack_watermark_bytes(firmware)
    figures = [
        Figure("flash, whole image", name, used["flash"], "B", *limits(48 * KIB, 32 * KIB)),
        Figure("RAM, static and worst-case stack by the call graph", name, used["ram"] + bound, "B", *ram_limits),
        Figure("RAM, static and deepest stack seen", name, used["ram"] + watermark, "B", *ram_limits),
        Figure("inference", name, inference, "cycles", *((9_000, 7_000) if small else (4_500, 2_500))),
    ]
    for kind, cycles in quiet.items():
        # A dawn closes the day and saves the state: once in 96 wakes, and no routine.
        limits_of_kind = wake_limits if kind == ROUTINE else (None, None)
        figures.append(Figure(f"{kind}, without radio", name, cycles.total, "cycles", *limits_of_kind))
        figures.append(Figure(f"{kind}, without radio and waits", name, cycles.executed, "cycles", *limits_of_kind))
    life_years = round(energy_report(board, SF9_DATA_RATE, 25.0).life_years, 2)
    figures.append(Figure("one CR2032 at SF9, 25 °C", name, life_years, "years", 5, 10, more_is_better=True))
    return figures


# Stack


def stack_watermark_bytes(firmware: Firmware) -> int:
    """The deepest stack of a node that commissions, grows, talks, and takes a signed update with a full model.

    Raises:
        BudgetError: the update never ran.
    """
    seed = bytes(range(32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the 32-byte form
        public = monocypher.compute_signing_public_key(seed)
    update = Fragmenter(sign(build_full(zero_head(factory_image()), 2), seed + public), 115, 2)
    settings = _settings(firmware.board, (public, NO_KEY), telemetry_period_h=1, statistics_period_h=24)
    node, air = _node(firmware, settings, update)
    node.paint_stack()
    node.run_until(PLANTING_S + UPDATE_DAYS * DAY_S)
    if EventCode.MODEL_ACTIVATED not in _events(air):
        raise BudgetError(f"{_NAMES[firmware.board]}: the update of the watermark run never became active")
    return node.stack_bytes


# Cycles


@dataclass(slots=True)
class WakeCycles:
    """The dearest wake of a kind."""

    total: int = 0
    executed: int = 0


def wake_cycles(firmware: Firmware) -> dict[str, WakeCycles]:
    """The dearest wakes that send nothing, from boot into the growing season, waits counted and not.

    Raises:
        BudgetError: there was none of a kind.
    """
    settings = _settings(firmware.board, (NO_KEY, NO_KEY), telemetry_period_h=240, statistics_period_h=60_000)
    node, _ = _node(firmware, settings, None)
    found = {ROUTINE: WakeCycles(), DAWN: WakeCycles()}
    time_s = node.start_time_s
    node.run_until(time_s + DAY_S)
    time_s += DAY_S
    while time_s < PLANTING_S + GROWING_DAYS * DAY_S:
        cycles, stalled, frames = node.cycles, node.stalled_cycles, node.frames_sent
        time_s += WAKE_PERIOD_S
        node.run_until(time_s)
        if node.frames_sent == frames:
            kind = found[DAWN if time_s % DAY_S == DAWN_S + WAKE_PERIOD_S else ROUTINE]
            total = node.cycles - cycles
            kind.total = max(kind.total, total)
            kind.executed = max(kind.executed, total - (node.stalled_cycles - stalled))
    for name, kind in found.items():
        if not kind.total:
            raise BudgetError(f"{_NAMES[firmware.board]}: every {name} used the radio")
    return found


def inference_cycles(firmware: Firmware) -> list[int]:
    """Cycles of ``noria_engine_run`` on random inputs.

    Raises:
        BudgetError: it faulted, or its numbers are not the reference's.
    """
    image = factory_image()
    inputs = np.random.default_rng(1).integers(-128, 128, (INFERENCES, INPUTS)).astype(np.int8)
    activations, outputs = image.forward(inputs)
    core = Uc(UC_ARCH_ARM, UC_MODE_THUMB, _CORES[firmware.board])
    core.mem_map(FLASH_BASE, 0x4_0000)
    core.mem_map(_BENCH_RAM, _BENCH_RAM_SIZE)
    core.mem_write(FLASH_BASE, firmware.image)
    model, features, first, second = (_BENCH_RAM + offset for offset in (0x0000, 0x1000, 0x1040, 0x1080))
    stack, back = _BENCH_RAM + _BENCH_RAM_SIZE, FLASH_BASE + 0x2_0000
    core.mem_write(model, image.pack())
    counter = CycleCounter(firmware.costs, core)
    registers = (UC_ARM_REG_R0, UC_ARM_REG_R1, UC_ARM_REG_R2, UC_ARM_REG_R3, UC_ARM_REG_SP, UC_ARM_REG_LR)
    cycles = []
    for vector, activation, output in zip(inputs, activations, outputs, strict=True):
        core.mem_write(features, vector.tobytes())
        for register, value in zip(registers, (model, features, first, second, stack, back | 1), strict=True):
            core.reg_write(register, value)
        before = counter.cycles
        try:
            core.emu_start(firmware.symbols["noria_engine_run"] | 1, back)
        except UcError as error:
            raise BudgetError(f"{_NAMES[firmware.board]}: the engine faulted: {error}") from error
        cycles.append(counter.cycles - before)
        got = bytes(core.mem_read(first, activation.size)), bytes(core.mem_read(second, output.size))
        if got != (activation.tobytes(), output.tobytes()):
            raise BudgetError(f"{_NAMES[firmware.board]}: the engine's numbers are not the reference's")
    return cycles


# The node under measurement


def _settings(
    board: Board, keys: tuple[bytes, bytes], *, telemetry_period_h: int, statistics_period_h: int
) -> Settings:
    return Settings(
        dev_eui="70b3d57ed0000001",
        board=board,
        crop=Crop.MAIZE,
        planting_time_s=PLANTING_S,
        season_days=132,
        season=2026,
        public_keys=keys,
        commissioning_days=COMMISSIONING_DAYS,
        telemetry_period_h=telemetry_period_h,
        statistics_period_h=statistics_period_h,
    )


def _node(firmware: Firmware, settings: Settings, update: Fragmenter | None) -> tuple[EmulatedNode, TrialAir]:
    start_s = PLANTING_S - COMMISSIONING_DAYS * DAY_S - DAWN_S
    plot, air = TrialPlot(start_s, settings.application_rate_e2_mm_h / 100), TrialAir(update)
    return EmulatedNode(firmware, settings.pack(), factory_image().pack(), plot, air, start_s, 3), air


def _events(air: TrialAir) -> set[int]:
    found: set[int] = set()
    for _, f_port, payload in air.uplinks:
        try:
            told = decode_uplink(f_port, payload)
        except FrameError:
            continue
        if isinstance(told, Event):
            found.add(told.code)
    return found
