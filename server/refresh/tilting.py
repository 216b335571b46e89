r"""Weights of simulated windows under which their moments are the fleet's, as nearly as is sensible.

Of all weights p that do so, those nearest to equal ones (maximum entropy). With fₘ(i) what window i contributes to
moment m, less the fleet's mean, in standard deviations, and σₘ how far that mean may be missed,

    min KL(p ‖ q) + Σₘ E_p[fₘ]² / 2σₘ²   ⇔   min_λ log Σ qᵢ exp(λ·fᵢ) + Σₘ σₘ² λₘ² / 2,

an exponential tilting, pᵢ ∝ qᵢ exp(λ·fᵢ): smooth, convex and of as many unknowns as there are moments, so Newton's
method with halved steps finds it. A mean over a class is a linear condition because windows outside the class
contribute nothing. Every simulator is tilted by itself, so that both go on having the same say.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.refresh.fleet import Moment
from server.training.samples import Samples
from shared_models.network import ModelImage

Floats = NDArray[np.float64]
SLACK = 0.1
"""By how much of its standard deviation over simulated windows a mean may be missed even where sites agree on it: what
snapshots round away, and what a simulator will never know."""
ITERATIONS = 100
CONVERGED = 1e-9
"""Newton's decrement at which the dual is at its minimum."""
LEAST_STEP = 1e-6


def weights_of(contributed: Floats, multipliers: Floats) -> Floats:
    """Weights (n,), adding up to 1, of windows that contribute so (n, m)."""
    exponent = contributed @ multipliers
    raw = np.exp(exponent - exponent.max(initial=0.0))
    weights: Floats = raw / raw.sum()
    return weights


def missed(contributed: Floats, weights: Floats) -> float:
    """By how much weighted means miss the fleet's, in standard deviations; root mean square over moments."""
    present = np.maximum(weights @ (contributed != 0), 1e-12)
    return float(np.sqrt(np.mean((weights @ contributed / present) ** 2)))


def contributions(samples: Samples, image: ModelImage, moments: Sequence[Moment], scales: Floats) -> Floats:
    """(n, m): what each window contributes to each moment, less the fleet's mean, in ``scales``."""
    values, masks = _values(samples, image, moments)
    means = np.array([moment.mean for moment in moments])
    result: Floats = masks * (values - means) / scales
    return result


def spread(samples: Samples, image: ModelImage, moments: Sequence[Moment]) -> Floats:
    """Each moment's standard deviation over the windows of its class (m,), 1 where there is none."""
    values, masks = _values(samples, image, moments)
    count = np.maximum(masks.sum(axis=0), 1)
    mean = (values * masks).sum(axis=0) / count
    deviation = np.sqrt((masks * (values - mean) ** 2).sum(axis=0) / count)
    result: Floats = np.where(deviation > 0, deviation, 1.0)
    return result


def tilt(contributed: Floats, slack: Floats) -> Floats:
    """The multipliers λ (m,) that minimise the dual.

    Args:
        contributed: (n, m), see :func:`contributions`.
        slack: σ (m,), in the same unit; positive.
    """
    multipliers = np.zeros(contributed.shape[1])
    ridge = np.asarray(slack, np.float64) ** 2
    value = _dual(contributed, multipliers, ridge)
    for _ in range(ITERATIONS):
        weights = weights_of(contributed, multipliers)
        mean = weights @ contributed
        gradient = mean + ridge * multipliers
        hessian = (contributed * weights[:, None]).T @ contributed - np.outer(mean, mean) + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        if gradient @ step < CONVERGED:
            break
        length = 1.0
        while length > LEAST_STEP:
            tried = multipliers - length * step
            if (lower := _dual(contributed, tried, ridge)) < value:
                multipliers, value = tried, lower
                break
            length /= 2
        else:
            break
    return multipliers


def slack_of(moments: Sequence[Moment], scales: Floats) -> Floats:
    """σ (m,) in standard deviations: what sites differ by, and :data:`SLACK`."""
    variance = np.array([moment.variance for moment in moments]) / scales**2
    result: Floats = np.sqrt(variance + SLACK**2)
    return result


def effective(weights: Floats, groups: NDArray[np.generic]) -> float:
    """Kish's effective number of groups: of fields, whose windows share soil, probes and weather."""
    _, number = np.unique(groups, return_inverse=True)
    totals = np.bincount(number, weights)
    square = float(totals @ totals)
    return float(totals.sum() ** 2 / square) if square else 0.0


def _dual(contributed: Floats, multipliers: Floats, ridge: Floats) -> float:
    exponent = contributed @ multipliers
    most = float(exponent.max())
    return most + float(np.log(np.exp(exponent - most).mean())) + 0.5 * float(ridge @ multipliers**2)


def _values(samples: Samples, image: ModelImage, moments: Sequence[Moment]) -> tuple[Floats, NDArray[np.bool_]]:
    """What each moment is the mean of (n, m), and over which windows (n, m)."""
    phi = image.moments_input(image.forward(samples.features)[0]).astype(np.float64)
    targets = samples.targets.astype(np.float64)
    values, masks = np.empty((len(samples), len(moments))), np.empty((len(samples), len(moments)), np.bool_)
    for place, moment in enumerate(moments):
        column = targets[:, moment.target] if moment.target is not None else phi[:, moment.unit or 0]
        values[:, place] = column**2 if moment.squared else column
        # Both targets of 24 h count the same windows; the first target of a class stands for it.
        masks[:, place] = samples.mask[:, _FIRST_OF_CLASS[moment.window_class]]
    return values, masks


_FIRST_OF_CLASS = (1, 2, 3)
