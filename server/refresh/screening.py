"""Where to begin: units that would tell something the running ones do not, found by looking at each by itself.

A new unit of the first layer sees one feature from a threshold on, in one direction. It is tried as an addition to a
unit below the head, which every target then hears through the weight it has for that unit, and in place of one. What
counts is the worse simulator. So the retraining starts with a few numbers changed and not with drawn weights, which a
small update could not hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from server.refresh.grid import FIRST, FIRST_BIAS, SECOND, Floats, Integers, place, split
from server.refresh.lessons import Lessons, Objective
from shared_models.network import ACTIVATIONS, INPUTS

QUANTILES = (0.2, 0.4, 0.6, 0.8)
SLOPES = (32, 127)
"""Weights of a new unit: one step of the unit is one of the feature on the factory's grid, or a quarter of one."""
ENTIRE = 128
"""An offset that lifts a whole feature above ReLU's zero, in its steps."""
LOOKED_AT = 6
"""The most promising units that are tried in every place."""
NARROW = 48
"""Steps of a feature's range below which a unit gets the steeper slope."""
LEAST_WEIGHT = 3


@dataclass(frozen=True)
class Hinge:
    """A unit that sees one feature."""

    feature: int
    slope: int
    bias: int


def begin(objective: Objective, units: int, least_gain: float) -> Integers:
    """The running row with up to ``units`` new units, each worth ``least_gain`` of the squared error.

    Args:
        objective: What counts.
        units: At most.
        least_gain: Below it nothing is added.
    """
    numbers = objective.grid.numbers.copy()
    hinges = list(_hinges(objective.parts, objective.grid.base.first.scale))
    best = 1.0
    for unit in objective.grid.spare_units[:units]:
        found = min(
            ((objective.solve(tried)[1], tuple(tried)) for tried in _tries(objective, numbers, unit, hinges)),
            default=(best, ()),
        )
        if best - found[0] < least_gain:
            break
        best, numbers = found[0], np.array(found[1], np.int64)
    return numbers


def _hinges(parts: Sequence[Lessons], scale: float) -> Iterator[Hinge]:
    """Every unit that is looked at; thresholds are quantiles of the windows'."""
    steps = np.concatenate([part.features for part in parts])
    chosen = np.concatenate([part.weights[:, 0] for part in parts])
    for feature in range(INPUTS):
        column = steps[:, feature]
        order = np.argsort(column, kind="stable")
        share = np.cumsum(chosen[order]) / chosen.sum()
        marks = column[order][np.searchsorted(share, (0.005, *QUANTILES, 0.995)).clip(0, len(order) - 1)]
        width = marks[-1] - marks[0]
        if width <= 0:
            continue
        slope = SLOPES[0] if width >= NARROW else SLOPES[1]
        for sign in (1, -1):
            for mark in np.unique(marks[1:-1]):
                yield Hinge(feature, sign * slope, int(-sign * slope * mark))
        yield Hinge(feature, slope, round(ENTIRE / scale) if slope == SLOPES[0] else int(-slope * marks[0]))


def _tries(objective: Objective, numbers: Integers, unit: int, hinges: list[Hinge]) -> Iterator[Integers]:
    """The most promising hinges as ``unit``, in every place."""
    grid = objective.grid
    heads = objective.solve(numbers)[0][list(objective.targets)]
    phis = [grid.phi(numbers, part.features) for part in objective.parts]
    residuals = [part.labels - phi @ heads.T for part, phi in zip(objective.parts, phis, strict=True)]
    order = np.argsort(-_promises(objective, phis, residuals, hinges), kind="stable")
    ranked = [hinges[number] for number in order]
    free = split(grid.changeable)[2].all(axis=1)
    for hinge in ranked[:LOOKED_AT]:
        weights = _weights(objective, residuals, heads, hinge)
        for below in np.flatnonzero(free):
            seen = numbers.copy()
            split(seen)[FIRST][unit] = 0
            seen[place(FIRST, unit, hinge.feature)] = hinge.slope
            seen[place(FIRST_BIAS, unit)] = hinge.bias
            if abs(weights[below]) >= LEAST_WEIGHT:
                added = seen.copy()
                added[place(SECOND, int(below), unit)] = weights[below]
                yield added
            replaced = seen.copy()
            split(replaced)[2][below] = 0
            split(replaced)[3][below] = 0
            replaced[place(SECOND, int(below), unit)] = 127
            yield replaced


def _response(objective: Objective, part: Lessons, hinge: Hinge) -> Floats:
    scale = objective.grid.base.first.scale
    response: Floats = np.clip(
        np.floor((part.features[:, hinge.feature] * hinge.slope + hinge.bias) * scale + 0.5), 0, 255
    )
    return response


def _promises(objective: Objective, phis: list[Floats], residuals: list[Floats], hinges: list[Hinge]) -> Floats:
    """Per hinge the share of the squared error that weights of its own for every target would take off, (hinges,).

    The worse simulator counts. A hinge tells only what the running units do not: its part in their span is taken out.
    """
    crossed, squared = [], []
    for part, phi, residual in zip(objective.parts, phis, residuals, strict=True):
        responses = np.stack([_response(objective, part, hinge) for hinge in hinges], axis=1)
        cross, square = np.empty((2, len(part.running), len(hinges)))
        for target, column in enumerate(part.weights.T):
            weighed = phi * column[:, None]
            gram, shared = weighed.T @ phi, weighed.T @ responses
            inside = np.linalg.solve(gram + 1e-4 * np.diag(np.maximum(np.diag(gram), 1e-9)), shared)
            off = column * residual[:, target]
            cross[target] = off @ responses - (off @ phi) @ inside
            square[target] = column @ responses**2 - (inside * (2 * shared - gram @ inside)).sum(axis=0)
        crossed.append(cross / part.running[:, None])
        squared.append(np.maximum(square, 1e-9) / part.running[:, None])
    weight = np.sum(crossed, axis=0) / np.sum(squared, axis=0)
    gains = [
        (2 * weight * cross - weight**2 * square).mean(axis=0) for cross, square in zip(crossed, squared, strict=True)
    ]
    worst: Floats = np.min(gains, axis=0)
    return worst


def _weights(objective: Objective, residuals: list[Floats], heads: Floats, hinge: Hinge) -> Integers:
    """Per unit below the head, the weight with which the hinge added to it suits all targets best, in its integers."""
    steps = np.zeros(ACTIVATIONS)
    over = np.zeros(ACTIVATIONS)
    for part, residual in zip(objective.parts, residuals, strict=True):
        response = _response(objective, part, hinge)
        cross = ((part.weights * residual).T @ response) / part.running
        square = (part.weights.T @ response**2) / part.running
        steps += cross @ heads[:, :-1]
        over += square @ heads[:, :-1] ** 2
    wanted = steps / np.maximum(over, 1e-12) / objective.grid.base.second.scale
    return np.clip(np.rint(wanted), -127, 127).astype(np.int64)
