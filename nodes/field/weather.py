"""A climate's measured days, and the light and humidity derived from them.

Measured: minimum and maximum temperature, rain, reference evapotranspiration ET0. The records hold neither
radiation nor humidity, and a node senses both, so they are **derived**, and no claim about ET proxies may rest
on them:

* *Radiation* is what makes Hargreaves' 1975 formula, ``ET0 = 0.0135 · (T + 17.8) · 0.408 · Rs``, return the
  record's ET0, within 12 % and 78 % of the extraterrestrial radiation Ra (FAO-56 eq. 21).
* *Dew point* is the night's minimum temperature, lowered in dry weather by up to 8 K: 1.2 K for each mm/d by which
  the mean ET0 of seven days exceeds 2.5 mm/d (FAO-56 annex 6 describes the effect), and not lowered on a
  day with rain.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cache
from math import acos, cos, exp, pi, radians, sin, tan
from typing import TYPE_CHECKING

from nodes.field.climates import CLIMATES

if TYPE_CHECKING:
    from pandas import DataFrame

SOLAR_CONSTANT_MJ_M2_MIN = 0.0820


def declination_rad(day_of_year: int) -> float:
    """Solar declination (FAO-56 eq. 24)."""
    return 0.409 * sin(2 * pi * day_of_year / 365 - 1.39)


def sunset_hour_angle_rad(latitude_deg: float, day_of_year: int) -> float:
    """Sunset hour angle (FAO-56 eq. 25)."""
    return acos(max(-1.0, min(1.0, -tan(radians(latitude_deg)) * tan(declination_rad(day_of_year)))))


def extraterrestrial_radiation_mj_m2(latitude_deg: float, day_of_year: int) -> float:
    """Ra, MJ/m²/d (FAO-56 eq. 21)."""
    phi, delta = radians(latitude_deg), declination_rad(day_of_year)
    omega = sunset_hour_angle_rad(latitude_deg, day_of_year)
    distance = 1 + 0.033 * cos(2 * pi * day_of_year / 365)
    angle = omega * sin(phi) * sin(delta) + cos(phi) * cos(delta) * sin(omega)
    return 24 * 60 / pi * SOLAR_CONSTANT_MJ_M2_MIN * distance * angle


def saturation_vapour_pressure_kpa(temperature_c: float) -> float:
    """e°(T) (FAO-56 eq. 11)."""
    return 0.6108 * exp(17.27 * temperature_c / (temperature_c + 237.3))


def derived_radiation_mj_m2(et0_mm: float, mean_temperature_c: float, extraterrestrial_mj_m2: float) -> float:
    """Radiation from which Hargreaves 1975 would compute this ET0, MJ/m²/d."""
    inverted = et0_mm / (0.0135 * max(mean_temperature_c + 17.8, 8.0) * 0.408)
    return max(0.12 * extraterrestrial_mj_m2, min(0.78 * extraterrestrial_mj_m2, inverted))


def derived_dew_point_c(minimum_c: float, rain_mm: float, weekly_et0_mm: float) -> float:
    """Dew point from the night's minimum, °C."""
    return minimum_c if rain_mm > 1.0 else minimum_c - max(0.0, min(8.0, 1.2 * (weekly_et0_mm - 2.5)))


@dataclass(frozen=True, slots=True)
class WeatherDay:
    """One day at a station."""

    day: date
    minimum_c: float
    maximum_c: float
    rain_mm: float
    et0_mm: float
    radiation_mj_m2: float
    """Derived."""
    dew_point_c: float
    """Derived."""
    sunrise_h: float
    """Local solar time."""
    daylight_h: float

    @property
    def mean_c(self) -> float:
        """(Tmin + Tmax) / 2."""
        return (self.minimum_c + self.maximum_c) / 2


@cache
def measured_record(climate: str) -> DataFrame:
    """The whole record of a station, as AquaCrop wants it; days with Tmin ≥ Tmax are mended by half a degree."""
    from aquacrop.utils import get_filepath, prepare_weather

    frame = prepare_weather(get_filepath(f"{climate}_climate.txt"))
    muddled = frame.MinTemp > frame.MaxTemp - 0.1
    frame.loc[muddled, "MaxTemp"] = frame.MinTemp[muddled] + 0.5
    return frame


class Weather:
    """Days of one station between two dates, both included."""

    def __init__(self, climate: str, first: date, last: date) -> None:
        """Args: station name in :data:`nodes.field.climates.CLIMATES`, first and last day, within its record."""
        station = CLIMATES[climate]
        if first < station.first or last > station.last:
            raise ValueError(f"{climate}: {first} to {last} is outside the record {station.first} to {station.last}")
        record = measured_record(climate)
        begin = (first - station.first).days
        self.frame: DataFrame = record.iloc[begin : begin + (last - first).days + 1].reset_index(drop=True)
        self.latitude_deg = station.latitude_deg
        self.first = first
        self.days = self._derive()

    @classmethod
    def covering(cls, climate: str, first: date, last: date) -> Weather:
        """As much of these days as the record holds."""
        station = CLIMATES[climate]
        return cls(climate, max(first, station.first), min(last, station.last))

    def _derive(self) -> list[WeatherDay]:
        frame, days, et0_window = self.frame, [], list[float]()
        for row in zip(frame.Date, frame.MinTemp, frame.MaxTemp, frame.Precipitation, frame.ReferenceET, strict=True):
            stamp, minimum_c, maximum_c, rain_mm, et0_mm = row[0], *(float(value) for value in row[1:])
            day_of_year = int(stamp.day_of_year)
            et0_window = [*et0_window[-6:], et0_mm]
            daylight_h = 24 / pi * sunset_hour_angle_rad(self.latitude_deg, day_of_year)
            days.append(
                WeatherDay(
                    day=stamp.date(),
                    minimum_c=minimum_c,
                    maximum_c=maximum_c,
                    rain_mm=rain_mm,
                    et0_mm=et0_mm,
                    radiation_mj_m2=derived_radiation_mj_m2(
                        et0_mm,
                        (minimum_c + maximum_c) / 2,
                        extraterrestrial_radiation_mj_m2(self.latitude_deg, day_of_year),
                    ),
                    dew_point_c=derived_dew_point_c(minimum_c, rain_mm, sum(et0_window) / len(et0_window)),
                    sunrise_h=12 - daylight_h / 2,
                    daylight_h=daylight_h,
                )
            )
        return days
