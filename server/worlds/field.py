"""A whole simulated field: weather over a column of soil and crop, seen through a node's sensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from server.worlds.columns import Column
from server.worlds.crops import TRAITS, CropTraits, vary
from server.worlds.darcy import CENTRES_M as DARCY_CENTRES_M
from server.worlds.darcy import DarcyColumn, DarcyTraits
from server.worlds.dual_kc import LAYERS as CASCADE_LAYERS
from server.worlds.dual_kc import CascadeTraits, DualKcColumn
from server.worlds.sensors import SensorErrors, sample_sensors
from server.worlds.soils import Soil, sample_soil
from server.worlds.weather import STEP_S, STEPS_PER_DAY, Climate, Weather, generate, sample_climate
from shared_models.codes import Crop

DAY_S = 86_400
DAWN_S = 6 * 3600
"""Node days begin at 06:00 local."""
PROBE_DEPTHS_M = (0.15, 0.35)
WORLDS = ("dual-kc", "darcy")
SHIPPED_THRESHOLD, SHIPPED_DOSE_MM = 0.20, 20.0
EPOCH_S = 1_704_067_200
"""2024-01-01T00:00Z: the generated years have no year of their own."""


@dataclass(frozen=True)
class Management:
    """How a farmer set the node."""

    threshold: float
    """Share of TAW."""
    dose_mm: float
    application_rate_mm_h: float
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

    def as_shipped(self) -> Case:
        """The same field under the settings a node leaves the house with, always watered."""
        shipped = replace(self.management, threshold=SHIPPED_THRESHOLD, dose_mm=SHIPPED_DOSE_MM, thirsty=False)
        return replace(self, management=shipped)

    @property
    def season_days(self) -> int:
        """As the farmer enters them: the crop's own calendar, rounded to five days."""
        return 5 * round(self.traits.season_days / 5)

    @property
    def planting_time_s(self) -> int:
        """06:00 local on the day of planting."""
        return EPOCH_S + (self.planting_day_of_year - 1) * DAY_S + DAWN_S

    @property
    def start_time_s(self) -> int:
        """When the node is switched on, on a soaked profile."""
        return self.planting_time_s - self.commissioning_days * DAY_S


@dataclass(frozen=True)
class Sensed:
    """What the sensors say at one wake, in their own physical units."""

    vwc_shallow: float
    vwc_deep: float
    soil_temperature_c: float
    air_temperature_c: float
    relative_humidity: float
    light_w_m2: float


@dataclass(frozen=True)
class Outcome:
    """What a season came to."""

    irrigation_mm: float
    rain_mm: float
    relative_yield: float
    """``1 - Ky (1 - Ta/Tp)`` after FAO-33, with transpiration for ET; at least 0."""
    stress_days: float
    """Days, weighted by ``1 - Ks``."""
    drainage_mm: float


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
    # The season straddles the year's peak of warmth in cold places and falls anywhere in warm ones.
    freedom = 25 + 100 * math.exp(-climate.yearly_amplitude_c / 5)
    middle = climate.warmest_day + rng.normal(-10, freedom / 2)
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
            thirsty=bool(rng.random() < 0.12),
        ),
        planting_day_of_year=planting,
        commissioning_days=commissioning_days,
    )


class SimulatedField:
    """Steps a :class:`Case` through its season at the node's wakes."""

    def __init__(self, case: Case) -> None:
        """Draw the season's weather and soak the profile."""
        rng = np.random.default_rng([0x5365, case.seed])
        first_day = (case.planting_day_of_year - case.commissioning_days - 1) % 365 + 1
        days = case.commissioning_days + case.season_days + 2
        self._case = case
        self._weather: Weather = generate(case.climate, first_day, days, rng)
        self._column: Column = _column(case, rng)
        self._first_midnight_s = case.start_time_s - DAWN_S
        self._step = DAWN_S // STEP_S
        self._pending_mm = 0.0
        self._irrigation_mm = 0.0
        self._rain_mm = 0.0
        self._stress_days = 0.0
        self._drift = [0.0, 0.0]
        self._soil_c = float(self._weather.air_temperature_c[0].mean())
        self._noise = rng.standard_normal((days * STEPS_PER_DAY, 6))

    @property
    def time_s(self) -> int:
        """Now: everything up to here has happened."""
        return self._first_midnight_s + self._step * STEP_S

    @property
    def column(self) -> Column:
        """The soil and crop, for those who may see the truth."""
        return self._column

    def irrigate(self, amount_mm: float) -> None:
        """Open the valve for ``amount_mm``; it arrives at the application rate from now on."""
        self._pending_mm += amount_mm
        self._irrigation_mm += amount_mm

    def advance(self) -> None:
        """Let one wake interval (15 minutes) pass."""
        day, slot = divmod(self._step, STEPS_PER_DAY)
        weather = self._weather
        rain = float(weather.rain_mm[day, slot])
        watered = min(self._pending_mm, self._case.management.application_rate_mm_h / 4)
        self._pending_mm -= watered
        after_planting = (self.time_s - self._case.planting_time_s) / DAY_S
        air = float(weather.air_temperature_c[day, slot])
        self._column.step(after_planting, rain + watered, float(weather.et0_mm[day, slot]), air)
        if 0 <= after_planting <= self._case.traits.season_days:
            self._rain_mm += rain
            if weather.light_w_m2[day, slot] > 20:
                self._stress_days += (1 - self._column.stress()) * 2 / STEPS_PER_DAY
        self._soil_c += (air - self._soil_c) / 60
        wander = self._case.sensors.drift_per_sqrt_day / math.sqrt(STEPS_PER_DAY)
        noise = self._noise[self._step]
        for probe in (0, 1):
            self._drift[probe] += -0.03 / STEPS_PER_DAY * self._drift[probe] + wander * float(noise[4 + probe])
        self._step += 1

    def sense(self) -> Sensed:
        """One reading of every sensor, now."""
        errors = self._case.sensors
        day, slot = divmod(self._step, STEPS_PER_DAY)
        noise = self._noise[self._step]
        vwc = [
            errors.gain[probe] * self._column.theta(PROBE_DEPTHS_M[probe])
            + errors.offset[probe]
            + self._drift[probe]
            + errors.temperature_response * (self._soil_c - 20)
            + errors.noise * float(noise[probe])
            for probe in (0, 1)
        ]
        humidity = float(self._weather.relative_humidity[day, slot]) + errors.humidity_bias + 1.0 * float(noise[2])
        light = float(self._weather.light_w_m2[day, slot]) * errors.light_gain * math.exp(0.03 * float(noise[3]))
        return Sensed(
            vwc_shallow=vwc[0],
            vwc_deep=vwc[1],
            soil_temperature_c=self._soil_c + 0.1 * float(noise[3]),
            air_temperature_c=float(self._weather.air_temperature_c[day, slot])
            + errors.air_bias_c
            + 0.1 * float(noise[2]),
            relative_humidity=min(max(humidity, 2.0), 100.0),
            light_w_m2=light,
        )

    def outcome(self) -> Outcome:
        """The season so far."""
        ledger = self._column.ledger
        share = ledger.transpiration / max(ledger.potential_transpiration, 1e-9)
        return Outcome(
            irrigation_mm=self._irrigation_mm,
            rain_mm=self._rain_mm,
            relative_yield=max(1 - self._case.traits.yield_response * (1 - min(share, 1.0)), 0.0),
            stress_days=self._stress_days,
            drainage_mm=ledger.drainage,
        )


def _column(case: Case, rng: np.random.Generator) -> Column:
    """The case's soil after the commissioning soak: wet above, as it happened to be below."""
    below = rng.uniform(0.5, 1.0)
    soaked_to_m = rng.uniform(0.45, 0.8)
    soil = case.soil
    wet = soil.theta_fc + 0.75 * (soil.theta_saturation - soil.theta_fc)
    dry = soil.theta_wp + below * (soil.theta_fc - soil.theta_wp)
    if case.world == "dual-kc":
        traits = CascadeTraits(
            drainage_per_day=rng.uniform(0.35, 0.9),
            root_extinction=rng.uniform(0.6, 2.5),
            wetted_fraction=rng.choice([0.4, 0.7, 1.0]),
            runoff_above_mm_h=rng.uniform(15, 60),
            root_days=rng.uniform(40, 75),
        )
        centres = [(layer + 0.5) / 10 for layer in range(CASCADE_LAYERS)]
        return DualKcColumn(soil, case.traits, traits, [wet if z < soaked_to_m else dry for z in centres])
    h3_low = rng.uniform(5_000, 12_000)
    darcy = DarcyTraits(
        water_table_m=rng.uniform(1.6, 3.0) if rng.random() < 0.2 else None,
        root_extinction=rng.uniform(0.8, 3.0),
        compensation=rng.uniform(0.5, 1.0),
        leaf_area_max=rng.uniform(2.5, 5.5),
        light_extinction=rng.uniform(0.5, 0.75),
        heat_to_full_cover_kd=rng.uniform(500, 950),
        stress_suction_mm=(h3_low, h3_low * rng.uniform(0.35, 0.7)),
        surface_resistance=rng.uniform(0.3, 1.5),
    )
    return DarcyColumn(soil, case.traits, darcy, [wet if z < soaked_to_m else dry for z in DARCY_CENTRES_M])
