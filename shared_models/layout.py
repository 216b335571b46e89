"""One description of a packed little-endian record, for Python, for C and for the documentation.

A :class:`Layout` is a list of fields in wire order. Python packs and unpacks with it, the C header is
generated from it, and ``docs/formats.md`` shows its table, so the three cannot drift apart.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Literal

FieldType = Literal["u8", "i8", "u16", "i16", "u32", "i32", "bytes"]

_CODES: dict[str, str] = {"u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i"}
_SIZES: dict[str, int] = {"u8": 1, "i8": 1, "u16": 2, "i16": 2, "u32": 4, "i32": 4, "bytes": 1}
_C_TYPES: dict[str, str] = {
    "u8": "uint8_t",
    "i8": "int8_t",
    "u16": "uint16_t",
    "i16": "int16_t",
    "u32": "uint32_t",
    "i32": "int32_t",
    "bytes": "uint8_t",
}


class LayoutError(ValueError):
    """A record of the wrong length, or a field outside its range; the text names the field."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record.

    Args:
        name: Python and C name, unit included.
        type: Integer type, or ``bytes`` for an opaque run.
        remark: What it means, for the header and the documentation.
        length: Bytes of an opaque run; 1 for integers.
        low: Smallest value accepted; the type's own limit when None.
        high: Largest value accepted; the type's own limit when None.
    """

    name: str
    type: FieldType
    remark: str = ""
    length: int = 1
    low: int | None = None
    high: int | None = None

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return _SIZES[self.type] * self.length

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest accepted value of an integer field."""
        bits = 8 * _SIZES[self.type]
        low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if self.type[0] == "i" else (0, (1 << bits) - 1)
        return (low if self.low is None else self.low, high if self.high is None else self.high)


class Layout:
    """A fixed-size record: fields in wire order, little endian, no hidden padding."""

    def __init__(self, name: str, fields: Sequence[Field]) -> None:
        self.name = name
        self.fields = tuple(fields)
        self._struct = struct.Struct(
            "<" + "".join(f"{f.length}s" if f.type == "bytes" else _CODES[f.type] for f in self.fields)
        )

    @property
    def size(self) -> int:
        """Bytes of the whole record."""
        return self._struct.size

    def pack(self, values: Mapping[str, int | bytes]) -> bytes:
        """The record's bytes.

        Raises:
            LayoutError: a field is outside its range or an opaque run has the wrong length.
        """
        items: list[int | bytes] = []
        for field in self.fields:
            value = values[field.name]
            self._check(field, value)
            items.append(value)
        return self._struct.pack(*items)

    def unpack(self, data: bytes) -> dict[str, int | bytes]:
        """The record's values by field name.

        Raises:
            LayoutError: the length is wrong or a field is outside its range.
        """
        if len(data) != self.size:
            raise LayoutError(f"{self.name}: {len(data)} bytes instead of {self.size}")
        values: dict[str, int | bytes] = {}
        for field, value in zip(self.fields, self._struct.unpack(data), strict=True):
            self._check(field, value)
            values[field.name] = value
        return values

    def offset(self, name: str) -> int:
        """Byte offset of a field."""
        position = 0
        for field in self.fields:
            if field.name == name:
                return position
            position += field.size
        raise KeyError(name)

    def c_struct(self) -> str:
        """A C structure with the same bytes, without packing attributes.

        Every field must sit at its natural alignment, so that a memory-mapped record can be read in place
        on a core without unaligned access.

        Raises:
            LayoutError: a field is not aligned; reorder the fields.
        """
        lines = ["typedef struct {"]
        position, widest = 0, 1
        for field in self.fields:
            align = _SIZES[field.type]
            if position % align:
                raise LayoutError(f"{self.name}.{field.name}: offset {position} is not a multiple of {align}")
            array = f"[{field.length}]" if field.type == "bytes" and field.length > 1 else ""
            remark = f" /* {field.remark} */" if field.remark else ""
            lines.append(f"    {_C_TYPES[field.type]} {field.name}{array};{remark}")
            position, widest = position + field.size, max(widest, align)
        if position % widest:
            raise LayoutError(f"{self.name}: size {position} is not a multiple of {widest}")
        lines.append(f"}} noria_{self.name}_t;")
        lines.append(f'_Static_assert(sizeof(noria_{self.name}_t) == {self.size}, "{self.name} layout");')
        return "\n".join(lines) + "\n"

    def markdown(self) -> str:
        """The table shown in ``docs/formats.md``."""
        rows = ["| offset | type | field | meaning |", "|---:|---|---|---|"]
        position = 0
        for field in self.fields:
            kind = f"{field.length} bytes" if field.type == "bytes" else field.type
            rows.append(f"| {position} | {kind} | `{field.name}` | {field.remark} |")
            position += field.size
        return "\n".join(rows) + "\n"

    def _check(self, field: Field, value: int | bytes) -> None:
        if field.type == "bytes":
            if not isinstance(value, bytes) or len(value) != field.length:
                raise LayoutError(f"{self.name}.{field.name}: needs {field.length} bytes")
            return
        low, high = field.limits
        if not isinstance(value, int) or not low <= value <= high:
            raise LayoutError(f"{self.name}.{field.name}: {value!r} is not within {low}..{high}")


def c_enumeration(enumeration: type[IntEnum | IntFlag], name: str) -> str:
    """A C enumeration ``noria_<name>_t`` with ``NORIA_<NAME>_<MEMBER>`` values."""
    # Iterating an IntFlag leaves out zero.
    members = enumeration.__members__.items()
    lines = [f"    NORIA_{name.upper()}_{label} = {member.value}," for label, member in members]
    return "\n".join(["typedef enum {", *lines, f"}} noria_{name}_t;"]) + "\n"


def c_constants(constants: Mapping[str, int]) -> str:
    """``#define NORIA_<NAME> value`` lines; values beyond int are marked unsigned."""
    lines = []
    for name, value in constants.items():
        text = f"{value}u" if value > 0x7FFFFFFF else f"({value})" if value < 0 else str(value)
        lines.append(f"#define NORIA_{name} {text}")
    return "\n".join(lines) + "\n"
