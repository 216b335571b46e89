"""Weather by the quarter of an hour: what a station's daily figures look like to a sensor between them.

Local clock time is taken as solar time. The curves are smooth and exact where it matters: temperature touches
each day's minimum at sunrise and its maximum at 15:00, and radiation adds up to the day's sum.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import cos, exp, floor, pi, sin

from nodes.field.fao56 import saturation_vapour_pressure_kpa
from nodes.field.weather import Weather, WeatherDay

DAY_S = 86_400.0
WARMEST_H = 15.0
PROBE_DEPTH_M = 0.15
DAMPING_DEPTH_M = 0.12
"""Depth at which a soil's daily temperature wave has shrunk to 1/e; 0.08 to 0.15 m in moist mineral soils."""
SOIL_MEMORY = 0.85
"""Share of yesterday in the running mean that the soil temperature follows."""


class Sky:
    """Air, light and soil temperature of one place at any second covered by its weather."""

    def __init__(self, weather: Weather, utc_offset_min: int = 0) -> None:
        """Args: the days, with at least one before and one after the first and last query; the clock's offset."""
        self._days = weather.days
        midnight = datetime(weather.first.year, weather.first.month, weather.first.day, tzinfo=UTC)
        self._origin_s = midnight.timestamp() - 60 * utc_offset_min
        running = [self._days[0].mean_c]
        for day in self._days[1:]:
            running.append(SOIL_MEMORY * running[-1] + (1 - SOIL_MEMORY) * day.mean_c)
        self._soil_mean_c = running

    def _locate(self, time_s: float) -> tuple[int, float]:
        """Index of the day and local hour."""
        days = (time_s - self._origin_s) / DAY_S
        index = floor(days)
        if not 1 <= index < len(self._days) - 1:
            raise ValueError(f"time {time_s:.0f} is outside the weather of this run")
        return index, (days - index) * 24

    def day(self, time_s: float) -> WeatherDay:
        """The station's day that this second belongs to."""
        return self._days[self._locate(time_s)[0]]

    def air_temperature_c(self, time_s: float) -> float:
        """Half cosines between sunrise minimum and 15:00 maximum, °C."""
        index, hour = self._locate(time_s)
        today = self._days[index]
        if hour < today.sunrise_h:
            yesterday = self._days[index - 1]
            phase = (hour + 24 - WARMEST_H) / (today.sunrise_h + 24 - WARMEST_H)
            return _ease(yesterday.maximum_c, today.minimum_c, phase)
        if hour < WARMEST_H:
            return _ease(today.minimum_c, today.maximum_c, (hour - today.sunrise_h) / (WARMEST_H - today.sunrise_h))
        tomorrow = self._days[index + 1]
        phase = (hour - WARMEST_H) / (tomorrow.sunrise_h + 24 - WARMEST_H)
        return _ease(today.maximum_c, tomorrow.minimum_c, phase)

    def relative_humidity(self, time_s: float) -> float:
        """Dew point, interpolated from noon to noon, over the air's temperature, %."""
        index, hour = self._locate(time_s)
        other = index + (1 if hour >= 12 else -1)
        share = abs(hour - 12) / 24
        dew_point_c = self._days[index].dew_point_c * (1 - share) + self._days[other].dew_point_c * share
        vapour = saturation_vapour_pressure_kpa(dew_point_c)
        return max(5.0, min(100.0, 100 * vapour / saturation_vapour_pressure_kpa(self.air_temperature_c(time_s))))

    def radiation_w_m2(self, time_s: float) -> float:
        """A half sine over the daylight hours whose integral is the day's sum, W/m²."""
        index, hour = self._locate(time_s)
        day = self._days[index]
        share = (hour - day.sunrise_h) / day.daylight_h
        if not 0 < share < 1:
            return 0.0
        peak_w_m2 = day.radiation_mj_m2 * 1e6 * pi / (2 * day.daylight_h * 3600)
        return peak_w_m2 * sin(pi * share)

    def soil_temperature_c(self, time_s: float) -> float:
        """The slow mean plus the day's wave, damped and late as it arrives at probe depth, °C."""
        index, hour = self._locate(time_s)
        other = index + (1 if hour >= 12 else -1)
        share = abs(hour - 12) / 24
        mean_c = self._soil_mean_c[index] * (1 - share) + self._soil_mean_c[other] * share
        day = self._days[index]
        depth = PROBE_DEPTH_M / DAMPING_DEPTH_M
        wave = cos(2 * pi * (hour - WARMEST_H) / 24 - depth)
        return mean_c + (day.maximum_c - day.minimum_c) / 2 * exp(-depth) * wave


def _ease(begin: float, end: float, phase: float) -> float:
    """From ``begin`` to ``end`` along half a cosine."""
    return begin + (end - begin) * (1 - cos(pi * phase)) / 2
