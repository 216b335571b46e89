"""What answers with noise cost, in zero-concentrated differential privacy (zCDP).

An answer whose weighted sensitivity is Δ and whose noise has variance σ² costs ρ = Δ² / 2σ², and costs add up over
answers, however they depend on one another. ρ-zCDP implies (ε, δ)-differential privacy for every ε with

    δ = inf_{α > 1} exp((α − 1)(αρ − ε)) / (α − 1) · (1 − 1/α)^α

(M. Bun, T. Steinke, *Concentrated Differential Privacy*, TCC 2016, for ρ and its addition; C. Canonne, G. Kamath,
T. Steinke, *The Discrete Gaussian for Differential Privacy*, NeurIPS 2020, Corollary 13, for the conversion).
"""

from __future__ import annotations

import math

HALVINGS = 100
"""Of an interval; more change nothing in double precision."""


def delta_of(rho: float, epsilon: float) -> float:
    """The least δ with which ``rho``-zCDP is known to be (``epsilon``, δ)-differentially private."""
    if rho <= 0:
        return 0.0
    low, high = 1.0 + 1e-9, (epsilon + 1) / (2 * rho) + 2
    for _ in range(HALVINGS):
        alpha = (low + high) / 2
        # The logarithm of the bound falls, then rises, in α; this is its derivative.
        if (2 * alpha - 1) * rho - epsilon + math.log1p(-1 / alpha) < 0:
            low = alpha
        else:
            high = alpha
    alpha = (low + high) / 2
    exponent = (alpha - 1) * (alpha * rho - epsilon) + alpha * math.log1p(-1 / alpha) - math.log(alpha - 1)
    return min(1.0, math.exp(exponent)) if exponent < 0 else 1.0


def epsilon_of(rho: float, delta: float) -> float:
    """The least ε for which ``rho``-zCDP is known to be (ε, ``delta``)-differentially private."""
    if rho <= 0:
        return 0.0
    low, high = 0.0, rho + 2 * math.sqrt(rho * math.log(1 / delta))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if delta_of(rho, middle) <= delta else (middle, high)
    return high


def rho_of(epsilon: float, delta: float) -> float:
    """The largest ρ known to be within (``epsilon``, ``delta``)-differential privacy."""
    low, high = 0.0, 1.0
    while delta_of(high, epsilon) <= delta:
        high *= 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_of(middle, epsilon) <= delta else (low, middle)
    return low
