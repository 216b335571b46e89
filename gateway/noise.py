"""Noise for sums: each node's share is clipped, and the farm's sums get discrete Gaussian noise.

Neighbouring farms differ in one node, with all it ever sent for the backbone. What a node adds is the vector v of the
upper triangles of A, of b and of Σy², each entry weighted by what a *reference window* (every activation 32, the
constant 1, the residual of uptake 128, those of the dry-down 32: powers of two near what fields show) would add to it:

    ‖v‖² = U² (Σ_k Σ_{i ≤ j} (A_kij / f_i f_j)² + Σ_t Σ_i (b_ti / r_t f_i)² + Σ_t (Σy²_t / r_t²)²),  U = 2¹⁴

with f for φ and r for y. A reference window in each class has ‖v‖ = U √175. A node whose
‖v‖ exceeds C, that of ``clip_windows`` reference windows, is scaled down as a whole: fewer windows of the same kind,
still consistent. It counts as one contributor, weighted C/8. So a node more or less moves everything by at most
Δ = C √(1 + 1/64), and another *season* of a node, both clipped vectors lying in the ball of C, by at most 2C in place
of C. These are sums and not averages: the noise is the same however many nodes add to them.

Entry *e* with weight w_e gets discrete Gaussian noise of variance σ² / w_e², A kept symmetric, which costs
ρ = Δ² / 2σ² (:mod:`gateway.accountant`). Where masks hide each site's part and at least *h* members of a cohort are
honest, each adds σ² / h: a sum of h discrete Gaussians is not one, but with variances of at least 9 differs from it by
τ ≤ 10 h e^(−9π²) < 10⁻³⁴ in log-density per entry (P. Kairouz, Z. Liu, T. Steinke, *The Distributed Discrete Gaussian
Mechanism for Federated Learning with Secure Aggregation*, ICML 2021), far below the rounding of ρ.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from gateway.accountant import rho_of
from gateway.discrete_gaussian import RandBelow, sample
from shared_models.moments import CLASSES, PHI, TARGETS, TRIANGLE, Sums

UNIT = 1 << 14
"""Weighted size of each entry of a reference window."""
ENTRIES = CLASSES * TRIANGLE + TARGETS * PHI + TARGETS
CONTRIBUTOR_SHARE = 8
"""A contributor weighs C over this."""
LEAST_VARIANCE = 9
"""Of the noise on any entry of any one site: below, a sum of discrete Gaussians is not nearly one."""

_ROWS, _COLUMNS = np.triu_indices(PHI)
_SIZES = [32] * (PHI - 1) + [1]
_RESIDUALS = (128, 32, 32, 32)
WEIGHTS: tuple[int, ...] = (
    *(UNIT // (_SIZES[i] * _SIZES[j]) for _ in range(CLASSES) for i, j in zip(_ROWS, _COLUMNS, strict=True)),
    *(UNIT // (residual * size) for residual in _RESIDUALS for size in _SIZES),
    *(UNIT // residual**2 for residual in _RESIDUALS),
)
"""w_e, in the order of :func:`entries`."""


@dataclass(frozen=True)
class Noise:
    """How much noise an answer gets.

    Args:
        clip_windows: Reference windows up to which a node counts fully.
        rho: What an answer may cost.
        honest_members: h, of a cohort; 1 for sums sent in the clear.
    """

    clip_windows: int
    rho: float
    honest_members: int = 1

    @property
    def clip_squared(self) -> int:
        """C²."""
        return self.clip_windows**2 * UNIT**2 * ENTRIES

    @property
    def variance(self) -> int:
        """σ², rounded up, in weighted units; the same for every site with these settings."""
        sensitivity = self.clip_squared * Fraction(CONTRIBUTOR_SHARE**2 + 1, CONTRIBUTOR_SHARE**2)
        return math.ceil(sensitivity / (2 * Fraction(self.rho)))

    @property
    def share(self) -> int:
        """σ² / h, rounded up: what this site adds, in weighted units.

        Raises:
            ValueError: so little that the noise of several sites would not add up to a Gaussian.
        """
        share = -(-self.variance // self.honest_members)
        if share < LEAST_VARIANCE * max(WEIGHTS) ** 2:
            raise ValueError("the budget is so large, or clip_windows so small, that the noise would be too coarse")
        return share

    def apply(
        self, nodes: Iterable[Sums], contributors: int, randbelow: RandBelow = secrets.randbelow
    ) -> tuple[Sums, int]:
        """The farm's clipped sums and its number of contributors, both with noise.

        Args:
            nodes: What each node added.
            contributors: How many of them have a window.
            randbelow: Where randomness comes from.
        """
        share = self.share
        total = [0] * ENTRIES
        for node in nodes:
            total = [a + b for a, b in zip(total, clipped(node, self.clip_squared), strict=True)]
        noisy = [entry + sample(Fraction(share, w**2), randbelow) for entry, w in zip(total, WEIGHTS, strict=True)]
        weight = Fraction(self.clip_squared, CONTRIBUTOR_SHARE**2)
        return from_entries(noisy), contributors + sample(share / weight, randbelow)


def per_answer(epsilon: float, delta: float, answers: int) -> float:
    """What each of ``answers`` equal answers may cost so that all of them are (ε, δ)-differentially private."""
    return rho_of(epsilon, delta) / answers


def entries(sums: Sums) -> list[int]:
    """What is summed, each number once: upper triangles of A by class, b by target, Σy²."""
    parts = [sums.gram[:, _ROWS, _COLUMNS].ravel(), sums.moment.ravel(), sums.energy]
    return [int(number) for part in parts for number in part]


def from_entries(numbers: list[int]) -> Sums:
    """The inverse of :func:`entries`; the counts are those inside A."""
    array = np.array(numbers, np.int64)
    gram = np.zeros((CLASSES, PHI, PHI), np.int64)
    triangles = array[: CLASSES * TRIANGLE].reshape(CLASSES, TRIANGLE)
    gram[:, _ROWS, _COLUMNS] = triangles
    gram[:, _COLUMNS, _ROWS] = triangles
    moment = array[CLASSES * TRIANGLE : -TARGETS].reshape(TARGETS, PHI).copy()
    return Sums(gram, moment, array[-TARGETS:].copy(), gram[:, -1, -1].copy())


def weighted_square(numbers: Iterable[int]) -> int:
    """‖v‖², exactly."""
    return sum((weight * number) ** 2 for weight, number in zip(WEIGHTS, numbers, strict=True))


def clipped(node: Sums, clip_squared: int) -> list[int]:
    """A node's entries, scaled down so that ‖v‖² ≤ C²; rounded toward zero, so that rounding cannot lift them over."""
    numbers = entries(node)
    square = weighted_square(numbers)
    if square <= clip_squared:
        return numbers
    # ⌊√(C²·4^60 / ‖v‖²)⌋ / 2^60 ≤ C / ‖v‖, in integers.
    factor = math.isqrt((clip_squared << 120) // square)
    return [number * factor >> 60 if number >= 0 else -(-number * factor >> 60) for number in numbers]
