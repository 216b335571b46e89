"""Exact samples of the discrete Gaussian, from integers alone.

P(x) ∝ exp(−x² / 2σ²) over the integers. No floating-point number takes part, so the least bits of a sample tell nothing
about what it was added to. Rejection from a discrete Laplace, itself made of coins with probability exp(−γ), as
C. Canonne, G. Kamath, T. Steinke, *The Discrete Gaussian for Differential Privacy*, NeurIPS 2020, describe in their
algorithms 1 to 3. How long a sample takes depends on its value: nobody outside the gateway may time it.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from fractions import Fraction

RandBelow = Callable[[int], int]
"""A uniform integer from 0 up to, not including, its argument."""


def sample(variance: Fraction, randbelow: RandBelow = secrets.randbelow) -> int:
    """One sample; ``variance`` is σ², above 0."""
    if variance <= 0:
        raise ValueError("a discrete Gaussian needs a variance above zero")
    scale = math.isqrt(math.floor(variance)) + 1
    while True:
        candidate = _laplace(scale, randbelow)
        excess = (abs(candidate) - variance / scale) ** 2 / (2 * variance)
        if _coin_exp(excess, randbelow):
            return candidate


def _laplace(scale: int, randbelow: RandBelow) -> int:
    """P(x) ∝ exp(−|x| / scale)."""
    while True:
        remainder = randbelow(scale)
        if not _coin_exp(Fraction(remainder, scale), randbelow):
            continue
        whole = 0
        while _coin_exp(Fraction(1), randbelow):
            whole += 1
        magnitude = remainder + scale * whole
        negative = randbelow(2) == 1
        if negative and magnitude == 0:
            continue
        return -magnitude if negative else magnitude


def _coin_exp(gamma: Fraction, randbelow: RandBelow) -> bool:
    """True with probability exp(−gamma), for gamma ≥ 0."""
    while gamma > 1:
        if not _coin_exp(Fraction(1), randbelow):
            return False
        gamma -= 1
    terms = 1
    while randbelow(gamma.denominator * terms) < gamma.numerator:
        terms += 1
    return terms % 2 == 1
