"""Weather nobody measured: a stochastic generator over a wide range of climates, 15 minutes at a time.

Rain days follow a two-state Markov chain with gamma amounts (Richardson 1981); temperature is a yearly
wave with an autocorrelated anomaly; radiation is a clearness of ``Ra`` that depends on the day being
wet; humidity follows the dew point; ET0 is the full Penman-Monteith equation with wind, so that a
node's proxy of it, which sees no wind, is as wrong as it would be in a field.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.worlds import atmosphere
from server.worlds.atmosphere import Series

STEPS_PER_DAY = 96
STEP_S = 900


@dataclass(frozen=True)
class Climate:
    """One place's long-term weather."""

    latitude_deg: float
    elevation_m: float
    mean_temperature_c: float
    yearly_amplitude_c: float
    diurnal_range_c: float
    """On a dry day; wet days have about .6 of it."""
    warmest_day: int
    wet_after_dry: float
    """Yearly mean probability of rain after a dry day."""
    wet_persistence: float
    """Added to it after a wet day."""
    rain_seasonality: float
    """0 = even, 1 = a dry season without any rain."""
    wettest_day: int
    rain_per_wet_day_mm: float
    clearness_dry: float
    clearness_wet: float
    dew_point_depression_c: float
    """Of the dry day's dew point below the daily minimum."""
    wind_m_s: float


@dataclass(frozen=True)
class Weather:
    """A season's weather, ``days`` rows of 96 steps from 00:00 local of the first day."""

    air_temperature_c: Series
    relative_humidity: Series
    """Per cent."""
    light_w_m2: Series
    rain_mm: Series
    """Per step."""
    et0_mm: Series
    """Per step."""

    @property
    def days(self) -> int:
        """Number of days."""
        return len(self.rain_mm)


def sample_climate(rng: np.random.Generator) -> Climate:
    """A climate from the humid tropics to the continental and Mediterranean middle latitudes."""
    latitude = rng.uniform(8, 54) * (1 if rng.random() < 0.7 else -1)
    distance = abs(latitude)
    aridity = rng.beta(1.2, 1.0)
    mediterranean = rng.random() < 0.35
    warmest = 200 if latitude > 0 else 17
    return Climate(
        latitude_deg=latitude,
        elevation_m=float(rng.gamma(1.3, 250)),
        mean_temperature_c=27.0 - 0.50 * max(distance - 15, 0) + rng.normal(0, 2.0),
        yearly_amplitude_c=max(1.0 + 0.26 * distance + rng.normal(0, 2.0), 1.0),
        diurnal_range_c=7.5 + 7.5 * aridity + rng.normal(0, 1.2),
        warmest_day=warmest,
        wet_after_dry=0.015 + 0.385 * (1 - aridity) ** 1.3,
        wet_persistence=rng.uniform(0.1, 0.35),
        rain_seasonality=rng.uniform(0, 0.95),
        wettest_day=(warmest + 182) % 365 if mediterranean else (warmest + int(rng.integers(-60, 60))) % 365,
        rain_per_wet_day_mm=rng.uniform(4, 13),
        clearness_dry=float(np.clip(0.60 + 0.12 * aridity + rng.normal(0, 0.03), 0.5, 0.77)),
        clearness_wet=rng.uniform(0.28, 0.5),
        dew_point_depression_c=max(8 * aridity**1.5 + rng.normal(0, 1), 0.0),
        wind_m_s=float(np.clip(rng.gamma(6, 0.35), 0.7, 5.0)),
    )


def generate(climate: Climate, first_day_of_year: int, days: int, rng: np.random.Generator) -> Weather:
    """``days`` of weather from ``first_day_of_year`` on.

    Args:
        climate: where.
        first_day_of_year: 1 to 365 of the first day.
        days: how many.
        rng: the field's own stream.
    """
    hours = (np.arange(STEPS_PER_DAY) + 0.5) * 24 / STEPS_PER_DAY
    day_of_year: Series = (first_day_of_year - 1 + np.arange(days, dtype=np.float64)) % 365 + 1
    is_wet = _wet_days(climate, day_of_year, rng)
    normal = rng.standard_normal((5, days))
    anomaly = _remembering(0.75, 2.2 * rng.standard_normal(), 1.6 * normal[0])
    wind = climate.wind_m_s * np.exp(_remembering(0.5, 0.0, 0.25 * normal[1]))
    year_wave = np.cos(2 * np.pi * (day_of_year - climate.warmest_day) / 365)
    mean_c = climate.mean_temperature_c + climate.yearly_amplitude_c * year_wave + anomaly - 1.5 * is_wet
    range_c = np.maximum(climate.diurnal_range_c * np.where(is_wet, 0.6, 1.0) + 1.5 * normal[2], 2.5)
    t_min, t_max = mean_c - range_c / 2, mean_c + range_c / 2
    dew = t_min - np.where(is_wet, 0.0, np.maximum(climate.dew_point_depression_c + normal[3], 0.0))
    vapour = atmosphere.saturation_vapour_pressure_kpa(dew)
    ra = atmosphere.extraterrestrial_radiation_mj_m2(climate.latitude_deg, day_of_year)
    clearness = np.where(is_wet, climate.clearness_wet, climate.clearness_dry)
    spread = np.where(is_wet, 0.12, 0.09 * (0.85 - climate.clearness_dry) / 0.2)
    radiation = ra * np.clip(clearness + spread * normal[4], 0.08, 0.79)
    daily_et0 = atmosphere.reference_evapotranspiration_mm(
        t_min_c=t_min,
        t_max_c=t_max,
        vapour_pressure_kpa=vapour,
        radiation_mj_m2=radiation,
        wind_m_s=wind,
        ra_mj_m2=ra,
        elevation_m=climate.elevation_m,
    )
    air = mean_c[:, None] + range_c[:, None] / 2 * np.cos(2 * np.pi * (hours - 15) / 24)
    humidity = np.clip(100 * vapour[:, None] / atmosphere.saturation_vapour_pressure_kpa(air), 5, 100)
    sun = atmosphere.sine_of_solar_elevation(climate.latitude_deg, day_of_year[:, None], hours)
    sun = sun * np.exp(_passing_clouds(rng, days) * np.where(is_wet, 0.35, 0.12)[:, None])
    share = sun / np.maximum(sun.sum(axis=1, keepdims=True), 1e-9)
    light = radiation[:, None] * 1e6 / STEP_S * share
    et0 = daily_et0[:, None] * (0.92 * share + 0.08 / STEPS_PER_DAY)
    rain = np.zeros((days, STEPS_PER_DAY))
    for day in np.flatnonzero(is_wet):
        rain[day] = _shower(rng, 1.0 + rng.gamma(0.8, climate.rain_per_wet_day_mm / 0.8))
    return Weather(air_temperature_c=air, relative_humidity=humidity, light_w_m2=light, rain_mm=rain, et0_mm=et0)


def _wet_days(climate: Climate, day_of_year: Series, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The Markov chain of wet and dry days."""
    rain_wave = 1 + climate.rain_seasonality * np.cos(2 * np.pi * (day_of_year - climate.wettest_day) / 365)
    wet, was_wet = [], False
    for wave, draw in zip(rain_wave.tolist(), rng.random(len(rain_wave)).tolist(), strict=True):
        probability = (climate.wet_after_dry + (climate.wet_persistence if was_wet else 0.0)) * wave
        was_wet = draw < min(probability, 0.9)
        wet.append(was_wet)
    return np.array(wet, np.bool_)


def _remembering(share: float, first: float, shocks: Series) -> Series:
    """A walk that keeps ``share`` of yesterday and adds today's shock."""
    value, walk = first, []
    for shock in shocks.tolist():
        value = share * value + shock
        walk.append(value)
    return np.array(walk)


def _passing_clouds(rng: np.random.Generator, days: int) -> Series:
    """Unit noise with about an hour of memory, (days, 96)."""
    noise = rng.standard_normal((days, STEPS_PER_DAY + 4))
    smooth: Series = np.lib.stride_tricks.sliding_window_view(noise, 5, axis=1).sum(axis=-1) / np.sqrt(5)
    return smooth


def _shower(rng: np.random.Generator, amount_mm: float) -> Series:
    """One day's rain spread over a shower of half an hour to ten hours."""
    steps = int(rng.integers(2, 41))
    start = int(rng.integers(0, STEPS_PER_DAY - steps))
    share = np.zeros(STEPS_PER_DAY)
    share[start : start + steps] = rng.gamma(1.5, 1.0, steps)
    rain: Series = amount_mm * share / share.sum()
    return rain
