"""Recompression of model bytes: an adaptive binary range coder for small signed integers.

Weights look random to zlib, but they are bell-shaped: coding each number's magnitude class with adaptive
probabilities and only its lowest bits plainly takes a sixth off, and the decoder is a few hundred bytes of C
(``core/decoder.c``, which does the same step by step).

What is coded in which order :mod:`shared_models.model_coding` says. A number v is coded under a
:class:`NumberModel` as

1. n = bit length of v's magnitude, in unary (bit 1 = longer), each position with its own adaptive probability;
2. for n > 0 the sign, plainly; then the n − 1 bits below the leading one: the first adaptively per n, the others
   plainly.

Plain bits come most significant first. The coder is LZMA's: 32-bit range, 12-bit probabilities,
bit 0 takes the lower part, renormalisation by bytes. The encoder emits the shortest number in its final interval
and drops trailing zero bytes; the decoder reads zeros beyond the end.
"""

from __future__ import annotations

from shared_models.layout import c_constants

PROBABILITY_BITS = 12
FIRST_RATE = 2
"""Adaptation shift of a fresh probability; each use slows it by one until …"""
LAST_RATE = 5
"""… this one."""
LONGER_START = 1024
"""Initial probability, of 4096, of "no longer" in the unary part: most numbers are not small."""
MAGNITUDE_BITS = 31
_TOP = 1 << 24


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


class NumberModel:
    """The adaptive probabilities of one kind of number."""

    __slots__ = ("longer", "second")

    def __init__(self) -> None:
        self.longer = [_Probability(LONGER_START) for _ in range(MAGNITUDE_BITS)]
        self.second = [_Probability(1 << (PROBABILITY_BITS - 1)) for _ in range(MAGNITUDE_BITS + 1)]


class Encoder:
    """Codes bits and numbers, one after the other."""

    def __init__(self) -> None:
        # The interval [low, low + range) as one big number, so that carries need no care.
        self._low, self._range, self._size = 0, 0xFFFFFFFF, 4

    def bits(self, value: int, count: int) -> None:
        """The lowest ``count`` bits of ``value``, plainly."""
        for position in reversed(range(count)):
            self._range >>= 1
            self._low += self._range if value >> position & 1 else 0
            self._normalise()

    def number(self, value: int, model: NumberModel) -> None:
        """A signed integer.

        Raises:
            RecompressionError: its magnitude needs more than 31 bits.
        """
        magnitude = abs(value)
        length = magnitude.bit_length()
        if length > MAGNITUDE_BITS:
            raise RecompressionError(f"{value} is too large")
        for position in range(length):
            self._adaptive(1, model.longer[position])
        if length < MAGNITUDE_BITS:
            self._adaptive(0, model.longer[length])
        if length:
            self.bits(int(value < 0), 1)
        if length > 1:
            self._adaptive(magnitude >> (length - 2) & 1, model.second[length])
            self.bits(magnitude & ((1 << (length - 2)) - 1), length - 2)

    def finish(self) -> bytes:
        """The shortest block that decodes to what was coded."""
        for zeros in reversed(range(8 * self._size)):
            shortest = -(-self._low >> zeros) << zeros
            if shortest < self._low + self._range:
                return shortest.to_bytes(self._size, "big").rstrip(b"\0")
        raise AssertionError("an interval holds a number")

    def _adaptive(self, bit: int, probability: _Probability) -> None:
        bound = (self._range >> PROBABILITY_BITS) * probability.zero
        if bit:
            self._low, self._range = self._low + bound, self._range - bound
        else:
            self._range = bound
        self._normalise()
        probability.learn(bit)

    def _normalise(self) -> None:
        while self._range < _TOP:
            self._low, self._range, self._size = self._low << 8, self._range << 8, self._size + 1


class Decoder:
    """Reads what :class:`Encoder` coded; any bytes at all decode to something, in bounded time."""

    def __init__(self, data: bytes) -> None:
        self._data, self._position, self._range, self._code = data, 0, 0xFFFFFFFF, 0
        for _ in range(4):
            self._read()

    def bits(self, count: int) -> int:
        """Plain bits."""
        value = 0
        for _ in range(count):
            self._range >>= 1
            bit = int(self._code >= self._range)
            self._code -= self._range if bit else 0
            value = value << 1 | bit
            self._normalise()
        return value

    def number(self, model: NumberModel) -> int:
        """A signed integer of at most 31 bits."""
        length = 0
        while length < MAGNITUDE_BITS and self._adaptive(model.longer[length]):
            length += 1
        if not length:
            return 0
        negative, magnitude = self.bits(1), 1
        if length > 1:
            magnitude = 2 | self._adaptive(model.second[length])
            magnitude = magnitude << (length - 2) | self.bits(length - 2)
        return -magnitude if negative else magnitude

    def finish(self) -> None:
        """All has been read.

        Raises:
            RecompressionError: bytes are left over.
        """
        if len(self._data) > self._position:
            raise RecompressionError(f"{len(self._data) - self._position} bytes are left over")

    def _adaptive(self, probability: _Probability) -> int:
        bound = (self._range >> PROBABILITY_BITS) * probability.zero
        bit = int(self._code >= bound)
        if bit:
            self._code, self._range = self._code - bound, self._range - bound
        else:
            self._range = bound
        self._normalise()
        probability.learn(bit)
        return bit

    def _normalise(self) -> None:
        while self._range < _TOP:
            self._range <<= 8
            self._read()

    def _read(self) -> None:
        byte = self._data[self._position] if self._position < len(self._data) else 0
        self._code = (self._code << 8 | byte) & 0xFFFFFFFF
        self._position += 1


def c_definitions() -> str:
    """The coder's constants for the C header."""
    constants = {
        "PROBABILITY_BITS": PROBABILITY_BITS,
        "FIRST_RATE": FIRST_RATE,
        "LAST_RATE": LAST_RATE,
        "LONGER_START": LONGER_START,
        "MAGNITUDE_BITS": MAGNITUDE_BITS,
    }
    return c_constants(constants)
