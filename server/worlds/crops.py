"""Crops of the training worlds, from FAO-56 tables 11, 12, 17, 22 and 24, and how much they vary."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from shared_models.codes import Crop


@dataclass(frozen=True)
class CropTraits:
    """What a crop does to the soil's water."""

    kcb_initial: float
    kcb_mid: float
    kcb_end: float
    stage_days: tuple[float, float, float, float]
    """Initial, development, mid-season, late season (table 11)."""
    root_depth_m: float
    """``Zr`` at full growth (table 22)."""
    depletion_fraction: float
    """``p`` at ETc = 5 mm/d (table 22)."""
    height_m: float
    """Table 12."""
    yield_response: float
    """``Ky`` for the season (table 24)."""

    @property
    def season_days(self) -> int:
        """Planting to harvest."""
        return round(sum(self.stage_days))

    def kcb(self, day: float) -> float:
        """``Kcb`` on a day after planting (fig. 37, eq. 66)."""
        initial, development, mid, late = self.stage_days
        if day <= initial:
            return self.kcb_initial
        if day <= initial + development:
            return self.kcb_initial + (self.kcb_mid - self.kcb_initial) * (day - initial) / development
        if day <= initial + development + mid:
            return self.kcb_mid
        passed = min((day - initial - development - mid) / late, 1.0)
        return self.kcb_mid + (self.kcb_end - self.kcb_mid) * passed


TRAITS: dict[Crop, CropTraits] = {
    Crop.MAIZE: CropTraits(0.15, 1.15, 0.50, (25, 40, 45, 25), 1.1, 0.55, 2.0, 1.25),
    Crop.SOYBEAN: CropTraits(0.15, 1.10, 0.30, (20, 30, 55, 25), 0.95, 0.50, 0.8, 0.85),
    Crop.POTATO: CropTraits(0.15, 1.10, 0.65, (25, 30, 40, 30), 0.55, 0.35, 0.6, 1.10),
    Crop.DRY_BEAN: CropTraits(0.15, 1.10, 0.25, (20, 30, 40, 20), 0.75, 0.45, 0.4, 1.15),
    Crop.TOMATO: CropTraits(0.15, 1.10, 0.70, (28, 38, 40, 22), 0.95, 0.40, 0.6, 1.05),
    Crop.SUGAR_BEET: CropTraits(0.15, 1.15, 0.50, (28, 42, 60, 15), 0.95, 0.55, 0.5, 1.00),
    Crop.SORGHUM: CropTraits(0.15, 1.00, 0.35, (20, 32, 35, 25), 1.1, 0.55, 1.5, 0.90),
    Crop.WHEAT: CropTraits(0.15, 1.10, 0.25, (20, 25, 55, 30), 1.1, 0.55, 1.0, 1.15),
}


def vary(traits: CropTraits, rng: np.random.Generator) -> CropTraits:
    """A cultivar and a stand: coefficients, calendar, roots and tolerance off the tables' values."""
    stretch = rng.uniform(0.88, 1.12)
    days = tuple(max(days * stretch * rng.uniform(0.85, 1.15), 8.0) for days in traits.stage_days)
    return replace(
        traits,
        kcb_initial=traits.kcb_initial * rng.uniform(0.8, 1.6),
        kcb_mid=traits.kcb_mid * rng.uniform(0.8, 1.12),
        kcb_end=traits.kcb_end * rng.uniform(0.7, 1.3),
        stage_days=(days[0], days[1], days[2], days[3]),
        root_depth_m=float(np.clip(traits.root_depth_m * rng.uniform(0.65, 1.15), 0.4, 1.2)),
        depletion_fraction=float(np.clip(traits.depletion_fraction + rng.normal(0, 0.06), 0.25, 0.65)),
    )
