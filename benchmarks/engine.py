"""Cycles of one inference and of one wake, on the ELF files that ship, counted in the emulator."""

from __future__ import annotations

from typing import Any

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
from nodes.firmware.build import build
from shared_models.codes import Board
from shared_models.factory import factory_image
from shared_models.network import INPUTS, ModelImage

CORES = {Board.STM32L072: UC_CPU_ARM_CORTEX_M0, Board.STM32L432: UC_CPU_ARM_CORTEX_M4}
RAM_BASE, RAM_SIZE = 0x2000_0000, 0x4000
MODEL, FEATURES, ACTIVATIONS, OUTPUTS = (RAM_BASE + offset for offset in (0x0000, 0x1000, 0x1040, 0x1080))
RETURN = FLASH_BASE + 0x2_0000
STACK_FILL = 0xA5
RUNS = 50
BUDGET_CYCLES_M0PLUS = 9_000


def measure() -> dict[str, Any]:
    """Cycles and stack of ``noria_engine_run`` per board, and that its numbers are the reference's."""
    result: dict[str, Any] = {"budget_cycles_m0plus": BUDGET_CYCLES_M0PLUS}
    for board, path in build().items():
        firmware = Firmware.load(path)
        result[board.name.lower()] = _engine(firmware, factory_image()) | {"flash_image_bytes": len(firmware.image)}
    return result


def _engine(firmware: Firmware, image: ModelImage) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    inputs = rng.integers(-128, 128, (RUNS, INPUTS)).astype(np.int8)
    activations, outputs = image.forward(inputs)
    core = Uc(UC_ARCH_ARM, UC_MODE_THUMB, CORES[firmware.board])
    core.mem_map(FLASH_BASE, 0x4_0000)
    core.mem_map(RAM_BASE, RAM_SIZE)
    core.mem_write(FLASH_BASE, firmware.image)
    core.mem_write(MODEL, image.pack())
    counter = CycleCounter(firmware.costs, core)
    entry = firmware.symbols["noria_engine_run"] | 1
    cycles, top, deepest = [], RAM_BASE + RAM_SIZE, 0
    for run in range(RUNS):
        core.mem_write(top - 0x400, bytes([STACK_FILL]) * 0x400)
        core.mem_write(FEATURES, inputs[run].tobytes())
        registers = (UC_ARM_REG_R0, UC_ARM_REG_R1, UC_ARM_REG_R2, UC_ARM_REG_R3, UC_ARM_REG_SP, UC_ARM_REG_LR)
        for register, value in zip(registers, (MODEL, FEATURES, ACTIVATIONS, OUTPUTS, top, RETURN | 1), strict=True):
            core.reg_write(register, value)
        before = counter.cycles
        try:
            core.emu_start(entry, RETURN)
        except UcError as error:
            raise RuntimeError(f"{firmware.board.name}: the engine faulted: {error}") from error
        cycles.append(counter.cycles - before)
        got = bytes(core.mem_read(ACTIVATIONS, 8)) + bytes(core.mem_read(OUTPUTS, 4))
        if got != activations[run].tobytes() + outputs[run].tobytes():
            raise RuntimeError(f"{firmware.board.name}: the engine's numbers are not the reference's")
        stack = bytes(core.mem_read(top - 0x400, 0x400))
        deepest = max(deepest, 0x400 - (len(stack) - len(stack.lstrip(bytes([STACK_FILL])))))
    return {"cycles_mean": round(float(np.mean(cycles))), "cycles_max": max(cycles), "stack_bytes": deepest}
