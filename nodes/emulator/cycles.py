"""How many cycles the code takes: static costs per instruction, summed natively block by block.

Costs are those of the technical reference manuals with zero wait states: Cortex-M0+ from ARM DDI 0484C table 3-1
(single-cycle multiplier), Cortex-M4 from ARM DDI 0439D table 3-1, where branches refill the pipeline in one cycle,
divisions take seven, and loads do not overlap. The M0+ figures are exact for straight code; the M4's are a model.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import capstone
from capstone import arm
from unicorn import UC_HOOK_BLOCK, Uc
from unicorn.unicorn_py3.unicorn import uclib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_SOURCE = Path(__file__).parent / "native" / "cycles.c"
_CACHE = Path(__file__).parents[2] / "build" / "native"


class NativeBuildError(RuntimeError):
    """The C compiler could not build the cycle counter; the text holds its output."""


class _Counter(ctypes.Structure):
    """Mirror of ``noria_cycles_t``."""

    _fields_ = (
        ("base", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("cycles_before", ctypes.c_void_p),
        ("after_conditional", ctypes.c_void_p),
        ("cycles", ctypes.c_uint64),
        ("blocks", ctypes.c_uint64),
        ("limit", ctypes.c_uint64),
        ("stop", ctypes.c_void_p),
        ("last_end", ctypes.c_uint32),
    )


def _cost_m0plus(instruction: Any) -> tuple[int, bool]:  # noqa: ANN401 (capstone has no types)
    """Cycles when a branch is not taken, and whether it is a conditional branch."""
    name = instruction.mnemonic.split(".")[0]
    registers = len(instruction.operands)
    if instruction.id == arm.ARM_INS_B:
        return (1, True) if instruction.cc != arm.ARM_CC_AL else (2, False)
    if instruction.id == arm.ARM_INS_BL:
        return 3, False
    if instruction.id in (arm.ARM_INS_BX, arm.ARM_INS_BLX):
        return 2, False
    if instruction.id == arm.ARM_INS_PUSH:
        return 1 + registers, False
    if instruction.id == arm.ARM_INS_POP:
        returns = any(operand.reg == arm.ARM_REG_PC for operand in instruction.operands)
        return (3 if returns else 1) + registers, False
    if name.startswith(("ldm", "stm")):
        return registers, False
    if name.startswith(("ldr", "str")):
        return 2, False
    if name in ("mrs", "msr", "dmb", "dsb", "isb"):
        return 3, False
    if name in ("wfi", "wfe"):
        return 2, False
    return 1, False


def _cost_m4(instruction: Any) -> tuple[int, bool]:  # noqa: ANN401
    """The same for the Cortex-M4."""
    name = instruction.mnemonic.split(".")[0]
    simple = {"sdiv": 7, "udiv": 7, "mla": 2, "mls": 2, "ldrd": 3, "strd": 3}
    if name in simple:
        return simple[name], False
    if instruction.id in (arm.ARM_INS_CBZ, arm.ARM_INS_CBNZ):
        return 1, True
    if name.startswith("str"):
        return 1, False
    if instruction.id == arm.ARM_INS_BL:
        return 2, False
    return _cost_m0plus(instruction)


_COSTS: dict[str, Callable[[Any], tuple[int, bool]]] = {"cortex-m0plus": _cost_m0plus, "cortex-m4": _cost_m4}


class CostTable:
    """Prefix sums of instruction costs over one firmware image; shared by all nodes that run it."""

    def __init__(self, core: str, base: int, image: bytes, code: Iterable[tuple[int, int]]) -> None:
        """Decode the code.

        Args:
            core: ``cortex-m0plus`` or ``cortex-m4``.
            base: address of the image.
            image: flash contents from ``base`` on.
            code: address ranges that hold instructions, not literal pools.
        """
        self.base = base
        self.count = len(image) // 2
        cost = _COSTS[core]
        cycles = [0] * (self.count + 1)
        self.after_conditional = (ctypes.c_uint8 * (self.count + 2))()
        decoder = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
        decoder.detail = True
        for start, end in code:
            for instruction in decoder.disasm(image[start - base : end - base], start):
                index = (instruction.address - base) >> 1
                cycles[index], conditional = cost(instruction)
                if conditional:
                    self.after_conditional[index + (instruction.size >> 1)] = 1
        self.cycles_before = (ctypes.c_uint32 * (self.count + 2))()
        total = 0
        for index, value in enumerate(cycles):
            self.cycles_before[index] = total
            total += value
        self.cycles_before[self.count + 1] = total


class CycleCounter:
    """Counts the cycles of one emulated core."""

    def __init__(self, table: CostTable, engine: Uc) -> None:
        """Attach to ``engine``; the counter must live as long as it."""
        self._table = table
        self._counter = _Counter(
            table.base,
            table.count,
            ctypes.addressof(table.cycles_before),
            ctypes.addressof(table.after_conditional),
            0,
            0,
            2**63,
            ctypes.cast(uclib.uc_emu_stop, ctypes.c_void_p),
        )
        handle = ctypes.c_size_t()
        error = uclib.uc_hook_add(
            engine._uch,
            ctypes.byref(handle),
            ctypes.c_int(UC_HOOK_BLOCK),
            ctypes.cast(_native().noria_cycles_block, ctypes.c_void_p),
            ctypes.byref(self._counter),
            ctypes.c_uint64(1),
            ctypes.c_uint64(0),
        )
        if error:
            raise NativeBuildError(f"unicorn refused the block hook: error {error}")

    @property
    def cycles(self) -> int:
        """Cycles since the core's reset, stalls included."""
        return int(self._counter.cycles)

    def stall(self, cycles: int) -> None:
        """Let ``cycles`` pass without an instruction: the core waits on a bus or polls a flag."""
        self._counter.cycles += cycles

    def stop_after(self, cycles: int) -> None:
        """Stop the engine at the end of the block in which the count passes now + ``cycles``."""
        self._counter.limit = self._counter.cycles + cycles

    def stopped_at(self, address: int) -> None:
        """Emulation stopped before ``address``, inside the block counted last: take the rest back."""
        table, counter = self._table, self._counter
        end, stop = (counter.last_end - table.base) >> 1, (address - table.base) >> 1
        if 0 <= stop <= end <= table.count:
            counter.cycles -= table.cycles_before[end] - table.cycles_before[stop]
        counter.last_end = 0


_library: ctypes.CDLL | None = None


def _native() -> ctypes.CDLL:
    """The compiled hook; built on first use, once per source text."""
    global _library  # noqa: PLW0603 (one library per process)
    if _library is None:
        digest = hashlib.blake2b(_SOURCE.read_bytes(), digest_size=8).hexdigest()
        built = _CACHE / f"cycles-{digest}.so"
        if not built.is_file():
            built.parent.mkdir(parents=True, exist_ok=True)
            partial = built.with_suffix(f".{os.getpid()}.part")
            try:
                run = subprocess.run(
                    ["gcc", "-O2", "-shared", "-fPIC", "-o", str(partial), str(_SOURCE)],
                    capture_output=True,
                    text=True,
                    check=False,
                )
            except OSError as error:
                raise NativeBuildError(f"no C compiler: {error}; install gcc") from error
            if run.returncode:
                raise NativeBuildError(f"gcc could not build {_SOURCE.name}:\n{run.stderr}")
            partial.replace(built)
        _library = ctypes.CDLL(str(built))
    return _library
