"""Weather by the quarter of an hour: what a station's daily figures look like to a sensor between them.

Local clock time is taken as solar time. The curves are smooth and exact where it matters: temperature touches
each day's minimum at sunrise and its maximum at 15:00, and radiation adds up to the day's sum.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import exp, floor, pi

import numpy as np
import numpy.typing as npt

from nodes.field.weather import Weather, WeatherDay

DAY_S = 86_400.0
WARMEST_H = 15.0
PROBE_DEPTH_M = 0.15
DAMPING_DEPTH_M = 0.12
"""Depth at which a soil's daily temperature wave has shrunk to 1/e; 0.08 to 0.15 m in moist mineral soils."""
SOIL_MEMORY = 0.85
"""Share of yesterday in the running mean that the soil temperature follows."""

Floats = npt.NDArray[np.float64]
Times = float | Floats
"""Unix seconds: one instant, or many in ascending order. What is asked for comes in the same shape."""


class Sky:
    """Air, light and soil temperature of one place at any second covered by its weather."""

    def __init__(self, weather: Weather, utc_offset_min: int = 0) -> None:
        """Args: the days, with at least one before and one after the first and last query; the clock's offset."""
        self._days = days = weather.days
        midnight = datetime(weather.first.year, weather.first.month, weather.first.day, tzinfo=UTC)
        self._origin_s = midnight.timestamp() - 60 * utc_offset_min
        running = [days[0].mean_c]
        for day in days[1:]:
            running.append(SOIL_MEMORY * running[-1] + (1 - SOIL_MEMORY) * day.mean_c)
        self._soil_mean_c = np.array(running)
        self._dew_point_c = np.array([day.dew_point_c for day in days])
        self._noons = np.arange(len(days)) + 0.5
        # From each turning point of the temperature to the next, in days since the origin.
        self._turns = np.array([(at + hour / 24) for at, day in enumerate(days) for hour in (day.sunrise_h, WARMEST_H)])
        self._turns_c = np.array([value for day in days for value in (day.minimum_c, day.maximum_c)])
        self._sunrise_h = np.array([day.sunrise_h for day in days])
        self._daylight_h = np.array([day.daylight_h for day in days])
        self._peak_w_m2 = np.array([day.radiation_mj_m2 * 1e6 * pi / (2 * day.daylight_h * 3600) for day in days])
        depth = PROBE_DEPTH_M / DAMPING_DEPTH_M
        self._wave_c = np.array([(day.maximum_c - day.minimum_c) / 2 * exp(-depth) for day in days])

    def _locate(self, time_s: Times) -> Floats:
        """Days since the origin."""
        days: Floats = (np.asarray(time_s) - self._origin_s) / DAY_S
        if not 1 <= days.flat[0] <= days.flat[-1] < len(self._days) - 1:
            raise ValueError(f"time {np.min(time_s):.0f} to {np.max(time_s):.0f} is outside the weather of this run")
        return days

    def day(self, time_s: float) -> WeatherDay:
        """The station's day that this second belongs to."""
        return self._days[floor(self._locate(time_s))]

    def air_temperature_c(self, time_s: Times) -> Floats:
        """Half cosines between sunrise minimum and 15:00 maximum, °C."""
        return self._temperature_c(self._locate(time_s))

    def relative_humidity(self, time_s: Times) -> Floats:
        """Dew point, interpolated from noon to noon, over the air's temperature, %."""
        days = self._locate(time_s)
        dew_point_c, air_c = np.interp(days, self._noons, self._dew_point_c), self._temperature_c(days)
        # e°(Td) / e°(T), FAO-56 eq. 11.
        share = np.exp(17.27 * dew_point_c / (dew_point_c + 237.3) - 17.27 * air_c / (air_c + 237.3))
        humidity: Floats = np.maximum(5.0, np.minimum(100.0, 100 * share))
        return humidity

    def radiation_w_m2(self, time_s: Times) -> Floats:
        """A half sine over the daylight hours whose integral is the day's sum, W/m²."""
        days = self._locate(time_s)
        index = days.astype(np.intp)
        share = ((days - index) * 24 - self._sunrise_h[index]) / self._daylight_h[index]
        # The sine is negative at night.
        radiation_w_m2: Floats = np.maximum(0.0, self._peak_w_m2[index] * np.sin(pi * share))
        return radiation_w_m2

    def soil_temperature_c(self, time_s: Times) -> Floats:
        """The slow mean plus the day's wave, damped and late as it arrives at probe depth, °C."""
        days = self._locate(time_s)
        index = days.astype(np.intp)
        lag = WARMEST_H / 24 + PROBE_DEPTH_M / DAMPING_DEPTH_M / (2 * pi)
        wave_c: Floats = self._wave_c[index] * np.cos(2 * pi * (days - index - lag))
        mean_c: Floats = np.interp(days, self._noons, self._soil_mean_c)
        return mean_c + wave_c

    def _temperature_c(self, days: Floats) -> Floats:
        after = np.searchsorted(self._turns, days, side="right")
        begin, end = self._turns[after - 1], self._turns[after]
        low, high = self._turns_c[after - 1], self._turns_c[after]
        temperature_c: Floats = low + (high - low) * (1 - np.cos(pi * (days - begin) / (end - begin))) / 2
        return temperature_c
