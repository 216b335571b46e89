"""What the images may contain: the right instruction set, no floating point, and not too much of anything."""

from __future__ import annotations

import re

import capstone
import pytest

from nodes.budget import deepest_stack
from nodes.emulator.firmware import FLASH_BASE, Firmware, FirmwareError
from nodes.firmware.build import sizes
from shared_models.codes import Board

ARMV6M = """
adcs add adds adr ands asrs b bics bkpt bl blx bx cmn cmp cpsid cpsie dmb dsb eors isb ldm ldmia ldr ldrb ldrh ldrsb
ldrsh lsls lsrs mov movs mrs msr muls mvns nop orrs pop push rev rev16 revsh rors rsbs sbcs sev stm stmia str strb strh
sub subs svc sxtb sxth tst udf uxtb uxth wfe wfi yield
"""
CONDITIONS = ["eq", "ne", "cs", "hs", "cc", "lo", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le"]
WIDE_ON_ARMV6M = {"bl", "dmb", "dsb", "isb", "mrs", "msr", "udf"}


def instructions(firmware: Firmware) -> list[tuple[str, int, str]]:
    decoder = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    found = []
    for begin, end in firmware.code:
        code = firmware.image[begin - FLASH_BASE : end - FLASH_BASE]
        decoded = list(decoder.disasm(code, begin))
        assert sum(instruction.size for instruction in decoded) >= len(code) - 2, f"undecodable code at {begin:#x}"
        found += [(i.mnemonic.removesuffix(".w"), i.size, f"{i.address:#x} {i.mnemonic} {i.op_str}") for i in decoded]
    return found


def test_the_m0plus_image_is_pure_armv6m(firmwares) -> None:
    allowed = set(ARMV6M.split()) | {f"b{condition}" for condition in CONDITIONS}
    for name, size, text in instructions(firmwares[Board.STM32L072]):
        assert name in allowed, text
        assert size == 2 or name in WIDE_ON_ARMV6M, text


def test_no_image_touches_a_floating_point_unit(firmware) -> None:
    assert [text for name, _, text in instructions(firmware) if name.startswith("v")] == []
    soft_float = re.compile(r"__aeabi_[fd](add|sub|mul|div|cmp|2)|__(add|mul|div|sub)[sd]f3")
    assert [name for name in firmware.symbols if soft_float.match(name)] == []


def test_no_image_has_a_heap(firmware) -> None:
    assert {"malloc", "free", "_sbrk", "_malloc_r"}.isdisjoint(firmware.symbols)


def test_the_m0plus_budget_holds(firmwares) -> None:
    used = sizes(Board.STM32L072)
    assert used["flash"] <= 48 * 1024
    assert used["ram"] + deepest_stack(firmwares[Board.STM32L072]) <= 12 * 1024


def test_a_file_that_is_no_firmware_is_refused(tmp_path) -> None:
    with pytest.raises(FirmwareError, match="no such firmware"):
        Firmware.load(tmp_path / "missing.elf")
    wrong = tmp_path / "wrong.elf"
    wrong.write_bytes(b"not an ELF at all")
    with pytest.raises(FirmwareError, match="not an ELF"):
        Firmware.load(wrong)
