r"""Heads in closed form: a ridge toward the head there is.

The residual a head should predict is linear in the activations, so sums A = Σφφᵀ, b = Σφy, Σy² say everything about
every head: its squared error is Σy² − 2wᵀb + wᵀAw. The update from a prior head w₀ is

    w = argmin SSE(w) + λ (w − w₀)ᵀ M (w − w₀)   ⇒   w = w₀ + (A + λM)⁻¹ (b − A w₀),

with a population as metric: M is half the mean Gram matrix of one window, half its diagonal. The first half makes λ a
number of windows (the prior weighs as much as λ windows whose data agree with w₀, whatever the scale of an
activation); the second keeps combinations that nobody ever excited from running away.

A itself is trusted only to the rounding of the snapshots it is made of: ρ·diag(A) is added to it, ρ being twice as
much as its smallest eigenvalue, normalised to a unit diagonal, lies below zero, so that the system is positive
definite.

The same step leads from the release to a fleet, from a fleet to those who are alike, from them to a site
(:mod:`server.hierarchy`), and from a site to a single field, whose snapshot never leaves the farm (:func:`personal`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from shared_models.moments import TARGET_CLASS, TARGETS, Sums

Weights = NDArray[np.float64]

LEAST_ROUNDING = 0.004
"""ρ where no eigenvalue is negative: sums of many snapshots are rounded, too."""


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


PERSONAL = Choice(Subspace.FULL, 100.0)
"""A site's head weighs as much as a season of a field's own windows."""


def prior_metric(gram: Weights, windows: Weights | float) -> Weights:
    """M: how much one window of a population cares about a change of the weights.

    Args:
        gram: (…, 9, 9) summed over windows.
        windows: (…) how many.
    """
    mean = gram / np.maximum(np.asarray(windows, np.float64), 1.0)[..., None, None]
    diagonal = np.diagonal(mean, axis1=-2, axis2=-1)
    floor = np.maximum(diagonal.max(axis=-1, initial=0.0, keepdims=True) * 1e-9, 1e-12)
    metric: Weights = 0.5 * mean + 0.5 * np.maximum(diagonal, floor)[..., None, :] * np.eye(gram.shape[-1])
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


def rounding(gram: Weights) -> Weights:
    """ρ·diag(A), for (…, 9, 9)."""
    diagonal = np.diagonal(gram, axis1=-2, axis2=-1)
    scale = 1.0 / np.sqrt(np.maximum(diagonal, 1.0))
    smallest = np.linalg.eigvalsh(gram * scale[..., :, None] * scale[..., None, :])[..., 0]
    share = np.maximum(LEAST_ROUNDING, -2 * smallest)
    added: Weights = (share[..., None] * diagonal)[..., None, :] * np.eye(gram.shape[-1])
    return added


def ridge(
    gram: Weights,
    moment: Weights,
    windows: Weights | float,
    prior: Weights,
    choice: Choice,
    metric: Weights | None = None,
) -> Weights:
    """The heads of one target for any number of sums at once.

    Args:
        gram: A, (…, 9, 9).
        moment: b, (…, 9).
        windows: How many stand behind A, (…).
        prior: w₀, (9,).
        choice: Strength and subspace.
        metric: M, (9, 9) or (…, 9, 9); that of A itself unless given.

    Returns:
        (…, 9) in the units of :class:`shared_models.moments.Sums`.
    """
    gradient = moment - gram @ prior
    basis = directions(prior, choice.subspace)
    measure = prior_metric(gram, windows) if metric is None else metric
    system = basis.T @ (gram + rounding(gram) + choice.strength_windows * measure) @ basis
    # Scaling by the diagonal keeps the solution exact to rounding when activations differ by orders of magnitude.
    scale = 1.0 / np.sqrt(np.diagonal(system, axis1=-2, axis2=-1))
    scaled = system * (scale[..., :, None] * scale[..., None, :])
    step = scale * np.linalg.solve(scaled, (scale * (gradient @ basis))[..., None])[..., 0]
    weights: Weights = prior + step @ basis.T
    return weights


def solve(sums: Sums, target: int, prior: Weights, choice: Choice, metric: Weights | None = None) -> Weights:
    """The head of one target that fits ``sums``, shrunk toward ``prior``.

    Args:
        sums: Statistics to learn from.
        target: Row of ``Sums.moment``.
        prior: w₀, 9 weights.
        choice: Strength and subspace.
        metric: M (9, 9); that of the sums themselves unless given.

    Returns:
        9 weights in the units of ``Sums``.
    """
    window_class = TARGET_CLASS[target]
    gram, moment = sums.gram[window_class].astype(np.float64), sums.moment[target].astype(np.float64)
    return ridge(gram, moment, float(sums.count[window_class]), prior, choice, metric)


def personal(own: Sums, site: Sums, head: Weights, choice: Choice = PERSONAL) -> Weights:
    """A field's own head, for the gateway: its snapshot's say, shrunk toward its site's head.

    Args:
        own: The field's sums; they stay on the farm.
        site: The farm's sums, whose windows say what a change of a weight means.
        head: The site's head (4, 9).
        choice: How much the site's head weighs.

    Returns:
        (4, 9); a row without windows is the site's. The first row moves water and is the site's always.
    """
    rows = head.copy()
    for target in range(1, TARGETS):
        window_class = TARGET_CLASS[target]
        if own.windows(target):
            metric = prior_metric(site.gram[window_class].astype(np.float64), float(site.count[window_class]))
            rows[target] = solve(own, target, head[target], choice, metric)
    return rows
