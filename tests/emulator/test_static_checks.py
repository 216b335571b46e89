"""What the images may contain: the right instruction set, no floating point, and not too much of anything."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import capstone
import pytest

from nodes.emulator.firmware import FLASH_BASE, Firmware, FirmwareError
from nodes.firmware.build import ENVIRONMENTS, PROJECT, sizes
from nodes.stack import StackError, call_graph, deepest_stack, disassembly
from shared_models.codes import Board

ARMV6M = """
adcs add adds adr ands asrs b bics bkpt bl blx bx cmn cmp cpsid cpsie dmb dsb eors isb ldm ldmia ldr ldrb ldrh ldrsb
ldrsh lsls lsrs mov movs mrs msr muls mvns nop orrs pop push rev rev16 revsh rors rsbs sbcs sev stm stmia str strb strh
sub subs svc sxtb sxth tst udf uxtb uxth wfe wfi yield
"""
CONDITIONS = ["eq", "ne", "cs", "hs", "cc", "lo", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le"]
WIDE_ON_ARMV6M = {"bl", "dmb", "dsb", "isb", "mrs", "msr", "udf"}


RAM_BUDGET = {Board.STM32L072: 12 * 1024, Board.STM32L432: 12 * 1024}
"""Statics and the deepest stack together; the L072 has 20 KB."""
EXCEPTION_FRAME = 36
"""Eight words and the alignment."""


def shown(instruction: capstone.CsInsn) -> str:
    return f"{instruction.address:#x} {instruction.mnemonic} {instruction.op_str}"


def not_armv6m(firmware: Firmware) -> list[str]:
    allowed = set(ARMV6M.split()) | {f"b{condition}" for condition in CONDITIONS}
    found = []
    for instruction in disassembly(firmware):
        name = instruction.mnemonic.removesuffix(".w")
        if name not in allowed or (instruction.size == 4 and name not in WIDE_ON_ARMV6M):
            found.append(shown(instruction))
    return found


def floating_point(firmware: Firmware) -> list[str]:
    soft_float = re.compile(r"__aeabi_[fd](add|sub|mul|div|cmp|2)|__(add|mul|div|sub)[sd]f3")
    used = [shown(instruction) for instruction in disassembly(firmware) if instruction.mnemonic.startswith("v")]
    return used + [name for name in firmware.symbols if soft_float.match(name)]


def through_pointers(firmware: Firmware) -> list[str]:
    """Calls and jumps whose target is not in the instruction; returns and the tables of switches are neither."""
    found = []
    for instruction in disassembly(firmware):
        name, operands = instruction.mnemonic.removesuffix(".w"), instruction.op_str
        branches = name in ("blx", "bx") and not operands.startswith("#") and operands != "lr"
        loads = name in ("mov", "add", "ldr") and operands.startswith("pc,") and "[sp]" not in operands
        if branches or loads:
            found.append(shown(instruction))
    return found


def test_the_m0plus_image_is_pure_armv6m(firmwares) -> None:
    assert not_armv6m(firmwares[Board.STM32L072]) == []


def test_no_image_touches_a_floating_point_unit(firmware) -> None:
    assert floating_point(firmware) == []


def test_no_image_calls_through_a_pointer(firmware) -> None:
    assert through_pointers(firmware) == []


def test_no_image_has_a_heap(firmware) -> None:
    assert {"malloc", "calloc", "realloc", "free", "_sbrk", "_malloc_r"}.isdisjoint(firmware.symbols)


def test_the_m0plus_image_is_small() -> None:
    assert sizes(Board.STM32L072)["flash"] <= 48 * 1024


def test_ram_is_enough_at_the_deepest_call(firmware) -> None:
    assert sizes(firmware.board)["ram"] + deepest_stack(firmware) <= RAM_BUDGET[firmware.board]


def test_frames_in_the_disassembly_are_no_smaller_than_the_compilers(firmware) -> None:
    frames, _ = call_graph(firmware)
    compared = 0
    for report in (PROJECT / ".pio/build" / ENVIRONMENTS[firmware.board]).rglob("*.su"):
        for line in report.read_text().splitlines():
            place, size, kind = line.split("\t")
            name = place.rsplit(":", 1)[1]
            assert kind in ("static", "dynamic,bounded"), line
            if name in frames and list(firmware.symbols).count(name) == 1:
                assert frames[name] >= int(size), line
                compared += 1
    assert compared > 100


@pytest.mark.parametrize(
    ("code", "check"),
    [
        ("08bf00bf", not_armv6m),  # it eq
        ("00b100bf", not_armv6m),  # cbz r0
        ("90fbf1f0", not_armv6m),  # sdiv r0, r0, r1
        ("00ee100a", not_armv6m),  # vmov s0, r0
        ("00ee100a", floating_point),
        ("984700bf", through_pointers),  # blx r3
        ("184700bf", through_pointers),  # bx r3
    ],
)
def test_a_seeded_instruction_is_caught(firmwares, code: str, check: Callable[[Firmware], list[str]]) -> None:
    assert check(with_code_in_main(firmwares[Board.STM32L072], code)) != []


def test_seeded_recursion_is_caught(firmware) -> None:
    with pytest.raises(StackError, match="recursion"):
        deepest_stack(with_code_in_main(firmware, "fff7feff"))  # bl to itself


def with_code_in_main(firmware: Firmware, code: str) -> Firmware:
    """The image with its first wide instruction of main replaced."""
    main = firmware.symbols["main"] & ~1
    at = next(i.address for i in disassembly(firmware) if i.address >= main and i.size == 4) - FLASH_BASE
    seeded = bytes.fromhex(code)
    return replace(firmware, image=firmware.image[:at] + seeded + firmware.image[at + 4 :])


def test_a_file_that_is_no_firmware_is_refused(tmp_path) -> None:
    with pytest.raises(FirmwareError, match="no such firmware"):
        Firmware.load(tmp_path / "missing.elf")
    wrong = tmp_path / "wrong.elf"
    wrong.write_bytes(b"not an ELF at all")
    with pytest.raises(FirmwareError, match="not an ELF"):
        Firmware.load(wrong)
