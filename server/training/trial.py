"""Closed-loop trials: the same field-seasons with and without a head, compared pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from server.training.seasons import Season

BOOTSTRAPS = 2000
WORTH_OF_YIELD_MM = 2500.0
"""Water that a whole relative yield is worth: 25 mm for one per cent, the marginal rate of a well set threshold."""


@dataclass(frozen=True)
class Comparison:
    """What a head changed, over ``seasons`` paired field-seasons; intervals are 95 % bootstrap."""

    seasons: int
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

    @property
    def benefit_mm(self) -> float:
        """Water saved plus what the yield gained is worth in water, mm per season."""
        return WORTH_OF_YIELD_MM * self.yield_change - self.water_change_mm

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
    picks = rng.integers(0, len(pairs), (BOOTSTRAPS, len(pairs)))

    def interval(change: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float]:
        low, high = np.quantile(change[picks].mean(axis=1), [0.025, 0.975])
        return float(low), float(high)

    saved, gained = water[:, 1] - water[:, 0], crop[:, 1] - crop[:, 0]
    return Comparison(
        seasons=len(pairs),
        water_physics_mm=float(water[:, 0].mean()),
        water_model_mm=float(water[:, 1].mean()),
        water_change_mm=float(saved.mean()),
        water_change_interval_mm=interval(saved),
        yield_physics=float(crop[:, 0].mean()),
        yield_model=float(crop[:, 1].mean()),
        yield_change=float(gained.mean()),
        yield_change_interval=interval(gained),
        worst_yield_change=float(gained.min()),
        stress_days_physics=float(stress[:, 0].mean()),
        stress_days_model=float(stress[:, 1].mean()),
    )
