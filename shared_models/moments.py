"""What a node learns from its dry-downs, as integer sums: A = Σφφᵀ, b = Σφy, Σy², n.

φ are the eight activations of the backbone's second layer above their zero point (0 … 255) and a constant 1,
taken at the window's first dawn. y is a residual in the head's output steps, clipped to :data:`TARGET_LIMITS`; 0 is
exactly the baseline, so Σy² is the baseline's squared error. Sums are cumulative per device, backbone and season: a
later snapshot supersedes an earlier one. A year of windows cannot overflow 32 bits (366 · 255² < 2²⁵).

Snapshot on the air, :data:`SNAPSHOT_BYTES` long, so that four frames of 51 bytes or one of 222 carry it. Sums of
squares travel as roots, everything else relative to the roots that bound it (Cauchy and Schwarz). In this order, the
lowest bit of each first: the version (8 bits); n of the three classes (12 each); per class a root for each φ but the
constant, then a root per target (10 each): in quarters, seven significant bits; A of the 24 h windows, upper triangle
without its diagonal, in 1/500 of the two roots' product (9 each); for 48 and 72 h a shift (4), and by how much their
ratios exceed those of 24 h, in 2^shift/500 (5 each, signed); b in 1/250 (9 each, signed). The constant's own root is
that of n, in 1/64. What a receiver decodes *is* the statistic. Normalised to a unit diagonal, an entry of the 24 h
windows' A is off by .016 at most, so is one of b, one of the longer windows' A by .0625, and mostly far less. The
smallest eigenvalue may come out negative: :data:`ROUNDING`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
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
PAIRS = PHI * (PHI - 1) // 2
"""A's entries above its diagonal, by class."""
SNAPSHOT_VERSION = 2
VERSION_BITS, COUNT_BITS, ROOT_BITS, RATIO_BITS, SHIFT_BITS, EXCESS_BITS = 8, 12, 10, 9, 4, 5
ROOTS = CLASSES * (PHI - 1) + TARGETS
WIDTHS = (
    [VERSION_BITS]
    + CLASSES * [COUNT_BITS]
    + ROOTS * [ROOT_BITS]
    + PAIRS * [RATIO_BITS]
    + (CLASSES - 1) * ([SHIFT_BITS] + PAIRS * [EXCESS_BITS])
    + TARGETS * PHI * [RATIO_BITS]
)
"""Bits of each code."""
SNAPSHOT_BYTES = math.ceil(sum(WIDTHS) / 8)
ROUNDING = (0.08, 0.25, 0.25)
"""By class, how far below zero the smallest eigenvalue of a snapshot's A may be, normalised to a unit diagonal; in sums
of many it averages out."""
MAX_WINDOWS = 4095
RATIO_ONE = 500
"""The code of the largest ratio there can be; rounded roots may make it a little more."""
MOST_RATIO = (1 << RATIO_BITS) - 1
MOMENT_ONE = 250
MOST_MOMENT = (1 << RATIO_BITS - 1) - 1
MOST_EXCESS = (1 << EXCESS_BITS - 1) - 1
_PAIR_ROWS, _PAIR_COLUMNS = np.triu_indices(PHI, 1)
LIMIT = 1 << 48
"""Bound of each entry of a site's sums, exact or with noise: 2³¹ windows of 255² stay below."""
PARTS: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("gram", (CLASSES, PHI, PHI)),
    ("moment", (TARGETS, PHI)),
    ("energy", (TARGETS,)),
    ("count", (CLASSES,)),
)
"""The arrays of :class:`Sums` and their shapes, in the order in which they travel."""

Int64 = npt.NDArray[np.int64]


class MomentsError(ValueError):
    """Bytes or arrays that cannot be statistics; the text says why."""


def _root(value: int, unit_bits: int) -> int:
    """The root of ``value`` in 2^-``unit_bits``, rounded to nearest."""
    scaled = value << 2 * unit_bits
    root = math.isqrt(scaled)
    return root + (scaled - root * root > root)


def _rounded_root(value: int) -> tuple[int, int]:
    """The root of a sum of squares in quarters, to seven significant bits, and its code."""
    root, shift = _root(value, 2), 0
    while (root + (1 << shift >> 1)) >> shift > 127:
        shift += 1
    mantissa = (root + (1 << shift >> 1)) >> shift
    return mantissa << shift, (shift << 6) + mantissa


def _ratio_q10(value: int, product: int) -> int:
    """``value`` over the product of two roots (in sixteenths) in 1/1024; 0 where there is none."""
    return min((value << 14) // product, 2047) if product else 0


def _product(root: npt.ArrayLike, other: npt.ArrayLike, constant: npt.ArrayLike) -> Int64:
    """The product of two roots in sixteenths; the constant's root is in 1/64, the others in quarters."""
    return np.asarray(root, np.int64) * np.asarray(other, np.int64) >> np.where(constant, 4, 0)


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
        codes = [SNAPSHOT_VERSION, *self.count.tolist()]
        roots: list[list[int]] = []
        for k in range(CLASSES):
            rounded = [_rounded_root(int(self.gram[k, i, i])) for i in range(PHI - 1)]
            codes += [code for _, code in rounded]
            roots.append([root for root, _ in rounded] + [_root(int(self.count[k]), 6)])
        energies = [_rounded_root(int(self.energy[t])) for t in range(TARGETS)]
        codes += [code for _, code in energies]
        day: list[int] = []
        for k in range(CLASSES):
            products = _product(
                np.array(roots[k])[_PAIR_ROWS], np.array(roots[k])[_PAIR_COLUMNS], _PAIR_COLUMNS == PHI - 1
            ).tolist()
            sums = self.gram[k, _PAIR_ROWS, _PAIR_COLUMNS].tolist()
            ratios = [
                min(_ratio_q10(value, product) * 125 + 128 >> 8, MOST_RATIO)
                for value, product in zip(sums, products, strict=True)
            ]
            if k == 0:
                codes += (day := ratios)
                continue
            excess = [
                ratio - base if product else 0 for ratio, base, product in zip(ratios, day, products, strict=True)
            ]
            shift = 0
            while max(map(abs, excess)) + (1 << shift >> 1) >> shift > MOST_EXCESS:
                shift += 1
            codes.append(shift)
            codes += [_signed(abs(value) + (1 << shift >> 1) >> shift, value, EXCESS_BITS) for value in excess]
        for t in range(TARGETS):
            for i in range(PHI):
                product = int(_product(roots[TARGET_CLASS[t]][i], energies[t][0], i == PHI - 1))
                value = int(self.moment[t, i])
                size = min(_ratio_q10(abs(value), product) * 125 + 256 >> 9, MOST_MOMENT)
                codes.append(_signed(size, value, RATIO_BITS))
        bits = 0
        for code, width in zip(reversed(codes), reversed(WIDTHS), strict=True):
            bits = bits << width | code
        return bits.to_bytes(SNAPSHOT_BYTES, "little")

    @classmethod
    def decode(cls, data: bytes) -> Snapshot:
        """Read a snapshot off the air.

        Raises:
            MomentsError: wrong length or version, or numbers no node can have summed.
        """
        sums = _sum_of_batch([data])
        return cls(sums.gram, sums.moment, sums.energy, sums.count)


def _signed(size: int, sign: int, width: int) -> int:
    """Two's complement of ``width`` bits."""
    return size if sign >= 0 else -size & (1 << width) - 1


def _refuse_impossible(pairs: Int64, diagonal: Int64, moment: Int64, energy: Int64, count: Int64) -> None:
    """Bounds any honest node keeps: counts, φ ≤ 255, |y|, Cauchy and Schwarz with rounding.

    Args:
        pairs: A above its diagonal (…, 3, 36), of one snapshot or many.
        diagonal: Of A (…, 3, 9).
        moment: (…, 4, 9).
        energy: (…, 4).
        count: (…, 3).

    Raises:
        MomentsError: one of them breaks a bound.
    """
    if np.any(count > MAX_WINDOWS) or np.any(count[..., 1:] > count[..., :-1]):
        raise MomentsError("window counts are impossible")
    if np.any(diagonal > count[..., None] * 255.0**2 * 1.02 + 1):
        raise MomentsError("activations are out of range")
    classes = np.array(TARGET_CLASS)
    largest = np.array(TARGET_LIMITS, np.float64) + 1
    if np.any(energy > count[..., classes] * largest**2 * 1.02 + 1):
        raise MomentsError("residuals are out of range")
    # A quarter is what the rounding of its square may have taken from a root.
    root, energy_root = np.sqrt(diagonal) + 0.25, np.sqrt(energy) + 0.25
    if np.any(pairs > 1.03 * root[..., _PAIR_ROWS] * root[..., _PAIR_COLUMNS] + 1):
        raise MomentsError("second moments are inconsistent")
    if np.any(np.abs(moment) > 1.03 * root[..., classes, :] * energy_root[..., None] + 1):
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
    for payload in batch:
        if len(payload) != SNAPSHOT_BYTES:
            raise MomentsError(f"a snapshot has {SNAPSHOT_BYTES} bytes, not {len(payload)}")
        if payload[0] != SNAPSHOT_VERSION:
            raise MomentsError(f"snapshot version {payload[0]} is unknown")
    data = np.frombuffer(b"".join(batch), np.uint8).reshape(len(batch), SNAPSHOT_BYTES)
    bits = np.unpackbits(data, axis=1, bitorder="little")[:, : sum(WIDTHS)]
    starts = np.concatenate([[0], np.cumsum(WIDTHS)[:-1]])
    weights = np.int64(1) << (np.arange(sum(WIDTHS)) - np.repeat(starts, WIDTHS))
    codes = np.add.reduceat(bits * weights, starts, axis=1)

    parts = [1, CLASSES, CLASSES * (PHI - 1), TARGETS, PAIRS] + (CLASSES - 1) * [1, PAIRS] + [TARGETS * PHI]
    _, count, of_phi, of_target, day, *longer, of_moment = np.split(codes, np.cumsum(parts)[:-1], axis=1)
    roots = np.empty((len(batch), CLASSES, PHI), np.int64)
    roots[:, :, :-1] = _roots_of(of_phi).reshape(-1, CLASSES, PHI - 1)
    roots[:, :, -1] = _count_roots()[count]
    energy_roots = _roots_of(of_target)
    ratios = np.stack(
        [day]
        + [
            np.clip(day + (_extended(excess, EXCESS_BITS) << shift), 0, MOST_RATIO)
            for shift, excess in zip(longer[::2], longer[1::2], strict=True)
        ],
        axis=1,
    )
    products = _product(roots[:, :, _PAIR_ROWS], roots[:, :, _PAIR_COLUMNS], _PAIR_COLUMNS == PHI - 1)
    pairs = (ratios * products + 8 * RATIO_ONE) // (16 * RATIO_ONE)
    diagonal = np.concatenate([roots[:, :, :-1] ** 2 + 8 >> 4, count[:, :, None]], axis=2)
    moments = _extended(of_moment, RATIO_BITS).reshape(-1, TARGETS, PHI)
    bounds = _product(roots[:, np.array(TARGET_CLASS)], energy_roots[:, :, None], np.arange(PHI) == PHI - 1)
    moment = np.sign(moments) * ((np.abs(moments) * bounds + 8 * MOMENT_ONE) // (16 * MOMENT_ONE))
    energy = energy_roots**2 + 8 >> 4
    _refuse_impossible(pairs, diagonal, moment, energy, count)

    gram = np.empty((CLASSES, PHI, PHI), np.int64)
    gram[:, _PAIR_ROWS, _PAIR_COLUMNS] = gram[:, _PAIR_COLUMNS, _PAIR_ROWS] = pairs.sum(axis=0)
    gram[:, range(PHI), range(PHI)] = diagonal.sum(axis=0)
    return Sums(gram, moment.sum(axis=0), energy.sum(axis=0), count.sum(axis=0))


def _roots_of(codes: Int64) -> Int64:
    """Roots in quarters, from their codes."""
    shift: Int64 = np.maximum((codes >> 6) - 1, 0)
    roots: Int64 = codes - (shift << 6) << shift
    return roots


@cache
def _count_roots() -> Int64:
    """Roots of all counts, in 1/64."""
    return np.array([_root(count, 6) for count in range(MAX_WINDOWS + 1)], np.int64)


def _extended(codes: Int64, width: int) -> Int64:
    """Numbers from their two's complement."""
    return codes - (codes >> (width - 1) << width)


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
        "VERSION_BITS": VERSION_BITS,
        "COUNT_BITS": COUNT_BITS,
        "ROOT_BITS": ROOT_BITS,
        "RATIO_BITS": RATIO_BITS,
        "SHIFT_BITS": SHIFT_BITS,
        "EXCESS_BITS": EXCESS_BITS,
        "PAIRS": PAIRS,
        "UPTAKE_LIMIT": TARGET_LIMITS[0],
        "DRYING_LIMIT": TARGET_LIMITS[1],
    }
    classes = ", ".join(str(k) for k in TARGET_CLASS)
    lines = "".join(f"#define NORIA_{name} {value}\n" for name, value in names.items())
    return lines + f"#define NORIA_TARGET_CLASS {classes}\n"
