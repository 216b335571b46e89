r"""Heads from sums, in closed form.

The residual a head should predict is linear in the activations, so a farm's sums A = Σφφᵀ, b = Σφy, Σy² say
everything about every head: its squared error there is Σy² − 2wᵀb + wᵀAw. The update is a ridge toward the
running release's head w₀,

    w = argmin SSE(w) + λ (w − w₀)ᵀ M (w − w₀)   ⇒   w = w₀ + (A + λM)⁻¹ (b − A w₀),

with the population as metric: M is half the mean Gram matrix of one window, half its diagonal. The first half
makes λ a number of windows (the prior weighs as much as λ windows whose data agree with w₀, whatever the scale of
an activation); the second keeps combinations that no site ever excited from running away.

A itself is trusted only to the rounding of the snapshots it is made of: ρ·diag(A) is added to it, ρ being twice as
much as its smallest eigenvalue, normalised to a unit diagonal, lies below zero, so that the system is positive
definite.

λ and the subspace (only the constant; the constant and the size of the running row; everything) are chosen by
leaving one site out, from sums alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from server.strategy import total_of
from shared_models.moments import TARGET_CLASS, Sums

Weights = NDArray[np.float64]


class Subspace(StrEnum):
    """Which weights may move."""

    LEVEL = "level"
    """Only the constant: a mean error shared by all sites."""
    SCALE = "scale"
    """The constant, and all other weights by one common factor: right direction, wrong size."""
    FULL = "full"


@dataclass(frozen=True)
class Choice:
    """How far the data may move a head from the prior."""

    subspace: Subspace
    strength_windows: float
    """λ: what the prior weighs, in windows."""


LEAST_ROUNDING = 0.004
"""ρ where no eigenvalue is negative: sums of many snapshots are rounded, too."""
STRENGTHS_WINDOWS = (10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0)
CHOICES = tuple(Choice(subspace, strength) for subspace in Subspace for strength in STRENGTHS_WINDOWS)


def prior_metric(gram: Weights, windows: int) -> Weights:
    """M: how much one window of the population cares about a change of the weights."""
    mean = gram / max(windows, 1)
    diagonal = np.diag(mean)
    floor = max(float(diagonal.max(initial=0.0)) * 1e-9, 1e-12)
    metric: Weights = 0.5 * mean + 0.5 * np.diag(np.maximum(diagonal, floor))
    return metric


def directions(prior: Weights, subspace: Subspace) -> Weights:
    """A basis, in columns, of the changes a subspace allows."""
    everything: Weights = np.eye(len(prior))
    constant = everything[:, -1:]
    if subspace is Subspace.FULL:
        return everything
    row = prior * (1 - everything[-1])
    length = float(np.linalg.norm(row))
    if subspace is Subspace.LEVEL or length == 0:
        return constant
    both: Weights = np.column_stack([row / length, constant])
    return both


def rounding(gram: Weights) -> float:
    """ρ: what is added to the diagonal of A, as a share of it."""
    scale = 1 / np.sqrt(np.maximum(np.diag(gram), 1.0))
    return max(LEAST_ROUNDING, -2 * float(np.linalg.eigvalsh(gram * np.outer(scale, scale))[0]))


def solve(sums: Sums, target: int, prior: Weights, choice: Choice) -> Weights:
    """The head of one target that fits ``sums``, shrunk toward ``prior``.

    Args:
        sums: Statistics of the sites to learn from.
        target: Row of ``Sums.moment``.
        prior: w₀, 9 weights.
        choice: Strength and subspace.

    Returns:
        9 weights in the units of ``Sums``.
    """
    window_class = TARGET_CLASS[target]
    gram = sums.gram[window_class].astype(np.float64)
    gradient = sums.moment[target].astype(np.float64) - gram @ prior
    metric = prior_metric(gram, int(sums.count[window_class]))
    basis = directions(prior, choice.subspace)
    trusted = gram + rounding(gram) * np.diag(np.diag(gram))
    system = basis.T @ (trusted + choice.strength_windows * metric) @ basis
    # Scaling by the diagonal keeps the solution exact to rounding when activations differ by orders of magnitude.
    scale = 1.0 / np.sqrt(np.diag(system))
    step = scale * np.linalg.solve(system * np.outer(scale, scale), scale * (basis.T @ gradient))
    weights: Weights = prior + basis @ step
    return weights


def left_out_sse(sites: Sequence[Sums], target: int, prior: Weights, choice: Choice) -> float:
    """Σ over sites of the squared error there of a head learned from all the others."""
    total = total_of(sites)
    return sum(site.sse(target, solve(total.subtract(site), target, prior, choice)) for site in sites)


def can_choose(sites: Sequence[Sums], target: int) -> bool:
    """Whether one site with windows of the target's class can be left out and another remains."""
    return sum(site.windows(target) > 0 for site in sites) >= 2


def choose(sites: Sequence[Sums], target: int, prior: Weights) -> Choice | None:
    """The choice with the least left-out error; None where leaving the prior alone is at least as good.

    Sites without a window of the target's class say nothing and do not count; two that do are needed.
    """
    if not can_choose(sites, target):
        return None
    telling = [site for site in sites if site.windows(target)]
    stay = sum(site.sse(target, prior) for site in telling)
    best, choice = min(
        ((left_out_sse(telling, target, prior, candidate), candidate) for candidate in CHOICES),
        key=lambda scored: scored[0],
    )
    return choice if best < stay else None
