"""What a node learns from its dry-downs, as integer sums: A = Σφφᵀ, b = Σφy, Σy², n.

φ are the eight activations of the backbone's second layer above their zero point (0 … 255) and a constant 1,
taken at the window's first dawn. y is a residual in the head's output steps, clipped to :data:`TARGET_LIMITS`; 0 is
exactly the baseline, so Σy² is the baseline's squared error. Sums are cumulative per device, backbone and season: a
later snapshot supersedes an earlier one. A year of windows cannot overflow 32 bits (366 · 255² < 2²⁵).

Snapshot on the air, :data:`SNAPSHOT_BYTES` long: a version byte, 31 exponents of four bits (biased by 5), then 175
codes of twelve bits, all packed low nibble first. Exponent e_i per class and φ is the smallest from −5 with
A_ii < 2^(12 + 2e_i); f_t per target the smallest from −5 with Σy² < 2^(10 + 2f_t). Codes: the upper triangle of A by
2^(e_i + e_j), unsigned; b by 2^(e_i + f_t), two's complement; Σy² by 2^(2f_t − 2), unsigned. By Cauchy and Schwarz
every code fits; each is rounded to nearest and clamped. A_99 is the count and always exact. What a receiver decodes
*is* the statistic. Normalised to a unit diagonal, an entry of A is off by at most 2⁻¹¹, one of b by 2⁻¹⁰; rounding may
leave the smallest eigenvalue of such an A slightly negative, at most 9·2⁻¹¹.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Self

import numpy as np
import numpy.typing as npt

PHI = 9
CLASSES = 3
"""Windows of 24, 48 and 72 h."""
TARGETS = 4
TARGET_NAMES = ("uptake", "dry-down 24 h", "dry-down 48 h", "dry-down 72 h")
UPTAKE = 0
"""The only target whose head moves water."""
TARGET_CLASS = (0, 0, 1, 2)
TARGET_LIMITS = (255, 127, 127, 127)
"""Bounds of |y|. One day's uptake label is mostly the probes' noise, so its bound is twice what a head can say: clipped
closer, its mean would be pulled toward the physics."""
TRIANGLE = PHI * (PHI + 1) // 2
SNAPSHOT_VERSION = 1
EXPONENTS = CLASSES * PHI + TARGETS
CODES = CLASSES * TRIANGLE + TARGETS * PHI + TARGETS
SNAPSHOT_BYTES = 1 + math.ceil((EXPONENTS + 3 * CODES) / 2)
MAX_WINDOWS = 4095
EXPONENT_BIAS = 5

Int64 = npt.NDArray[np.int64]


class MomentsError(ValueError):
    """Bytes or arrays that cannot be statistics; the text says why."""


def _exponent(value: int, bits: int) -> int:
    """The smallest e from −5 with ``value`` < 2^(bits + 2e)."""
    return max(-EXPONENT_BIAS, (value.bit_length() - bits + 1) // 2)


def _scaled(value: int, shift: int) -> int:
    """``value`` / 2^``shift``, rounded to nearest."""
    return value << -shift if shift < 0 else (value + (1 << shift >> 1)) >> shift


def _restored(code: int, shift: int) -> int:
    return code >> -shift if shift < 0 else code << shift


@dataclass(frozen=True, eq=False)
class Sums:
    """Integer sums of any number of snapshots; the arrays travel in Flower replies as they are."""

    gram: Int64
    """(3, 9, 9), symmetric."""
    moment: Int64
    """(4, 9)."""
    energy: Int64
    """(4,): Σy², the baseline's squared error."""
    count: Int64
    """(3,): windows per class."""

    @classmethod
    def zero(cls) -> Self:
        """No windows."""
        return cls(
            np.zeros((CLASSES, PHI, PHI), np.int64),
            np.zeros((TARGETS, PHI), np.int64),
            np.zeros(TARGETS, np.int64),
            np.zeros(CLASSES, np.int64),
        )

    def add(self, other: Sums) -> Sums:
        """The sums of both; exact in any order."""
        return Sums(
            self.gram + other.gram, self.moment + other.moment, self.energy + other.energy, self.count + other.count
        )

    def subtract(self, other: Sums) -> Sums:
        """These sums without ``other``, for leave-one-out."""
        return Sums(
            self.gram - other.gram, self.moment - other.moment, self.energy - other.energy, self.count - other.count
        )

    def sse(self, target: int, weights: npt.ArrayLike) -> float:
        """Σ(y − w·φ)² of ``target`` for real ``weights`` (9,), in output steps squared."""
        w = np.asarray(weights, np.float64)
        gram = self.gram[TARGET_CLASS[target]].astype(np.float64)
        return float(self.energy[target] - 2.0 * (w @ self.moment[target]) + w @ gram @ w)

    def windows(self, target: int) -> int:
        """How many windows stand behind ``target``."""
        return int(self.count[TARGET_CLASS[target]])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sums):
            return NotImplemented
        return all(
            np.array_equal(a, b)
            for a, b in (
                (self.gram, other.gram),
                (self.moment, other.moment),
                (self.energy, other.energy),
                (self.count, other.count),
            )
        )

    __hash__ = None  # type: ignore[assignment]


class Snapshot(Sums):
    """One device's cumulative sums for one backbone and one season."""

    @classmethod
    def from_integers(cls, gram: list[int], moment: list[int], energy: list[int], count: list[int]) -> Snapshot:
        """From a node's state: upper triangles of A class by class, b target by target, Σy², n."""
        full = np.zeros((CLASSES, PHI, PHI), np.int64)
        rows, columns = np.triu_indices(PHI)
        full[:, rows, columns] = np.array(gram, np.int64).reshape(CLASSES, TRIANGLE)
        full[:, columns, rows] = full[:, rows, columns]
        return cls(
            full,
            np.array(moment, np.int64).reshape(TARGETS, PHI),
            np.array(energy, np.int64),
            np.array(count, np.int64),
        )

    def encode(self) -> bytes:
        """The snapshot as it goes on the air."""
        exponents = [_exponent(int(self.gram[k, i, i]), 12) for k in range(CLASSES) for i in range(PHI)]
        energies = [_exponent(int(self.energy[t]), 10) for t in range(TARGETS)]
        codes = []
        for k in range(CLASSES):
            e = exponents[k * PHI : (k + 1) * PHI]
            codes += [
                min(_scaled(int(self.gram[k, i, j]), e[i] + e[j]), 4095) for i in range(PHI) for j in range(i, PHI)
            ]
        for t in range(TARGETS):
            e = exponents[TARGET_CLASS[t] * PHI :][:PHI]
            for i in range(PHI):
                code = _scaled(int(self.moment[t, i]), e[i] + energies[t])
                codes.append(max(-2047, min(code, 2047)) & 0xFFF)
        codes += [min(_scaled(int(self.energy[t]), 2 * energies[t] - 2), 4095) for t in range(TARGETS)]
        nibbles = [min(e + EXPONENT_BIAS, 15) for e in exponents + energies]
        for code in codes:
            nibbles += [code & 15, code >> 4 & 15, code >> 8]
        nibbles += [0] * (len(nibbles) % 2)
        packed = bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=True))
        return bytes([SNAPSHOT_VERSION]) + packed

    @classmethod
    def decode(cls, data: bytes) -> Snapshot:
        """Read a snapshot off the air.

        Raises:
            MomentsError: wrong length or version, or numbers no node can have summed.
        """
        if len(data) != SNAPSHOT_BYTES:
            raise MomentsError(f"a snapshot has {SNAPSHOT_BYTES} bytes, not {len(data)}")
        if data[0] != SNAPSHOT_VERSION:
            raise MomentsError(f"snapshot version {data[0]} is unknown")
        nibbles = [half for byte in data[1:] for half in (byte & 15, byte >> 4)]
        exponents = [nibble - EXPONENT_BIAS for nibble in nibbles[:EXPONENTS]]
        digits = iter(nibbles[EXPONENTS : EXPONENTS + 3 * CODES])
        codes = iter([low | middle << 4 | high << 8 for low, middle, high in zip(digits, digits, digits, strict=True)])
        gram: list[int] = []
        for k in range(CLASSES):
            e = exponents[k * PHI : (k + 1) * PHI]
            gram += [_restored(next(codes), e[i] + e[j]) for i in range(PHI) for j in range(i, PHI)]
        moment: list[int] = []
        for t in range(TARGETS):
            e = exponents[TARGET_CLASS[t] * PHI :][:PHI]
            for i in range(PHI):
                code = next(codes)
                signed = code - 4096 if code >= 2048 else code
                moment.append(_restored(signed, e[i] + exponents[CLASSES * PHI + t]))
        energy = [_restored(next(codes), 2 * exponents[CLASSES * PHI + t] - 2) for t in range(TARGETS)]
        count = [gram[(k + 1) * TRIANGLE - 1] for k in range(CLASSES)]
        snapshot = cls.from_integers(gram, moment, energy, count)
        triangles = np.array(gram, np.int64).reshape(CLASSES, TRIANGLE)
        _refuse_impossible(triangles, snapshot.moment, snapshot.energy, snapshot.count)
        return snapshot


def _refuse_impossible(triangles: Int64, moment: Int64, energy: Int64, count: Int64) -> None:
    """Bounds any honest node keeps: counts, φ ≤ 255, |y|, Cauchy and Schwarz with rounding.

    Args:
        triangles: Upper triangles of A (…, 3, 45), of one snapshot or many.
        moment: (…, 4, 9).
        energy: (…, 4).
        count: (…, 3).

    Raises:
        MomentsError: one of them breaks a bound.
    """
    if np.any(count > MAX_WINDOWS) or np.any(count[..., 1:] > count[..., :1]):
        raise MomentsError("window counts are impossible")
    rows, columns = np.triu_indices(PHI)
    diagonal = triangles[..., rows == columns].astype(np.float64)
    if np.any(diagonal > count[..., None] * 255.0**2 * 1.01 + 1):
        raise MomentsError("activations are out of range")
    classes = np.array(TARGET_CLASS)
    largest = np.array(TARGET_LIMITS, np.float64) + 1
    if np.any(energy > count[..., classes] * largest**2 * 1.01 + 1):
        raise MomentsError("residuals are out of range")
    if np.any(triangles.astype(np.float64) ** 2 > 1.02 * diagonal[..., rows] * diagonal[..., columns] + 1):
        raise MomentsError("second moments are inconsistent")
    bound = 1.05 * diagonal[..., classes, :] * energy[..., None].astype(np.float64) + 1
    if np.any(moment.astype(np.float64) ** 2 > bound):
        raise MomentsError("cross moments are inconsistent")


BATCH = 256
"""Snapshots decoded at once by :func:`add_up`: some 3 MB, so that a processor's cache holds them."""


def add_up(payloads: Iterable[bytes]) -> Sums:
    """The exact sum of encoded snapshots, bit for bit that of :meth:`Snapshot.decode`, in constant memory.

    Raises:
        MomentsError: one of them is not a snapshot.
    """
    total = Sums.zero()
    stream = iter(payloads)
    while batch := list(islice(stream, BATCH)):
        total = total.add(_sum_of_batch(batch))
    return total


def _sum_of_batch(batch: list[bytes]) -> Sums:
    if any(len(payload) != SNAPSHOT_BYTES for payload in batch):
        raise MomentsError(f"a snapshot has {SNAPSHOT_BYTES} bytes")
    data = np.frombuffer(b"".join(batch), np.uint8).reshape(len(batch), SNAPSHOT_BYTES)
    if np.any(data[:, 0] != SNAPSHOT_VERSION):
        raise MomentsError("a snapshot's version is unknown")
    nibbles = np.empty((len(batch), 2 * (SNAPSHOT_BYTES - 1)), np.int64)
    nibbles[:, ::2] = data[:, 1:] & 15
    nibbles[:, 1::2] = data[:, 1:] >> 4
    exponents = nibbles[:, :EXPONENTS] - EXPONENT_BIAS
    digits = nibbles[:, EXPONENTS : EXPONENTS + 3 * CODES].reshape(len(batch), CODES, 3)
    codes = digits @ np.array([1, 16, 256], np.int64)

    of_phi = exponents[:, : CLASSES * PHI].reshape(-1, CLASSES, PHI)
    of_target = exponents[:, CLASSES * PHI :]
    classes = np.array(TARGET_CLASS)
    rows, columns = np.triu_indices(PHI)
    of_gram, of_moment = CLASSES * TRIANGLE, CLASSES * TRIANGLE + TARGETS * PHI
    triangles = _restored_all(
        codes[:, :of_gram].reshape(-1, CLASSES, TRIANGLE), of_phi[:, :, rows] + of_phi[:, :, columns]
    )
    signed = codes[:, of_gram:of_moment].reshape(-1, TARGETS, PHI)
    signed = signed - 4096 * (signed >= 2048)
    moment = _restored_all(signed, of_phi[:, classes] + of_target[:, :, None])
    energy = _restored_all(codes[:, of_moment:], 2 * of_target - 2)
    count = triangles[:, :, -1]
    _refuse_impossible(triangles, moment, energy, count)
    gram = np.empty((CLASSES, PHI, PHI), np.int64)
    gram[:, rows, columns] = gram[:, columns, rows] = triangles.sum(axis=0)
    return Sums(gram, moment.sum(axis=0), energy.sum(axis=0), count.sum(axis=0))


def _restored_all(codes: Int64, shifts: Int64) -> Int64:
    return np.where(shifts < 0, codes >> np.maximum(-shifts, 0), codes << np.maximum(shifts, 0))


def c_definitions() -> str:
    """What C must know of this module."""
    names = {
        "PHI": PHI,
        "CLASSES": CLASSES,
        "TARGETS": TARGETS,
        "TRIANGLE": TRIANGLE,
        "SNAPSHOT_VERSION": SNAPSHOT_VERSION,
        "SNAPSHOT_BYTES": SNAPSHOT_BYTES,
        "MAX_WINDOWS": MAX_WINDOWS,
        "EXPONENT_BIAS": EXPONENT_BIAS,
        "UPTAKE_LIMIT": TARGET_LIMITS[0],
        "DRYING_LIMIT": TARGET_LIMITS[1],
    }
    classes = ", ".join(str(k) for k in TARGET_CLASS)
    lines = "".join(f"#define NORIA_{name} {value}\n" for name, value in names.items())
    return lines + f"#define NORIA_TARGET_CLASS {classes}\n"
