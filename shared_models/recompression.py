"""Recompression of model bytes: an adaptive binary range coder for small signed integers.

Weights look random to zlib, but they are bell-shaped: coding each number's magnitude class with adaptive
probabilities and only its lowest bits plainly takes a sixth off, and the decoder is a few hundred bytes of C
(``core/decoder.c``, which does the same step by step).

A block is a list of :class:`Segment`. A number v of an integer segment is coded as

1. n = bit length of v's magnitude, in unary (bit 1 = longer), each position with its own adaptive probability;
2. for n > 0 the sign, plainly; then the n − 1 bits below the leading one: the first adaptively per n, the others
   plainly.

Raw segments are plain bits, most significant first. The coder is LZMA's: 32-bit range, 12-bit probabilities,
bit 0 takes the lower part, renormalisation by bytes. The encoder emits the shortest number in its final interval
and drops trailing zero bytes; the decoder reads zeros beyond the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from shared_models.layout import c_constants, c_enumeration

PROBABILITY_BITS = 12
FIRST_RATE = 2
"""Adaptation shift of a fresh probability; each use slows it by one until …"""
LAST_RATE = 5
"""… this one."""
LONGER_START = 1024
"""Initial probability, of 4096, of "no longer" in the unary part: most numbers are not small."""
MAGNITUDE_BITS = 31
_TOP = 1 << 24


class SegmentType(IntEnum):
    """How the numbers of a segment are stored in the model image."""

    RAW = 0
    """Bytes without structure."""
    INT8 = 1
    INT32 = 2


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of numbers of one type."""

    type: SegmentType
    count: int

    @property
    def size(self) -> int:
        """Bytes in the model image."""
        return self.count * (4 if self.type is SegmentType.INT32 else 1)


class RecompressionError(ValueError):
    """A block that does not decode; the text says why."""


class _Probability:
    """The probability of a zero bit, learning fast at first."""

    __slots__ = ("rate", "zero")

    def __init__(self, zero: int) -> None:
        self.zero, self.rate = zero, FIRST_RATE

    def learn(self, bit: int) -> None:
        self.zero += -(self.zero >> self.rate) if bit else ((1 << PROBABILITY_BITS) - self.zero) >> self.rate
        self.rate = min(self.rate + 1, LAST_RATE)


class _Model:
    """The adaptive probabilities of one integer type."""

    def __init__(self) -> None:
        self.longer = [_Probability(LONGER_START) for _ in range(MAGNITUDE_BITS)]
        self.second = [_Probability(1 << (PROBABILITY_BITS - 1)) for _ in range(MAGNITUDE_BITS + 1)]


class _Encoder:
    """The interval [low, low + range) as one big number, so that carries need no care."""

    def __init__(self) -> None:
        self.low, self.range, self.size = 0, 0xFFFFFFFF, 4

    def bit(self, bit: int, probability: _Probability) -> None:
        bound = (self.range >> PROBABILITY_BITS) * probability.zero
        self._narrow(bit, bound)
        probability.learn(bit)

    def plain(self, value: int, count: int) -> None:
        for position in reversed(range(count)):
            self.range >>= 1
            self.low += self.range if value >> position & 1 else 0
            self._normalise()

    def finish(self) -> bytes:
        for zeros in reversed(range(8 * self.size)):
            shortest = -(-self.low >> zeros) << zeros
            if shortest < self.low + self.range:
                return shortest.to_bytes(self.size, "big").rstrip(b"\0")
        raise AssertionError("an interval holds a number")

    def _narrow(self, bit: int, bound: int) -> None:
        if bit:
            self.low, self.range = self.low + bound, self.range - bound
        else:
            self.range = bound
        self._normalise()

    def _normalise(self) -> None:
        while self.range < _TOP:
            self.low, self.range, self.size = self.low << 8, self.range << 8, self.size + 1


class _Decoder:
    def __init__(self, data: bytes) -> None:
        self.data, self.position, self.range, self.code = data, 0, 0xFFFFFFFF, 0
        for _ in range(4):
            self._read()

    def bit(self, probability: _Probability) -> int:
        bound = (self.range >> PROBABILITY_BITS) * probability.zero
        bit = int(self.code >= bound)
        if bit:
            self.code, self.range = self.code - bound, self.range - bound
        else:
            self.range = bound
        self._normalise()
        probability.learn(bit)
        return bit

    def plain(self, count: int) -> int:
        value = 0
        for _ in range(count):
            self.range >>= 1
            bit = int(self.code >= self.range)
            self.code -= self.range if bit else 0
            value = value << 1 | bit
            self._normalise()
        return value

    def _normalise(self) -> None:
        while self.range < _TOP:
            self.range <<= 8
            self._read()

    def _read(self) -> None:
        byte = self.data[self.position] if self.position < len(self.data) else 0
        self.code, self.position = (self.code << 8 | byte) & 0xFFFFFFFF, self.position + 1


def encode(data: bytes, segments: Sequence[Segment]) -> bytes:
    """Compress ``data``, which the segments describe completely.

    Raises:
        RecompressionError: the segments do not add up to the data, or a number is −2³¹.
    """
    if len(data) != sum(segment.size for segment in segments):
        raise RecompressionError(f"the segments do not describe {len(data)} bytes")
    coder, models, position = _Encoder(), {kind: _Model() for kind in SegmentType}, 0
    for segment in segments:
        width = segment.size // max(segment.count, 1)
        for _ in range(segment.count):
            piece = data[position : position + width]
            position += width
            if segment.type is SegmentType.RAW:
                coder.plain(piece[0], 8)
            else:
                _encode_number(coder, models[segment.type], int.from_bytes(piece, "little", signed=True))
    return coder.finish()


def _encode_number(coder: _Encoder, model: _Model, value: int) -> None:
    magnitude = abs(value)
    bits = magnitude.bit_length()
    if bits > MAGNITUDE_BITS:
        raise RecompressionError(f"{value} is too large")
    for position in range(bits):
        coder.bit(1, model.longer[position])
    if bits < MAGNITUDE_BITS:
        coder.bit(0, model.longer[bits])
    if bits:
        coder.plain(int(value < 0), 1)
    if bits > 1:
        coder.bit(magnitude >> (bits - 2) & 1, model.second[bits])
        coder.plain(magnitude & ((1 << (bits - 2)) - 1), bits - 2)


def decode(data: bytes, segments: Sequence[Segment]) -> bytes:
    """Restore what :func:`encode` was given.

    Raises:
        RecompressionError: a number does not fit its type, or bytes are left over.
    """
    coder, models, result = _Decoder(data), {kind: _Model() for kind in SegmentType}, bytearray()
    for segment in segments:
        width = segment.size // max(segment.count, 1)
        for _ in range(segment.count):
            if segment.type is SegmentType.RAW:
                result.append(coder.plain(8))
                continue
            value = _decode_number(coder, models[segment.type])
            try:
                result += value.to_bytes(width, "little", signed=True)
            except OverflowError as error:
                raise RecompressionError(f"{value} does not fit {width} bytes") from error
    if len(data) > coder.position:
        raise RecompressionError(f"{len(data) - coder.position} bytes are left over")
    return bytes(result)


def _decode_number(coder: _Decoder, model: _Model) -> int:
    bits = 0
    while bits < MAGNITUDE_BITS and coder.bit(model.longer[bits]):
        bits += 1
    if not bits:
        return 0
    negative, magnitude = coder.plain(1), 1
    if bits > 1:
        magnitude = 2 | coder.bit(model.second[bits])
        magnitude = magnitude << (bits - 2) | coder.plain(bits - 2)
    return -magnitude if negative else magnitude


def c_definitions() -> str:
    """The coder's constants for the C header."""
    constants = {
        "PROBABILITY_BITS": PROBABILITY_BITS,
        "FIRST_RATE": FIRST_RATE,
        "LAST_RATE": LAST_RATE,
        "LONGER_START": LONGER_START,
        "MAGNITUDE_BITS": MAGNITUDE_BITS,
    }
    return c_constants(constants) + "\n" + c_enumeration(SegmentType, "segment_type")
