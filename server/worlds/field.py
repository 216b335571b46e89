"""The training distribution: field-seasons drawn by seed, complete with climate, soil, crop, sensors and farmer."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from server.worlds.crops import TRAITS, CropTraits, vary
from server.worlds.sensors import SensorErrors, sample_sensors
from server.worlds.soils import Soil, sample_soil
from server.worlds.weather import Climate, sample_climate
from shared_models.codes import Crop
from shared_models.settings import SHIPPED_DOSE_E1_MM, SHIPPED_THRESHOLD_PERMILLE

DAY_S = 86_400
DAWN_S = 6 * 3600
"""Node days begin at 06:00 local."""
WORLDS = ("dual-kc", "darcy")
MILD_WINTER_C = 8.0
"""Mean of the coldest months above which crops grow through them."""
EPOCH_S = 1_704_067_200
"""2024-01-01T00:00Z: the generated years have no year of their own."""


@dataclass(frozen=True)
class Management:
    """How a farmer set the node."""

    threshold: float
    """Share of TAW."""
    dose_mm: float
    application_rate_mm_h: float
    """What the valve is said to deliver."""
    flow_factor: float
    """What it delivers, over what it is said to."""
    thirsty: bool
    """True where no water comes at all: a rainfed neighbour that the model must understand too."""


@dataclass(frozen=True)
class Case:
    """One field-season, complete: the same case gives the same season to every controller."""

    seed: int
    world: str
    climate: Climate
    crop: Crop
    traits: CropTraits
    soil: Soil
    sensors: SensorErrors
    management: Management
    planting_day_of_year: int
    commissioning_days: int
    season_days: int
    """As the farmer enters them, some days off the crop's own calendar."""
    year: int = 0
    """How many seasons the field has had its node; the weather and the sensors' noise are the year's own."""

    def as_shipped(self) -> Case:
        """The same field under the settings a node leaves the house with, always watered."""
        shipped = replace(
            self.management,
            threshold=SHIPPED_THRESHOLD_PERMILLE / 1000,
            dose_mm=SHIPPED_DOSE_E1_MM / 10,
            thirsty=False,
        )
        return replace(self, management=shipped)

    def following(self) -> Case:
        """The same field and farmer, the same crop again, a year later."""
        return replace(self, year=self.year + 1)

    @property
    def days(self) -> int:
        """From the start to harvest."""
        return self.commissioning_days + self.traits.season_days

    @property
    def planting_time_s(self) -> int:
        """06:00 local on the day of planting."""
        return EPOCH_S + (365 * self.year + self.planting_day_of_year - 1) * DAY_S + DAWN_S

    @property
    def start_time_s(self) -> int:
        """When the node is switched on, on a soaked profile."""
        return self.planting_time_s - self.commissioning_days * DAY_S


def sample_case(seed: int, world: str | None = None, commissioning_days: int = 8) -> Case:
    """The field-season number ``seed`` of the training distribution.

    Args:
        seed: identifies the case; seeds of different uses must not overlap.
        world: one of :data:`WORLDS`, or None to draw it.
        commissioning_days: between the soak and planting.
    """
    rng = np.random.default_rng([0x4E6F, seed])
    crop = list(TRAITS)[int(rng.integers(len(TRAITS)))]
    drawn = WORLDS[int(rng.integers(len(WORLDS)))]
    traits = vary(TRAITS[crop], rng)
    climate = sample_climate(rng)
    # The season straddles the year's peak of warmth in cold places and falls anywhere in warm ones; where the cold
    # months are mild, many fields are sown for them.
    freedom = 25 + 100 * math.exp(-climate.yearly_amplitude_c / 5)
    mild_winter = climate.mean_temperature_c - climate.yearly_amplitude_c > MILD_WINTER_C
    winter_crop = mild_winter and rng.random() < 0.4
    middle = climate.warmest_day + 182 * winter_crop + rng.normal(-10, freedom / 2)
    planting = int(round(middle - traits.season_days / 2) - 1) % 365 + 1
    return Case(
        seed=seed,
        world=world or drawn,
        climate=climate,
        crop=crop,
        traits=traits,
        soil=sample_soil(rng),
        sensors=sample_sensors(rng),
        management=Management(
            threshold=rng.uniform(0.15, 0.45),
            dose_mm=rng.uniform(12, 28),
            application_rate_mm_h=rng.uniform(4, 14),
            flow_factor=float(np.clip(1 + 0.05 * rng.standard_normal(), 0.8, 1.2)),
            thirsty=bool(rng.random() < 0.12),
        ),
        planting_day_of_year=planting,
        commissioning_days=commissioning_days,
        season_days=max(5 * round((traits.season_days + 6 * rng.standard_normal()) / 5), 40),
    )
