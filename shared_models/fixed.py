"""Integer arithmetic that C and Python must agree on, and the tables made once from real functions.

Right shifts are arithmetic (floor) in both languages; division truncates toward zero as C does. Nothing
here, nor in any module the node's core mirrors, uses floating point at run time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

NO_VALUE = -32768
"""A sensor that is broken, absent, or not to be believed."""

DAWN_S = 6 * 3600
"""A node's day begins at 06:00 local."""

EXP_ONE = 4096
"""1.0 in the exponential table (Q12)."""

EXP_TABLE = tuple(round(EXP_ONE * math.exp(q / 256)) for q in range(-128, 128))
"""exp(q / 256) for every int8 q: the bounded factor on the ET rate, 0.607 … 1.642."""


def clamp(value: int, low: int, high: int) -> int:
    """``value`` limited to ``low … high``."""
    if value < low:
        return low
    return min(value, high)


def quotient(numerator: int, denominator: int) -> int:
    """C's integer division: truncated toward zero."""
    magnitude = abs(numerator) // abs(denominator)
    return magnitude if (numerator < 0) == (denominator < 0) else -magnitude


def day_number(time_s: int, utc_offset_min: int) -> int:
    """Days since 1970 that begin at 06:00 local; 32-bit wrap as in C."""
    return ((time_s + utc_offset_min * 60 - DAWN_S) & 0xFFFFFFFF) // 86400


def elapsed_s(now_s: int, then_s: int) -> int:
    """``now_s − then_s`` as a signed 32-bit number, so that a clock set back cannot wrap it."""
    return ((now_s - then_s + 0x80000000) & 0xFFFFFFFF) - 0x80000000


def move_toward(value: int, target: int, gain_q10: int) -> int:
    """One step of an exponential average: ``gain_q10`` / 1024 of the way from ``value`` to ``target``."""
    return value + ((target - value) * gain_q10 >> 10)


def c_table(c_type: str, name: str, values: Iterable[int]) -> str:
    """A ``static const`` table as C text, wrapped at 100 columns."""
    numbers = [str(value) for value in values]
    lines, line = [], "   "
    for number in numbers:
        if len(line) + len(number) + 2 > 100:
            lines.append(line)
            line = "   "
        line += f" {number},"
    lines.append(line)
    body = "\n".join(lines)
    return f"static const {c_type} {name}[{len(numbers)}] = {{\n{body}\n}};\n"


def c_definitions() -> str:
    """What C must know of this module."""
    return (
        f"#define NORIA_NO_VALUE ({NO_VALUE})\n"
        f"#define NORIA_EXP_ONE {EXP_ONE}\n#define NORIA_DAWN_S {DAWN_S}u\n"
        "#ifdef NORIA_WANT_EXP_TABLE\n" + c_table("uint16_t", "noria_exp_table", EXP_TABLE) + "#endif\n"
    )
