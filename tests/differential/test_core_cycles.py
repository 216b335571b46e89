"""The core on emulated cores, called function by function: the same bits, within its budget of cycles."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from core_cases import BucketField, random_model, settings
from unicorn import UC_ARCH_ARM, UC_MODE_THUMB, Uc
from unicorn.arm_const import (
    UC_ARM_REG_LR,
    UC_ARM_REG_R0,
    UC_ARM_REG_R1,
    UC_ARM_REG_R2,
    UC_ARM_REG_R3,
    UC_ARM_REG_SP,
    UC_CPU_ARM_CORTEX_M0,
)

from benchmarks.cores import BareCore
from nodes.emulator.cycles import CycleCounter
from nodes.emulator.firmware import FLASH_BASE, Firmware
from nodes.firmware.build import build
from shared_models.codes import Board
from shared_models.reference import NodeReference
from shared_models.state import OUTCOME_STRUCT, READING_FIELDS, READING_STRUCT, STATE_STRUCT, flatten

RAM, RAM_BYTES = 0x2000_0000, 20 * 1024
SETTINGS, READING, IMAGE, CORE, OUTCOME = (RAM + offset for offset in (0x000, 0x100, 0x200, 0x800, 0x1000))
INFERENCE_BUDGET = {Board.STM32L072: 9_000, Board.STM32L432: 4_500}
WAKE_BUDGET = 120_000


class Bench:
    """The firmware's flash and 20 KB of RAM; calls one function at a time."""

    def __init__(self, firmware: Firmware) -> None:
        self.symbols = firmware.symbols
        self.engine = Uc(UC_ARCH_ARM, UC_MODE_THUMB, UC_CPU_ARM_CORTEX_M0)
        self.engine.mem_map(FLASH_BASE, 0x40000)
        self.engine.mem_write(FLASH_BASE, firmware.image)
        self.engine.mem_map(RAM, RAM_BYTES)
        self.costs = firmware.costs
        self.counter = CycleCounter(self.costs, self.engine)

    def call(self, name: str, *arguments: int, fifth: int = 0) -> int:
        """Call a C function; its cycles."""
        top = RAM + RAM_BYTES - 64
        stop = FLASH_BASE + 0x3FF00
        self.engine.mem_write(top, struct.pack("<I", fifth))
        registers = (UC_ARM_REG_R0, UC_ARM_REG_R1, UC_ARM_REG_R2, UC_ARM_REG_R3)
        for register, value in zip(registers, arguments, strict=False):
            self.engine.reg_write(register, value)
        self.engine.reg_write(UC_ARM_REG_SP, top)
        self.engine.reg_write(UC_ARM_REG_LR, stop | 1)
        before = self.counter.cycles
        self.engine.emu_start(self.symbols[name] | 1, stop)
        return self.counter.cycles - before


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(Firmware.load(build()[Board.STM32L072]))


@pytest.mark.parametrize("board", INFERENCE_BUDGET, ids=lambda board: board.name)
def test_inference_is_exact_and_within_its_budget(board: Board) -> None:
    core, image, cycles = BareCore(Firmware.load(build()[board])), random_model(1), []
    core.load(image)
    for row in np.random.default_rng(1).integers(-128, 128, (20, 24)).astype(np.int8):
        results, spent = core.forward(row.tobytes())
        assert results == np.concatenate(image.forward(row)).tobytes()
        cycles.append(spent)
    print(f"inference: {min(cycles)} to {max(cycles)} cycles")
    assert max(cycles) <= INFERENCE_BUDGET[board]


def test_every_wake_of_two_weeks_is_exact_and_within_its_budget(bench: Bench) -> None:
    page, image = settings(), random_model(1)
    node, dawns, others = NodeReference(page), [], []
    for address, data in ((SETTINGS, page.pack()), (IMAGE, image.pack()), (CORE, bytes(STATE_STRUCT.size))):
        bench.engine.mem_write(address, data)
    for _, readings in BucketField(1).days(14):
        for reading in readings:
            bench.engine.mem_write(READING, READING_STRUCT.pack(*flatten(reading, READING_FIELDS)))
            cycles = bench.call("noria_core_wake", CORE, SETTINGS, READING, IMAGE, fifth=OUTCOME)
            outcome = node.wake(reading, image)
            (dawns if outcome.dawn else others).append(cycles)
            got = OUTCOME_STRUCT.unpack(bytes(bench.engine.mem_read(OUTCOME, OUTCOME_STRUCT.size)))
            assert (got[0], got[1], got[2]) == (outcome.open_s, outcome.depletion_um, outcome.taw_um)
        assert bytes(bench.engine.mem_read(CORE, STATE_STRUCT.size)) == node.state.pack()
    print(f"wake: up to {max(others)} cycles, {max(dawns)} at dawn")
    assert max(others) <= WAKE_BUDGET // 4, "the rest is for sensors and the store"
    assert max(dawns) <= WAKE_BUDGET // 2
