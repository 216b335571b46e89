"""The native cycle counter agrees with cycles counted by hand from the reference manual."""

from __future__ import annotations

from unicorn import UC_ARCH_ARM, UC_MODE_THUMB, Uc
from unicorn.arm_const import UC_CPU_ARM_CORTEX_M0

from nodes.emulator.cycles import CostTable, CycleCounter

BASE = 0x0800_0000
LOOP = bytes.fromhex("64200138fdd130bf")
"""movs r0, #100; subs r0, #1; bne back; wfi."""


def count(times: int) -> CycleCounter:
    engine = Uc(UC_ARCH_ARM, UC_MODE_THUMB, UC_CPU_ARM_CORTEX_M0)
    engine.mem_map(BASE, 0x1000)
    engine.mem_write(BASE, LOOP)
    counter = CycleCounter(CostTable("cortex-m0plus", BASE, LOOP, [(BASE, BASE + len(LOOP))]), engine)
    counter.stop_after(10_000)
    for _ in range(times):
        engine.emu_start(BASE | 1, 0xFFFF_FFFE)
        counter.stopped_at(BASE + len(LOOP))
    return counter


def test_a_counted_loop_costs_what_the_manual_says() -> None:
    by_hand = 1 + 100 * 1 + 99 * 2 + 1 + 2
    assert count(1).cycles == by_hand
    assert count(3).cycles == 3 * by_hand


def test_a_stall_is_time_without_instructions() -> None:
    counter = count(1)
    before = counter.cycles
    counter.stall(1000)
    assert counter.cycles == before + 1000
