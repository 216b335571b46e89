"""Crops of the training worlds, from FAO-56 tables 11, 12, 17, 22 and 24, and how much they vary.

What a shortage costs is from FAO Irrigation and Drainage Paper 33 (Doorenbos and Kassam 1979), whose yield response
factors FAO-66 (Steduto et al. 2012) prints again. FAO-33 gives none for the ripening of soybean and wheat, taken as
0.1 here, and for sugar beet only the season's, for which the stages of FAO's CROPWAT stand in.
"""

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
    """``Ky`` for the season (FAO-56 table 24)."""
    stage_response: tuple[float, float, float, float]
    """``Ky`` of a shortage in one growth period alone (FAO-33): vegetative, flowering, yield formation, ripening."""

    @property
    def season_days(self) -> int:
        """Planting to harvest."""
        return round(sum(self.stage_days))

    @property
    def growth_period_ends(self) -> tuple[float, float, float]:
        """Days after planting on which vegetative growth, flowering and yield formation end.

        FAO-33's periods laid over table 11's stages: flowering takes the first two fifths of mid-season, as the
        durations in FAO-33's crop chapters have it, and ripening the second half of the late season.
        """
        initial, development, middle, late = self.stage_days
        full_cover = initial + development
        return full_cover, full_cover + 0.4 * middle, full_cover + middle + 0.5 * late

    @property
    def stage_exponents(self) -> tuple[float, float, float, float]:
        """Jensen's (1968) exponents ``λ``: in proportion to the periods' ``Ky``, together the season's.

        FAO-33's factors of single periods add up to more than the season's factor. Scaled so, a shortage spread
        evenly costs what the season's factor says, and one in a sensitive period more.
        """
        whole = sum(self.stage_response)
        first, second, third, fourth = (self.yield_response * part / whole for part in self.stage_response)
        return first, second, third, fourth


TRAITS: dict[Crop, CropTraits] = {
    Crop.MAIZE: CropTraits(0.15, 1.15, 0.50, (25, 40, 45, 25), 1.1, 0.55, 2.0, 1.25, (0.40, 1.50, 0.50, 0.20)),
    Crop.SOYBEAN: CropTraits(0.15, 1.10, 0.30, (20, 30, 55, 25), 0.95, 0.50, 0.8, 0.85, (0.20, 0.80, 1.00, 0.10)),
    Crop.POTATO: CropTraits(0.15, 1.10, 0.65, (25, 30, 40, 30), 0.55, 0.35, 0.6, 1.10, (0.45, 0.80, 0.70, 0.20)),
    Crop.DRY_BEAN: CropTraits(0.15, 1.10, 0.25, (20, 30, 40, 20), 0.75, 0.45, 0.4, 1.15, (0.20, 1.10, 0.75, 0.20)),
    Crop.TOMATO: CropTraits(0.15, 1.10, 0.70, (28, 38, 40, 22), 0.95, 0.40, 0.6, 1.05, (0.40, 1.10, 0.80, 0.40)),
    Crop.SUGAR_BEET: CropTraits(0.15, 1.15, 0.50, (28, 42, 60, 15), 0.95, 0.55, 0.5, 1.00, (0.50, 0.80, 1.20, 1.00)),
    Crop.SORGHUM: CropTraits(0.15, 1.00, 0.35, (20, 32, 35, 25), 1.1, 0.55, 1.5, 0.90, (0.20, 0.55, 0.45, 0.20)),
    Crop.WHEAT: CropTraits(0.15, 1.10, 0.25, (20, 25, 55, 30), 1.1, 0.55, 1.0, 1.15, (0.20, 0.65, 0.55, 0.10)),
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
