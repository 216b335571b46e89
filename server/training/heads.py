"""Heads for a trained backbone, from integer sums, scaled by what travels between simulators.

The head is solved in closed form on the quantised activations, the same arithmetic a federation uses. Then
every target is scaled by a factor between 0 and 1: a head learned in one world is tried on held-out seasons
of the other, both ways round, and the worse of the two best factors counts. A residual that does not travel
between two simulators has no claim on real fields, and a factor of 0 is exactly the physics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server.training.samples import total
from shared_models.moments import CLASSES, PHI, TARGET_CLASS, TARGETS, Sums

Float = npt.NDArray[np.float64]

RIDGE_WINDOWS = 100.0
"""Weight of the zero head, in windows of the population."""
BOOTSTRAPS = 1000
DOUBT = 0.05
"""A target whose gain is not above zero in all but this share of resampled seasons gets no head."""


def population_gram(sums: Sums) -> Float:
    """Mean ``φφᵀ`` of one window per class (3, 9, 9): what one window of the population weighs."""
    count = np.maximum(sums.count, 1).astype(np.float64)
    gram: Float = sums.gram / count[:, None, None]
    return gram


def solve(sums: Sums, metric: Float) -> Float:
    """The ridge heads of all targets (4, 9), in output steps per φ."""
    weights = np.zeros((TARGETS, PHI))
    for target in range(TARGETS):
        window_class = TARGET_CLASS[target]
        gram = sums.gram[window_class].astype(np.float64)
        prior = metric[window_class]
        system = gram + RIDGE_WINDOWS * (0.5 * prior + 0.5 * np.diag(np.diag(prior))) + 1e-6 * np.eye(PHI)
        weights[target] = np.linalg.solve(system, sums.moment[target].astype(np.float64))
    return weights


def best_scale(sums: Sums, target: int, weights: Float) -> float:
    """The factor in 0 … 1 on ``weights`` with the least squared error on ``sums``."""
    gram = sums.gram[TARGET_CLASS[target]].astype(np.float64)
    power = float(weights @ gram @ weights)
    if power <= 0:
        return 0.0
    return float(np.clip(weights @ sums.moment[target] / power, 0.0, 1.0))


def transfer_scales(training: Mapping[int, Sums], held_out: Mapping[int, Sums], metric: Float) -> Float:
    """Per target the factor that survives the worse of all crossings from one world to another (4,).

    Args:
        training: sums of the training seasons, by world.
        held_out: sums of other seasons, by world.
        metric: the population's, see :func:`population_gram`.
    """
    scales = np.ones(TARGETS)
    for source, learned in training.items():
        weights = solve(learned, metric)
        for destination, judge in held_out.items():
            if source == destination and len(training) > 1:
                continue
            for target in range(TARGETS):
                scales[target] = min(scales[target], best_scale(judge, target, weights[target]))
    return scales


@dataclass(frozen=True, eq=False)
class Kept:
    """Heads after the scaling, and by how much."""

    weights: Float
    """(4, 9), in output steps per φ."""
    scales: Float
    """(4,): how much of each closed-form head is left."""
    metric: Float
    """(3, 9, 9): what one window of the population weighs."""


def keep_what_travels(training: Mapping[int, Sums], held_out: Mapping[int, list[Sums]], seed: int) -> Kept:
    """The heads of ``training`` scaled by what travels, and without those whose gain is in doubt.

    Args:
        training: sums of the training seasons, by world.
        held_out: sums of each of the other seasons, by world.
        seed: of the resampling.
    """
    everything = total(list(training.values()))
    metric = population_gram(everything)
    scales = transfer_scales(training, {world: total(parts) for world, parts in held_out.items()}, metric)
    weights = solve(everything, metric)
    seasons = [part for parts in held_out.values() for part in parts]
    scales[doubtful(seasons, weights * scales[:, None], seed)] = 0.0
    return Kept(weights * scales[:, None], scales, metric)


def doubtful(seasons: Sequence[Sums], weights: Float, seed: int) -> npt.NDArray[np.bool_]:
    """Targets whose gain over the physics is not certain when whole seasons are resampled (4,)."""
    rng = np.random.default_rng([0x6264, seed])
    result = np.ones(TARGETS, np.bool_)
    if not seasons:
        return result
    picks = rng.integers(0, len(seasons), (BOOTSTRAPS, len(seasons)))
    for target in range(TARGETS):
        gains = np.array([float(season.energy[target]) - season.sse(target, weights[target]) for season in seasons])
        result[target] = np.quantile(gains[picks].sum(axis=1), DOUBT) <= 0
    return result


def skill(parts: Sequence[Sums], weights: Float) -> dict[str, list[float | None]]:
    """Squared error over the physics' squared error per target, and its root over windows.

    A ratio below 1 is better than the physics; None where there is no window.
    """
    sums = total(parts)
    ratios: list[float | None] = []
    physics: list[float | None] = []
    for target in range(TARGETS):
        windows, energy = sums.windows(target), float(sums.energy[target])
        ratios.append(sums.sse(target, weights[target]) / energy if energy > 0 else None)
        physics.append(float(np.sqrt(energy / windows)) if windows else None)
    return {"squared_error_over_physics": ratios, "physics_rmse_steps": physics}


def skill_interval(parts: Sequence[Sums], weights: Float, seed: int) -> list[tuple[float, float] | None]:
    """95 % bootstrap interval of :func:`skill`'s ratio per target, whole seasons resampled; None without a window."""
    if not parts:
        return [None] * TARGETS
    rng = np.random.default_rng([0x736B, seed])
    picks = rng.integers(0, len(parts), (BOOTSTRAPS, len(parts)))
    intervals: list[tuple[float, float] | None] = []
    for target in range(TARGETS):
        errors = np.array([part.sse(target, weights[target]) for part in parts])[picks].sum(axis=1)
        energies = np.array([float(part.energy[target]) for part in parts])[picks].sum(axis=1)
        if not (energies > 0).any():
            intervals.append(None)
            continue
        low, high = np.quantile(errors[energies > 0] / energies[energies > 0], [0.025, 0.975])
        intervals.append((float(low), float(high)))
    return intervals


def class_counts(sums: Sums) -> list[int]:
    """Windows per class."""
    return [int(sums.count[window_class]) for window_class in range(CLASSES)]
