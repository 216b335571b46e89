"""How two controllers are compared: curves of water against yield, paired, resampled by whole fields.

A *curve* is one controller at several settings on the same field-years. Everything here works on its means under many
weightings of the field-years at once: the first row of weights is the sample itself, every further row one bootstrap
resample. A *cluster* is a field with all its years, because two years of one field share its soil and its probes'
errors; clusters are drawn with replacement, and every statistic is computed anew in each draw, so that its interval
holds the choice of fields, the pairing and the interpolation together.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]

BOOTSTRAPS = 2000
INTERVAL = (0.025, 0.975)
LEAST_YIELD_STEP = 0.005
"""Of relative yield between neighbouring settings: where a curve is flatter than that, its slope is the noise's."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0

    def as_json(self) -> list[float | None]:
        """``[value, low, high]``; null where a figure does not exist."""
        return [round(part, 5) if np.isfinite(part) else None for part in (self.value, self.low, self.high)]


@dataclass(frozen=True, slots=True)
class Curve:
    """Means of one controller, (weightings, settings)."""

    water_mm: Float
    relative_yield: Float


def weightings(clusters: Sequence[Hashable], seed: int, bootstraps: int = BOOTSTRAPS) -> Float:
    """Weights of the field-years: ones, then one row per resample of the clusters.

    Args:
        clusters: which cluster each field-year belongs to.
        seed: of the resampling.
        bootstraps: number of resamples.

    Returns:
        (1 + bootstraps, field-years), each row adding up to 1.

    Raises:
        ValueError: no field-years.
    """
    if not clusters:
        raise ValueError("there are no field-years to resample")
    names = {name: index for index, name in enumerate(dict.fromkeys(clusters))}
    member = np.array([names[name] for name in clusters])
    rng = np.random.default_rng([0x6576, seed])
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=bootstraps)
    counts = np.vstack([np.ones(len(names), np.int64), draws]).astype(np.float64)
    weights: Float = counts[:, member]
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def curve(water_mm: Float, relative_yield: Float, weights: Float) -> Curve:
    """The means of (settings, field-years) under every weighting."""
    return Curve(weights @ water_mm.T, weights @ relative_yield.T)


def estimate(values: Float) -> Estimate:
    """From a statistic under every weighting, the sample first.

    A resample in which the statistic does not exist (infinite) counts as the worst or best there is.
    """
    # Order statistics instead of interpolated quantiles: infinity times zero would be no number.
    low, high = np.quantile(values[1:], INTERVAL, method="nearest") if len(values) > 1 else (values[0], values[0])
    return Estimate(float(values[0]), float(low), float(high))


def water_at(water_mm: Float, relative_yield: Float, target: float) -> float:
    """Least water with which a curve's lower envelope reaches a yield.

    The envelope is made of the settings that no other undercuts (no less yield with less water) and of straight lines
    between neighbours, which is what a farm with both settings would get.

    Args:
        water_mm: of each setting.
        relative_yield: of each setting.
        target: the yield to reach.

    Returns:
        mm; infinite where no setting reaches the yield. A yield below every setting's costs the driest one's water.
    """
    order = np.lexsort((-relative_yield, water_mm))
    best = -np.inf
    last: tuple[float, float] | None = None
    for index in order:
        water, reached = float(water_mm[index]), float(relative_yield[index])
        if reached <= best:
            continue
        if reached >= target:
            if last is None:
                return water
            return last[0] + (water - last[0]) * (target - last[1]) / (reached - last[1])
        last, best = (water, reached), reached
    return float("inf")


@dataclass(frozen=True, slots=True)
class EqualYield:
    """Water of a candidate at its shipped setting against a whole curve, at the same yield."""

    target: Estimate
    """Relative yield at which they are compared: the candidate's, or the best the reference reaches if that is less."""
    reference_mm: Estimate
    candidate_mm: Estimate
    saving: Estimate
    """Share of the reference's water."""
    reached: float
    """Share of resamples in which the reference reaches the candidate's yield."""

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        return {
            "relative_yield": self.target.as_json(),
            "reference_mm": self.reference_mm.as_json(),
            "candidate_mm": self.candidate_mm.as_json(),
            "saving": self.saving.as_json(),
            "reference_reaches_yield": round(self.reached, 4),
        }


def equal_yield(reference: Curve, candidate: Curve, setting: int) -> EqualYield:
    """Compare at the yield of the candidate's ``setting``.

    The reference may use its whole envelope, chosen afterwards, which favours it. Where it nowhere reaches the
    candidate's yield, both are taken at the best yield that it does reach.
    """
    own = candidate.relative_yield[:, setting]
    best = reference.relative_yield.max(axis=1)
    target = np.minimum(own, best)
    reference_mm = np.array(
        [water_at(*row) for row in zip(reference.water_mm, reference.relative_yield, target, strict=True)]
    )
    candidate_mm = candidate.water_mm[:, setting].copy()
    for row in np.flatnonzero(best < own):
        less = water_at(candidate.water_mm[row], candidate.relative_yield[row], float(target[row]))
        candidate_mm[row] = min(candidate_mm[row], less)
    with np.errstate(divide="ignore", invalid="ignore"):
        saving = np.where(reference_mm > 0, 1 - candidate_mm / reference_mm, 0.0)
    return EqualYield(
        estimate(target),
        estimate(reference_mm),
        estimate(candidate_mm),
        estimate(saving),
        float(np.mean(best >= own)),
    )


@dataclass(frozen=True, slots=True)
class Paired:
    """What changes from a reference to a candidate, each at one setting."""

    reference_mm: Estimate
    water_mm: Estimate
    """Candidate minus reference."""
    relative_yield: Estimate
    """Candidate minus reference."""
    at_equal_yield_mm: Estimate
    """The change of water, less what the reference would pay for the change of yield on its own curve."""
    at_equal_yield: Estimate
    """The same as a share of the reference's water."""
    slope_mm: Estimate
    """Water that a whole relative yield costs the reference about its setting."""

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        return {
            "reference_mm": self.reference_mm.as_json(),
            "water_change_mm": self.water_mm.as_json(),
            "yield_change": self.relative_yield.as_json(),
            "water_change_at_equal_yield_mm": self.at_equal_yield_mm.as_json(),
            "water_change_at_equal_yield": self.at_equal_yield.as_json(),
            "slope_mm_per_yield": self.slope_mm.as_json(),
        }


def paired(reference: Curve, setting: int, candidate: Curve, candidate_setting: int) -> Paired:
    """Compare two controllers on the same field-years, each at one setting.

    The reference's slope is the secant between the settings on either side of its own, which the resamples share in.
    """
    thirsty, dry = max(setting - 1, 0), min(setting + 1, reference.water_mm.shape[1] - 1)
    steps = reference.relative_yield[:, thirsty] - reference.relative_yield[:, dry]
    paid = reference.water_mm[:, thirsty] - reference.water_mm[:, dry]
    slope = np.maximum(paid, 0.0) / np.maximum(steps, LEAST_YIELD_STEP)
    before = reference.water_mm[:, setting]
    water = candidate.water_mm[:, candidate_setting] - before
    gained = candidate.relative_yield[:, candidate_setting] - reference.relative_yield[:, setting]
    adjusted = water - slope * gained
    share = np.where(before > 0, adjusted / np.where(before > 0, before, 1.0), 0.0)
    return Paired(
        estimate(before), estimate(water), estimate(gained), estimate(adjusted), estimate(share), estimate(slope)
    )
