"""Worst-case stack of a firmware image, from its instructions alone: what each function takes, and who calls whom."""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Iterator

import capstone

from nodes.emulator.firmware import FLASH_BASE, Firmware

_EXCEPTION_FRAME_BYTES = 32
"""Eight registers that the core stacks (Armv6-M B1.5.6, Armv7-M B1.5.6); no floating point."""


class StackError(RuntimeError):
    """There is no bound: recursion, or a stack pointer moved in a way that cannot be read off."""


def disassembly(firmware: Firmware) -> Iterator[capstone.CsInsn]:
    """Every instruction of an image.

    Raises:
        StackError: something in the code is no instruction.
    """
    decoder = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    for begin, end in firmware.code:
        code = firmware.image[begin - FLASH_BASE : end - FLASH_BASE]
        decoded = list(decoder.disasm(code, begin))
        if sum(instruction.size for instruction in decoded) < len(code) - 2:
            raise StackError(f"undecodable code at {begin:#x}")
        yield from decoded


def deepest_stack(firmware: Firmware) -> int:
    """Bytes from reset on, with every exception handler at the deepest point.

    Raises:
        StackError: there is no bound.
    """
    frames, calls = call_graph(firmware)
    depths: dict[str, int] = {}

    def depth(name: str, above: tuple[str, ...]) -> int:
        if name in above:
            raise StackError(f"recursion: {' > '.join((*above, name))}")
        if name not in depths:
            below = (depth(callee, (*above, name)) for callee in calls.get(name, ()))
            depths[name] = frames[name] + max(below, default=0)
        return depths[name]

    names = functions(firmware)
    _, reset, *handlers = struct.unpack_from("<16I", firmware.image)
    exceptions = (_EXCEPTION_FRAME_BYTES + depth(names[handler & ~1], ()) for handler in set(handlers) - {0})
    return depth(names[reset & ~1], ()) + sum(exceptions)


def functions(firmware: Firmware) -> dict[int, str]:
    """Where each begins; two names of one place count as one."""
    places = ((address & ~1, name) for name, address in firmware.symbols.items() if name[0] not in "$.")
    return {at: name for at, name in places if any(begin <= at < end for begin, end in firmware.code)}


def call_graph(firmware: Firmware) -> tuple[dict[str, int], dict[str, set[str]]]:
    """Each function's frame, bytes, and callees, as the instructions have them.

    A frame is everything that a function ever takes from the stack pointer, whatever it gives back in between.

    Raises:
        StackError: the stack pointer is moved in a way that cannot be read off.
    """
    names = functions(firmware)
    starts = sorted(names)
    frames = dict.fromkeys(names.values(), 0)
    calls: dict[str, set[str]] = {}
    literals: dict[str, int] = {}
    for i in disassembly(firmware):
        index = bisect_right(starts, i.address) - 1
        if index < 0:
            raise StackError(f"code before any function at {i.address:#x}")
        caller = names[starts[index]]
        name, operands = i.mnemonic.removesuffix(".w"), i.op_str
        frames[caller] += _taken(name, operands, literals)
        if name == "ldr" and (literal := re.fullmatch(r"(r\d+), \[pc, #(\w+)\]", operands)):
            at = (i.address + 4 & ~3) + int(literal[2], 0) - FLASH_BASE
            (literals[literal[1]],) = struct.unpack_from("<i", firmware.image, at)
        if name.startswith("b") and operands.startswith("#"):
            target = names[starts[bisect_right(starts, int(operands[1:], 16)) - 1]]
            if target != caller or name == "bl":
                calls.setdefault(caller, set()).add(target)
    return frames, calls


def _taken(name: str, operands: str, literals: dict[str, int]) -> int:
    """Bytes that an instruction takes from the stack."""
    if name == "push" or (name == "stmdb" and operands.startswith("sp!")):
        return 4 * len(re.findall(r"\w+", operands[operands.index("{") :]))
    if name in ("str", "strd") and (before := re.search(r"\[sp, #-(\w+)\]!", operands)):
        return int(before[1], 0)
    if name in ("sub", "subw", "subs") and (less := re.fullmatch(r"sp, (?:sp, )?#(\w+)", operands)):
        return int(less[1], 0)
    if name == "add" and (more := re.fullmatch(r"sp, (?:sp, )?(r\d+)", operands)):
        return max(0, -literals[more[1]])
    if name in ("sub", "subw", "subs", "mov") and operands.startswith("sp,"):
        raise StackError(f"{name} {operands}")
    return 0
