"""Closed-loop trials: the same field-seasons with and without a head, compared pair by pair.

What counts is water *at equal yield*: the water a head saves plus what the yield it gains is worth in water.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from server.training.climates import CLIMATES, climate_group
from server.training.seasons import Season
from server.worlds.field import WORLDS

BOOTSTRAPS = 2000
WORTH_OF_YIELD_MM = 2500.0
"""Water that a whole relative yield is worth: 25 mm for one per cent, the marginal rate of a well set threshold."""
TOLERATED_YIELD_LOSS = 0.001
"""Of the mean relative yield, in any one group."""
UPTAKE_SCALES = (1.0, 0.5, 0.25)
"""Parts of the uptake head that are tried. Three tries find a gain by chance three times as often as one, so each is
held to a third of the doubt (Bonferroni)."""


@dataclass(frozen=True)
class Comparison:
    """What a head changed, over paired field-seasons; intervals are 95 % bootstrap, whole fields resampled."""

    seasons: int
    fields: int
    water_physics_mm: float
    water_model_mm: float
    water_change_mm: float
    water_change_interval_mm: tuple[float, float]
    yield_physics: float
    """Mean of the relative yield."""
    yield_model: float
    yield_change: float
    yield_change_interval: tuple[float, float]
    worst_yield_change: float
    """The single season hurt most."""
    stress_days_physics: float
    stress_days_model: float
    benefit_mm: float
    """Water saved at equal yield, mm per season: see :data:`WORTH_OF_YIELD_MM`."""
    benefit_interval_mm: tuple[float, float]
    assured_benefit_mm: float
    """Its lower bound where it is one of as many tries as :data:`UPTAKE_SCALES` has."""

    def as_json(self) -> dict[str, object]:
        """For the card, rounded."""
        return {
            key: [round(part, 4) for part in value] if isinstance(value, tuple) else round(value, 4)
            for key, value in asdict(self).items()
        }


def compare(physics: Sequence[Season], model: Sequence[Season], seed: int) -> Comparison:
    """Pair the seasons (same cases in the same order) and compare.

    Raises:
        ValueError: they are not pairs, or there are none.
    """
    pairs = list(zip(physics, model, strict=True))
    if not pairs or any(p.case != m.case for p, m in pairs):
        raise ValueError("the seasons are not pairs of the same cases")
    water = np.array([(p.outcome.irrigation_mm, m.outcome.irrigation_mm) for p, m in pairs])
    crop = np.array([(p.outcome.relative_yield, m.outcome.relative_yield) for p, m in pairs])
    stress = np.array([(p.outcome.stress_days, m.outcome.stress_days) for p, m in pairs])
    rng = np.random.default_rng([0x7472, seed])
    _, field = np.unique([p.case.seed for p, _ in pairs], return_inverse=True)
    per_field = np.bincount(field)
    picks = rng.integers(0, len(per_field), (BOOTSTRAPS, len(per_field)))
    weights = per_field[picks].sum(axis=1)

    def quantiles(change: np.ndarray[tuple[int], np.dtype[np.float64]], *shares: float) -> tuple[float, ...]:
        totals = np.bincount(field, change)[picks].sum(axis=1)
        return tuple(np.quantile(totals / weights, shares).tolist())

    def interval(change: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float]:
        low, high = quantiles(change, 0.025, 0.975)
        return low, high

    more, gained = water[:, 1] - water[:, 0], crop[:, 1] - crop[:, 0]
    benefit = WORTH_OF_YIELD_MM * gained - more
    return Comparison(
        seasons=len(pairs),
        fields=len(per_field),
        water_physics_mm=float(water[:, 0].mean()),
        water_model_mm=float(water[:, 1].mean()),
        water_change_mm=float(more.mean()),
        water_change_interval_mm=interval(more),
        yield_physics=float(crop[:, 0].mean()),
        yield_model=float(crop[:, 1].mean()),
        yield_change=float(gained.mean()),
        yield_change_interval=interval(gained),
        worst_yield_change=float(gained.min()),
        stress_days_physics=float(stress[:, 0].mean()),
        stress_days_model=float(stress[:, 1].mean()),
        benefit_mm=float(benefit.mean()),
        benefit_interval_mm=interval(benefit),
        assured_benefit_mm=quantiles(benefit, 0.025 / len(UPTAKE_SCALES))[0],
    )


def by_group(physics: Sequence[Season], model: Sequence[Season], seed: int) -> dict[str, Comparison]:
    """Comparisons over ``all``, in each world and in each climate group; groups without a season are left out."""
    comparisons = {"all": compare(physics, model, seed)}
    for group in (*WORLDS, *CLIMATES):
        pairs = [pair for pair in zip(physics, model, strict=True) if group in groups_of(pair[0])]
        if pairs:
            comparisons[group] = compare([p for p, _ in pairs], [m for _, m in pairs], seed)
    return comparisons


def groups_of(season: Season) -> tuple[str, str]:
    """The world and the climate group a season belongs to."""
    return season.case.world, climate_group(season.case.climate)


def hurt_groups(verdict: Mapping[str, Comparison]) -> list[str]:
    """Worlds and climate groups that a head makes worse: more water at equal yield, or a yield lost."""
    return [
        group for group, part in verdict.items() if part.benefit_mm < 0 or part.yield_change < -TOLERATED_YIELD_LOSS
    ]


def pays(verdict: Mapping[str, Comparison]) -> bool:
    """Whether a head may move water: it saves some at equal yield beyond chance, and hurts no group."""
    return verdict["all"].assured_benefit_mm > 0 and not hurt_groups(verdict)
