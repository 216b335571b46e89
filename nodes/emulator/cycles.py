"""How many cycles the code takes: static costs per instruction, summed natively block by block.

The costs are the tables of the two technical reference manuals, one row each, below: :data:`CORTEX_M0PLUS` and
:data:`CORTEX_M4`. Where a manual gives a range, the worst of it counts. An instruction without a row is an error, never
a silent one cycle.

Flash with wait states: every flash word that a block touches is fetched anew, and every literal load reads one. That
is the part without prefetch, buffers and cache, an upper bound. Loads of other constants from flash are not seen, since
their addresses are known only at run time. With :attr:`CycleCounter.wait_states` at 0, as both boards run, none of it
matters: STM32L072 at 4.2 MHz in range 2 (limit 8 MHz, RM0376 table 'Link between master clock power range and
frequencies'), STM32L432 at 4 MHz in range 2 (limit 6 MHz, RM0394 table 'Number of wait states according to CPU clock
frequency'); both limits are from memory.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import capstone
from capstone import arm
from unicorn import UC_HOOK_BLOCK, Uc
from unicorn.arm_const import UC_ARM_REG_PC
from unicorn.unicorn_py3.unicorn import uclib

if TYPE_CHECKING:
    from collections.abc import Iterable

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
        ("literals_before", ctypes.c_void_p),
        ("taken_cycles", ctypes.c_uint32),
        ("wait_states", ctypes.c_uint32),
        ("word_shift", ctypes.c_uint32),
        ("engine", ctypes.c_void_p),
        ("read_register", ctypes.c_void_p),
        ("read_memory", ctypes.c_void_p),
        ("program_counter", ctypes.c_int32),
    )


class UnknownInstructionError(LookupError):
    """An instruction that has no row in its core's table."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One row of a timing table."""

    mnemonics: str
    """Capstone's names without condition and width."""
    cycles: int
    per_register: int = 0
    """More for each register in the list."""
    writes_pc: int = 0
    """More when the program counter is among the destinations."""
    row: str = ""
    """The manual's row and figure."""


@dataclass(frozen=True, slots=True)
class Timing:
    """A core's timing table."""

    source: str
    rows: tuple[Cost, ...]
    taken: int
    """More for a conditional branch that is taken."""
    flash_word: int
    """Bytes of flash read at once, a power of two."""
    pipelines_loads: bool
    """Whether neighbouring loads overlap; rules in :func:`_overlap`."""


CORTEX_M0PLUS = Timing(
    source="ARM DDI 0484C, Cortex-M0+ Technical Reference Manual r0p1, table 3-1",
    rows=(
        Cost("mov movs mvn", 1, writes_pc=1, row="Move 1, to PC 2"),
        Cost("add adc sub sbc rsb adr", 1, writes_pc=1, row="Add, Subtract 1; Any to PC 2"),
        Cost("mul", 1, row="Multiply 1 or 32: STM32L0 has the fast multiplier (from memory)"),
        Cost("cmp cmn and eor orr bic tst", 1, row="Compare, Logical 1"),
        Cost("lsl lsr asr ror", 1, row="Shift, Rotate 1"),
        Cost("ldr ldrb ldrh ldrsb ldrsh", 2, row="Load 2, or 1 on the single-cycle I/O port: taken as 2"),
        Cost("str strb strh", 2, row="Store 2, or 1 on the single-cycle I/O port: taken as 2"),
        Cost("ldm stm", 1, per_register=1, row="Load, Store multiple 1 + N"),
        Cost("push", 1, per_register=1, row="Push 1 + N"),
        Cost("pop", 1, per_register=1, writes_pc=2, row="Pop 1 + N, with return 3 + N"),
        Cost("b", 1, row="Branch: 1 not taken, 2 taken or unconditional"),
        Cost("bl", 3, row="Branch with link 3"),
        Cost("bx blx", 2, row="With exchange 2, with link and exchange 2"),
        Cost("sxtb sxth uxtb uxth rev rev16 revsh", 1, row="Extend, Reverse 1"),
        Cost("cps nop sev yield", 1, row="CPSID, CPSIE, Hint 1"),
        Cost("mrs msr", 3, row="Read, Write special register 3"),
        Cost("wfi wfe", 2, row="WFE, WFI 2, without the wait"),
        Cost("dmb dsb isb", 3, row="Barriers 3"),
    ),
    taken=1,
    flash_word=4,
    pipelines_loads=False,
)

_P = 3
"""Pipeline refill, 1 to 3 by the target's alignment and width and by speculation: taken as 3."""

CORTEX_M4 = Timing(
    source="ARM DDI 0439D and 100166_0001, Cortex-M4 Technical Reference Manual r0p1, table 3-1 and section 3.3.2",
    rows=(
        Cost("mov movs movw movt mvn", 1, writes_pc=_P, row="Move 1, to PC 1 + P"),
        Cost("add addw adc sub subw sbc rsb adr", 1, writes_pc=_P, row="Add, Subtract 1; to PC 1 + P"),
        Cost("mul mla mls smull umull smlal umlal", 1, row="Multiply, with accumulate, long 1"),
        Cost(
            "smulbb smulbt smultb smultt smlabb smlabt smlatb smlatt smlad smlald smuad umaal", 1, row="DSP multiply 1"
        ),
        Cost("sdiv udiv", 12, row="Divide 2 to 12: taken as 12"),
        Cost("ssat usat ssat16 usat16", 1, row="Saturate 1"),
        Cost("cmp cmn and eor orr orn bic tst teq", 1, row="Compare, Logical 1"),
        Cost("lsl lsr asr ror rrx clz", 1, row="Shift, Rotate, Count 1"),
        Cost("ldr ldrb ldrh ldrsb ldrsh", 2, writes_pc=_P, row="Load 2, overlapped 1; to PC 2 + P"),
        Cost("str strb strh", 1, row="Store: one cycle, from the write buffer; register offset see _overlap"),
        Cost("ldrd strd", 3, row="Load, Store double 1 + N"),
        Cost("pld", 2, row="Preload: not in the table, taken as a load"),
        Cost(
            "ldm ldmdb stm stmdb", 1, per_register=1, writes_pc=_P, row="Load, Store multiple 1 + N, with PC 1 + N + P"
        ),
        Cost("push", 1, per_register=1, row="Push 1 + N"),
        Cost("pop", 1, per_register=1, writes_pc=_P, row="Pop 1 + N, with return 1 + N + P"),
        Cost("b", 1, row="Branch: 1 not taken, 1 + P taken or unconditional"),
        Cost("cbz cbnz", 1, row="Compare and branch 1 or 1 + P"),
        Cost("bl bx blx", 1 + _P, row="With link, with exchange 1 + P"),
        Cost("tbb tbh", 3 + _P, row="Table branch 2 + P; section 3.3.2 says at least six"),
        Cost(
            "sxtb sxth uxtb uxth sxtb16 uxtb16 sxtab sxtah sxtab16 uxtab uxtah uxtab16 rev rev16 revsh rbit",
            1,
            row="Extend, with add, Reverse 1",
        ),
        Cost("bfi bfc ubfx sbfx pkhbt pkhtb", 1, row="Bit field, Pack 1"),
        Cost("uadd8 usub8 sadd8 ssub8 uadd16 sadd16 usub16 ssub16 sel", 1, row="Parallel arithmetic, Select 1"),
        Cost("it", 1, row="If-then 1, or 0 folded into a 16-bit neighbour: taken as 1"),
        Cost("cps mrs msr", 2, row="CPS, special registers 1 or 2: taken as 2"),
        Cost("nop sev yield", 1, row="Hint 1"),
        Cost("wfi wfe", 1, row="Wait 1 + W, without the wait"),
        Cost("dmb dsb isb", 1 + _P, row="Barriers 1 + B, B taken as a refill"),
    ),
    taken=_P,
    flash_word=8,
    pipelines_loads=True,
)

TIMINGS = {"cortex-m0plus": CORTEX_M0PLUS, "cortex-m4": CORTEX_M4}

_LOADS = {"ldr", "ldrb", "ldrh", "ldrsb", "ldrsh"}
_STORES = {"str", "strb", "strh"}
_LISTS = {"ldm", "ldmdb", "stm", "stmdb"}


_names: dict[int, str] = {}
"""By Capstone's number: names are asked for far more often than there are any."""


def _name(instruction: Any) -> str:  # noqa: ANN401 (capstone has no types)
    """The mnemonic without condition and width; the hints share one identity and differ in their mnemonics."""
    name = _names.get(instruction.id)
    if name is None:
        name = _names[instruction.id] = str(instruction.insn_name())
    return instruction.mnemonic.split(".")[0] if name == "hint" else name


def _writes_pc(instruction: Any) -> bool:  # noqa: ANN401
    # The text is at hand, the register lists have to be asked for.
    return "pc" in instruction.op_str and arm.ARM_REG_PC in instruction.regs_access()[1]


def _address_registers(instruction: Any) -> set[int]:  # noqa: ANN401
    operands = (operand.mem for operand in instruction.operands if operand.type == arm.ARM_OP_MEM)
    return {register for memory in operands for register in (memory.base, memory.index) if register}


def _overlap(instruction: Any, before: Any | None) -> int:  # noqa: ANN401
    """What a single load or store on the Cortex-M4 costs more or less because of its neighbour (section 3.3.2)."""
    name = _name(instruction)
    if name not in _LOADS | _STORES:
        return 0
    addresses = _address_registers(instruction)
    memory = next(operand.mem for operand in instruction.operands if operand.type == arm.ARM_OP_MEM)
    by_register = bool(memory.index)
    more = 1 if name in _STORES and by_register else 0
    if name in _LOADS and memory.base == arm.ARM_REG_PC:
        more += 1  # contention with the fetch unit: may happen, taken as always
    if before is None:
        return more
    written = set(before.regs_access()[1])
    before_name = _name(before)
    if before_name in _LOADS and not _writes_pc(before):
        overlaps = not written & addresses
        return more - 1 if overlaps and (name in _LOADS or by_register) else more
    depends = bool(written & addresses) and before_name not in _STORES | _LISTS | {"ldrd", "strd", "push", "pop"}
    return more + 1 if depends else more


def instruction_cost(timing: Timing, rows: dict[str, Cost], instruction: Any) -> tuple[int, bool]:  # noqa: ANN401
    """Cycles when a branch is not taken, and whether it is a conditional branch.

    Raises:
        UnknownInstructionError: the table has no row for it.
    """
    name = _name(instruction)
    row = rows.get(name)
    if row is None:
        raise UnknownInstructionError(
            f"{instruction.mnemonic} {instruction.op_str} at {instruction.address:#x}: no timing for {name!r}; "
            f"add its row from {timing.source}"
        )
    if name == "b":
        conditional = instruction.cc != arm.ARM_CC_AL
        return (row.cycles, True) if conditional else (row.cycles + timing.taken, False)
    if name in ("cbz", "cbnz"):
        return row.cycles, True
    cycles = row.cycles
    if row.per_register:
        cycles += row.per_register * (len(instruction.operands) - (1 if name in _LISTS else 0))
    if row.writes_pc and _writes_pc(instruction):
        cycles += row.writes_pc
    return cycles, False


def rows_by_name(timing: Timing) -> dict[str, Cost]:
    """A timing's rows by mnemonic."""
    return {name: row for row in timing.rows for name in row.mnemonics.split()}


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
        self.timing = TIMINGS[core]
        rows = rows_by_name(self.timing)
        cycles = [0] * (self.count + 1)
        literals = [0] * (self.count + 1)
        self.after_conditional = (ctypes.c_uint8 * (self.count + 2))()
        decoder = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
        decoder.detail = True
        found = [
            instruction
            for start, end in code
            for instruction in decoder.disasm(image[start - base : end - base], start)
        ]
        targets = {
            operand.imm
            for instruction in found
            if "#" in instruction.op_str and instruction.group(capstone.CS_GRP_JUMP)
            for operand in instruction.operands
            if operand.type == arm.ARM_OP_IMM
        }
        before = None
        for instruction in found:
            index = (instruction.address - base) >> 1
            cycles[index], conditional = instruction_cost(self.timing, rows, instruction)
            if self.timing.pipelines_loads:
                falls_through = before is not None and before.address + before.size == instruction.address
                neighbour = before if falls_through and instruction.address not in targets else None
                cycles[index] += _overlap(instruction, neighbour)
            if "[pc" in instruction.op_str:
                literals[index] = 1
            if conditional:
                self.after_conditional[index + (instruction.size >> 1)] = 1
            before = instruction
        self.cycles_before = self._sums(cycles)
        self.literals_before = self._sums(literals)

    def _sums(self, values: list[int]) -> ctypes.Array[ctypes.c_uint32]:
        """Sums of all values before each half-word."""
        sums = (ctypes.c_uint32 * (self.count + 2))()
        total = 0
        for index, value in enumerate(values):
            sums[index] = total
            total += value
        sums[self.count + 1] = total
        return sums

    @property
    def word_shift(self) -> int:
        """How far to shift a half-word's index to get its flash word's."""
        return self.timing.flash_word.bit_length() - 2


class CycleCounter:
    """Counts the cycles of one emulated core."""

    def __init__(self, table: CostTable, engine: Uc) -> None:
        """Attach to ``engine``; the counter must live as long as it."""
        self._table = table
        self.stalled = 0
        """Of :attr:`cycles`, those that passed in :meth:`stall`."""
        self.record = _Counter(
            table.base,
            table.count,
            ctypes.addressof(table.cycles_before),
            ctypes.addressof(table.after_conditional),
            0,
            0,
            2**63,
            ctypes.cast(uclib.uc_emu_stop, ctypes.c_void_p),
            0,
            ctypes.addressof(table.literals_before),
            table.timing.taken,
            0,
            table.word_shift,
            engine._uch,
            ctypes.cast(uclib.uc_reg_read, ctypes.c_void_p),
            ctypes.cast(uclib.uc_mem_read, ctypes.c_void_p),
            UC_ARM_REG_PC,
        )
        """What the native hook counts in; its ``cycles`` are :attr:`cycles` without a call, for who asks often."""
        self._reference = ctypes.byref(self.record)
        self._where = _native().noria_cycles_where
        self._where.restype = ctypes.c_uint64
        handle = ctypes.c_size_t()
        error = uclib.uc_hook_add(
            engine._uch,
            ctypes.byref(handle),
            ctypes.c_int(UC_HOOK_BLOCK),
            ctypes.cast(_native().noria_cycles_block, ctypes.c_void_p),
            self._reference,
            ctypes.c_uint64(1),
            ctypes.c_uint64(0),
        )
        if error:
            raise NativeBuildError(f"unicorn refused the block hook: error {error}")

    @property
    def cycles(self) -> int:
        """Cycles since the core's reset, stalls included."""
        return int(self.record.cycles)

    @property
    def wait_states(self) -> int:
        """Cycles that each read of a flash word waits, as ``FLASH_ACR.LATENCY`` says; 0 at first."""
        return int(self.record.wait_states)

    @wait_states.setter
    def wait_states(self, value: int) -> None:
        self.record.wait_states = value

    def stall(self, cycles: int) -> None:
        """Let ``cycles`` pass without an instruction: the core waits on a bus or polls a flag."""
        self.record.cycles += cycles
        self.stalled += cycles

    def stop_after(self, cycles: int) -> None:
        """Stop the engine at the end of the block in which the count passes now + ``cycles``."""
        self.record.limit = self.record.cycles + cycles

    def where(self) -> tuple[int, int]:
        """The program counter of a stopped core, and the half-word before it; 0 where nothing can be read."""
        packed = self._where(self._reference)
        return packed & 0xFFFF_FFFF, packed >> 32

    def stopped_at(self, address: int) -> None:
        """Emulation stopped before ``address``, inside the block counted last: take the rest back."""
        table, counter = self._table, self.record
        end, stop = (counter.last_end - table.base) >> 1, (address - table.base) >> 1
        if 0 <= stop <= end <= table.count:
            reads = table.literals_before[end] - table.literals_before[stop]
            reads += (end - 1 >> table.word_shift) - (stop - 1 >> table.word_shift)
            counter.cycles -= table.cycles_before[end] - table.cycles_before[stop] + reads * counter.wait_states
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
