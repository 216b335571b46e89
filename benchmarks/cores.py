"""One function at a time on an emulated core without peripherals: its results, cycles and stack."""

from __future__ import annotations

import subprocess
from pathlib import Path

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
from nodes.firmware.build import PROJECT
from shared_models.codes import Board
from shared_models.network import ACTIVATIONS, OUTPUTS, ModelImage

_MODELS = {Board.STM32L072: UC_CPU_ARM_CORTEX_M0, Board.STM32L432: UC_CPU_ARM_CORTEX_M4}
CPUS = {Board.STM32L072: "cortex-m0plus", Board.STM32L432: "cortex-m4"}
RAM_BASE, RAM_SIZE = 0x2000_0000, 0x4000
MODEL, FEATURES, ACTIVATION_VALUES, OUTPUT_VALUES = (RAM_BASE + offset for offset in (0x0000, 0x1000, 0x1080, 0x10C0))
_RETURN = FLASH_BASE + 0x2_0000
_STACK_TOP, _STACK_BYTES, _STACK_FILL = RAM_BASE + RAM_SIZE, 0x400, 0xA5
_ARGUMENTS = (UC_ARM_REG_R0, UC_ARM_REG_R1, UC_ARM_REG_R2, UC_ARM_REG_R3)


class CoreError(RuntimeError):
    """A program that does not build or does not run on the core; the text says why."""


class BareCore:
    """A program's flash and 16 KB of RAM.

    Args:
        firmware: what runs; its initialised data are put in place.
        count: add up cycles, which makes it slower.
    """

    def __init__(self, firmware: Firmware, *, count: bool = True) -> None:
        self._firmware = firmware
        self._core = Uc(UC_ARCH_ARM, UC_MODE_THUMB, _MODELS[firmware.board])
        self._core.mem_map(FLASH_BASE, 0x4_0000)
        self._core.mem_map(RAM_BASE, RAM_SIZE)
        self._core.mem_write(FLASH_BASE, firmware.image)
        start, end = firmware.symbols["_data_start"], firmware.symbols["_data_end"]
        if end > start:
            self._core.mem_write(start, firmware.image[start - end :])
        self._counter = CycleCounter(firmware.costs, self._core) if count else None

    def write(self, address: int, data: bytes) -> None:
        self._core.mem_write(address, data)

    def read(self, address: int, length: int) -> bytes:
        return bytes(self._core.mem_read(address, length))

    def call(self, name: str, *arguments: int) -> int:
        """Call a function with up to four arguments; its cycles, 0 when they are not counted."""
        for register, value in zip(_ARGUMENTS, arguments, strict=False):
            self._core.reg_write(register, value)
        self._core.reg_write(UC_ARM_REG_SP, _STACK_TOP)
        self._core.reg_write(UC_ARM_REG_LR, _RETURN | 1)
        before = self._counter.cycles if self._counter else 0
        try:
            self._core.emu_start(self._firmware.symbols[name] | 1, _RETURN)
        except UcError as error:
            raise CoreError(f"{self._firmware.core}: {name} faulted: {error}") from error
        return self._counter.cycles - before if self._counter else 0

    def load(self, image: ModelImage) -> None:
        """Put a model where :meth:`forward` takes it from."""
        self.write(MODEL, image.pack())

    def forward(self, features: bytes, name: str = "noria_engine_run") -> tuple[bytes, int]:
        """Activations and outputs of the loaded model, one after the other, and the cycles they took."""
        self.write(FEATURES, features)
        cycles = self.call(name, MODEL, FEATURES, ACTIVATION_VALUES, OUTPUT_VALUES)
        return self.read(ACTIVATION_VALUES, ACTIVATIONS) + self.read(OUTPUT_VALUES, OUTPUTS), cycles

    def clear_stack(self) -> None:
        self.write(_STACK_TOP - _STACK_BYTES, bytes([_STACK_FILL]) * _STACK_BYTES)

    def stack_bytes(self) -> int:
        """How deep the stack went since :meth:`clear_stack`."""
        return len(self.read(_STACK_TOP - _STACK_BYTES, _STACK_BYTES).lstrip(bytes([_STACK_FILL])))


def compile_alone(
    source: Path, function: str, board: Board, flags: tuple[str, ...], folder: Path, *includes: Path | str
) -> Firmware:
    """Link ``function`` and what it needs, nothing else.

    Raises:
        CoreError: the compiler refused.
    """
    elf = folder / f"{function}-{CPUS[board]}{''.join(flags)}.elf"
    core = PROJECT / "core"
    paths = [f"-I{path}" for path in (core, core / "generated", *includes)]
    target = [f"-mcpu={CPUS[board]}", "-mthumb", "-mfloat-abi=soft", "-std=gnu11"]
    link = [
        "-nostartfiles",
        "--specs=nano.specs",
        "--specs=nosys.specs",
        "-lm",
        "-T",
        str(Path(__file__).with_name("bare.ld")),
    ]
    keep = [f"-Wl,--gc-sections,--no-warn-rwx-segments,-u,{function},-e,{function}"]
    sections = ["-ffunction-sections", "-fdata-sections"]
    command = ["arm-none-eabi-gcc", *target, *flags, *sections, *paths, str(source), *keep, *link, "-o", str(elf)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise CoreError(f"{source.name} does not build for {CPUS[board]}:\n{run.stderr}")
    return Firmware.load(elf)
