"""The native cycle counter agrees with cycles counted by hand from the technical reference manuals."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from unicorn import UC_ARCH_ARM, UC_MODE_THUMB, Uc
from unicorn.arm_const import UC_ARM_REG_SP, UC_CPU_ARM_CORTEX_M0, UC_CPU_ARM_CORTEX_M4

from nodes.emulator.cycles import TIMINGS, CostTable, CycleCounter, UnknownInstructionError, rows_by_name
from nodes.emulator.firmware import Firmware
from nodes.firmware.build import build

BASE, RAM = 0x0800_0000, 0x2000_0000
CORES = {"cortex-m0plus": UC_CPU_ARM_CORTEX_M0, "cortex-m4": UC_CPU_ARM_CORTEX_M4}
POINTER = "movs r7, #1; lsls r7, r7, #29; "
"""r7 = start of RAM: 2 cycles on both cores."""


def assemble(core: str, text: str, folder: Path) -> bytes:
    source, linked, image = folder / "a.s", folder / "a.o", folder / "a.bin"
    source.write_text(".syntax unified\n.thumb\n" + text.replace(";", "\n") + "\n")
    subprocess.run(["arm-none-eabi-as", f"-mcpu={core}", "-o", linked, source], check=True)
    subprocess.run(["arm-none-eabi-objcopy", "-O", "binary", "-j", ".text", linked, image], check=True)
    return image.read_bytes()


class Bench:
    """Runs a sequence that ends in WFI."""

    def __init__(self, core: str, text: str, folder: Path, literals: int = 0) -> None:
        image = assemble(core, text, folder)
        self.end = BASE + len(image) - literals
        self.engine = Uc(UC_ARCH_ARM, UC_MODE_THUMB, CORES[core])
        self.engine.mem_map(BASE, 0x1000)
        self.engine.mem_map(RAM, 0x1000)
        self.engine.mem_write(BASE, image)
        self.counter = CycleCounter(CostTable(core, BASE, image, [(BASE, self.end)]), self.engine)

    def run(self) -> int:
        before = self.counter.cycles
        self.engine.reg_write(UC_ARM_REG_SP, RAM + 0x800)
        self.engine.emu_start(BASE | 1, 0xFFFF_FFFE)
        self.counter.stopped_at(self.end)
        return self.counter.cycles - before


LOOP = "movs r0, #100; back: subs r0, #1; bne back; wfi"
CALL = "bl f; b over; f: push {r4, r5, lr}; muls r4, r5, r4; pop {r4, r5, pc}; over: wfi"
RETURN = "bl f; b over; f: bx lr; over: wfi"


@pytest.mark.parametrize(
    ("core", "text", "by_hand"),
    [
        ("cortex-m0plus", LOOP, 1 + 100 * 1 + 99 * 2 + 1 + 2),
        ("cortex-m0plus", CALL, 3 + (1 + 3) + 1 + (3 + 3) + 2 + 2),
        ("cortex-m0plus", RETURN, 3 + 2 + 2 + 2),
        ("cortex-m0plus", POINTER + "ldr r0, [r7]; ldrb r1, [r7]; str r1, [r7]; wfi", 2 + 2 + 2 + 2 + 2),
        ("cortex-m0plus", POINTER + "ldm r7!, {r0, r1, r2}; subs r7, #12; stm r7!, {r0, r1}; wfi", 2 + 4 + 1 + 3 + 2),
        ("cortex-m0plus", "mrs r0, primask; msr primask, r0; dsb; isb; cpsid i; nop; wfi", 3 + 3 + 3 + 3 + 1 + 1 + 2),
        ("cortex-m0plus", "add r0, pc, #4; adds r0, #3; mov pc, r0; nop; nop; wfi", 1 + 1 + 2 + 2),
        ("cortex-m4", LOOP, 1 + 100 * 1 + 99 * 4 + 1 + 1),
        ("cortex-m4", CALL, 4 + (1 + 3) + 1 + (1 + 3 + 3) + 4 + 1),
        ("cortex-m4", "udiv r0, r0, r1; mla r0, r0, r1, r2; smlal r0, r1, r2, r3; umull r0, r1, r2, r3; wfi", 12 + 4),
        ("cortex-m4", "sxtb16 r0, r1; smlad r0, r1, r2, r3; ssat r0, #8, r0; uadd8 r0, r0, r1; clz r0, r0; wfi", 5 + 1),
        ("cortex-m4", POINTER + "nop; ldr r0, [r7]; wfi", 2 + 1 + 2 + 1),
        ("cortex-m4", POINTER + "nop; ldr r0, [r7]; ldr r1, [r7, #4]; ldr r2, [r7, #8]; wfi", 2 + 1 + (2 + 1 + 1) + 1),
        ("cortex-m4", POINTER + "nop; ldr r0, [r7]; str r0, [r7, #4]; wfi", 2 + 1 + (2 + 1) + 1),
        ("cortex-m4", POINTER + "str r7, [r7]; ldr r0, [r7]; ldr r1, [r0]; wfi", 2 + (1 + 1) + 2 + 2 + 1),
        ("cortex-m4", POINTER + "nop; ldrd r0, r1, [r7]; strd r0, r1, [r7]; wfi", 2 + 1 + 3 + 3 + 1),
        ("cortex-m4", "cmp r0, r0; it eq; moveq r1, r2; cbz r3, over; over: wfi", 1 + 1 + 1 + 1 + 1),
        ("cortex-m4", "movs r3, #0; cbz r3, over; nop; over: wfi", 1 + 4 + 1),
    ],
)
def test_a_sequence_costs_what_was_counted_by_hand(core: str, text: str, by_hand: int, tmp_path: Path) -> None:
    bench = Bench(core, text, tmp_path)
    assert bench.run() == by_hand
    assert bench.run() == by_hand


def test_a_load_that_a_branch_can_reach_is_not_counted_as_overlapped(tmp_path: Path) -> None:
    text = POINTER + "movs r2, #2; ldr r0, [r7]; back: ldr r1, [r7, #4]; subs r2, #1; bne back; wfi"
    assert Bench("cortex-m4", text, tmp_path).run() == 2 + 1 + 2 + 2 * (2 + 1) + 4 + 1 + 1


@pytest.mark.parametrize(
    ("core", "words"),
    # 8 half-words from the start of flash: 4 words of 32 bits or 2 of 64; one literal read in either.
    [("cortex-m0plus", 4 + 1), ("cortex-m4", 2 + 1)],
)
@pytest.mark.parametrize("wait_states", [1, 2])
def test_every_flash_word_waits(core: str, words: int, wait_states: int, tmp_path: Path) -> None:
    text = "ldr r0, =0x12345678; nop; nop; nop; nop; nop; nop; wfi; .ltorg"
    bench = Bench(core, text, tmp_path, literals=4)
    straight = bench.run()
    bench.counter.wait_states = wait_states
    assert bench.run() == straight + words * wait_states


def test_a_stall_is_time_without_instructions(tmp_path: Path) -> None:
    bench = Bench("cortex-m0plus", LOOP, tmp_path)
    bench.run()
    before = bench.counter.cycles
    bench.counter.stall(1000)
    assert bench.counter.cycles == before + 1000


def test_both_images_are_made_of_instructions_with_a_known_time_alone() -> None:
    for path in build().values():
        firmware = Firmware.load(path)
        costs = firmware.costs  # an instruction without a row raises
        assert costs.cycles_before[costs.count] > sum(end - begin for begin, end in firmware.code) // 4


def test_an_instruction_without_a_row_is_refused(tmp_path: Path) -> None:
    image = assemble("cortex-m0plus", "svc #0", tmp_path)
    with pytest.raises(UnknownInstructionError, match="svc"):
        CostTable("cortex-m0plus", BASE, image, [(BASE, BASE + 2)])


def test_no_mnemonic_has_two_rows() -> None:
    for timing in TIMINGS.values():
        assert len(rows_by_name(timing)) == sum(len(row.mnemonics.split()) for row in timing.rows)
