"""Intel HEX: flash contents as text that every programmer reads."""

from __future__ import annotations

from collections.abc import Iterable

_DATA, _END, _UPPER_ADDRESS, _START = 0, 1, 4, 5
_LINE = 32


class HexError(ValueError):
    """A file that is not Intel HEX, or is damaged; the text names the line."""


def _record(kind: int, address: int, data: bytes) -> str:
    body = bytes([len(data), address >> 8 & 0xFF, address & 0xFF, kind]) + data
    return f":{body.hex().upper()}{-sum(body) & 0xFF:02X}\n"


def render(segments: Iterable[tuple[int, bytes]]) -> str:
    """The file for ``(address, bytes)`` segments, in their order."""
    lines = []
    upper = None
    for start, data in segments:
        position = 0
        while position < len(data):
            address = start + position
            if address >> 16 != upper:
                upper = address >> 16
                lines.append(_record(_UPPER_ADDRESS, 0, upper.to_bytes(2, "big")))
            size = min(_LINE, len(data) - position, 0x10000 - (address & 0xFFFF))
            lines.append(_record(_DATA, address & 0xFFFF, data[position : position + size]))
            position += size
    lines.append(_record(_END, 0, b""))
    return "".join(lines)


def parse(text: str) -> list[tuple[int, bytes]]:
    """Segments of a file in ascending order, neighbours joined.

    Raises:
        HexError: a line is not a record, its checksum is wrong, bytes overlap, or the end is missing.
    """
    pieces: list[tuple[int, bytes]] = []
    upper, ended = 0, False
    for number, line in enumerate(text.split(), 1):
        kind, address, data = _fields(line, number)
        if kind == _DATA:
            pieces.append(((upper << 16) + address, data))
        elif kind == _END:
            ended = True
            break
        elif kind == _UPPER_ADDRESS and len(data) == 2:
            upper = int.from_bytes(data, "big")
        elif kind != _START:
            raise HexError(f"line {number}: record type {kind} is not used on these parts")
    if not ended:
        raise HexError("the file ends before its end record: it was cut off")
    segments: list[tuple[int, bytearray]] = []
    for address, data in sorted(pieces):
        end = segments[-1][0] + len(segments[-1][1]) if segments else -1
        if address < end:
            raise HexError(f"two records claim address {address:#010x}")
        if address == end:
            segments[-1][1].extend(data)
        else:
            segments.append((address, bytearray(data)))
    return [(address, bytes(data)) for address, data in segments]


def _fields(line: str, number: int) -> tuple[int, int, bytes]:
    try:
        record = bytes.fromhex(line[1:]) if line.startswith(":") else b""
    except ValueError:
        record = b""
    if len(record) < 5 or len(record) != record[0] + 5:
        raise HexError(f"line {number}: not an Intel HEX record")
    if sum(record) & 0xFF:
        raise HexError(f"line {number}: wrong checksum")
    return record[3], int.from_bytes(record[1:3], "big"), record[4:-1]
