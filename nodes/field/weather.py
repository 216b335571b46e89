"""A climate's measured days, and the light and humidity derived from them where they were not measured.

Always measured: minimum and maximum temperature, rain. A node also senses radiation and humidity. Where a
climate's radiation is measured, both come from the record, and ET0 is computed from them (:mod:`.stations`). The
other records hold only ET0, so there both are **derived**, which flatters whoever computes ET from light, and no
claim about ET proxies may rest on them:

* *Radiation* is what makes Hargreaves' 1975 formula, ``ET0 = 0.0135 · (T + 17.8) · 0.408 · Rs``, return the
  record's ET0, within 12 % and 78 % of the extraterrestrial radiation Ra (FAO-56 eq. 21).
* *Dew point* is the night's minimum temperature, lowered in dry weather by up to 8 K: 1.2 K for each mm/d by which
  the mean ET0 of seven days exceeds 2.5 mm/d (FAO-56 annex 6 describes the effect), and not lowered on a
  day with rain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cache
from math import pi
from typing import TYPE_CHECKING

from nodes.field.climates import CLIMATES
from nodes.field.fao56 import extraterrestrial_radiation_mj_m2, sunset_hour_angle_rad
from nodes.field.stations import station_record

if TYPE_CHECKING:
    from pandas import DataFrame

AQUACROP_COLUMNS = ["MinTemp", "MaxTemp", "Precipitation", "ReferenceET", "Date"]
"""In the order in which AquaCrop reads them."""


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
    """Global; derived unless the climate's radiation is measured."""
    dew_point_c: float
    """Likewise."""
    sunrise_h: float
    """Local solar time."""
    daylight_h: float

    @property
    def mean_c(self) -> float:
        """(Tmin + Tmax) / 2."""
        return (self.minimum_c + self.maximum_c) / 2


@cache
def measured_record(climate: str) -> DataFrame:
    """The whole record of a station, as AquaCrop wants it; days with Tmin ≥ Tmax are mended by half a degree.

    Columns ``Radiation``, MJ/m²/d, and ``DewPoint``, °C, follow where they are measured.
    """
    if CLIMATES[climate].radiation_measured:
        frame = station_record(climate)
    else:
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
        record = record.iloc[begin : begin + (last - first).days + 1].reset_index(drop=True)
        self.frame: DataFrame = record[AQUACROP_COLUMNS]
        self.latitude_deg = station.latitude_deg
        self.first = first
        self.days = self._measured(record) if station.radiation_measured else self._derive()

    @classmethod
    def covering(cls, climate: str, first: date, last: date) -> Weather:
        """As much of these days as the record holds."""
        station = CLIMATES[climate]
        return cls(climate, max(first, station.first), min(last, station.last))

    def _measured(self, record: DataFrame) -> list[WeatherDay]:
        light_and_dew = zip(record.Radiation, record.DewPoint, strict=True)
        return [self._day(*row, *light) for row, light in zip(self._rows(), light_and_dew, strict=True)]

    def _derive(self) -> list[WeatherDay]:
        days, et0_window = [], list[float]()
        for stamp, minimum_c, maximum_c, rain_mm, et0_mm in self._rows():
            et0_window = [*et0_window[-6:], et0_mm]
            above_mj = extraterrestrial_radiation_mj_m2(self.latitude_deg, stamp.timetuple().tm_yday)
            radiation_mj_m2 = derived_radiation_mj_m2(et0_mm, (minimum_c + maximum_c) / 2, above_mj)
            dew_point_c = derived_dew_point_c(minimum_c, rain_mm, sum(et0_window) / len(et0_window))
            days.append(self._day(stamp, minimum_c, maximum_c, rain_mm, et0_mm, radiation_mj_m2, dew_point_c))
        return days

    def _rows(self) -> Iterator[tuple[date, float, float, float, float]]:
        frame = self.frame
        for row in zip(frame.Date, frame.MinTemp, frame.MaxTemp, frame.Precipitation, frame.ReferenceET, strict=True):
            minimum_c, maximum_c, rain_mm, et0_mm = (float(value) for value in row[1:])
            yield row[0].date(), minimum_c, maximum_c, rain_mm, et0_mm

    def _day(
        self,
        day: date,
        minimum_c: float,
        maximum_c: float,
        rain_mm: float,
        et0_mm: float,
        radiation_mj_m2: float,
        dew_point_c: float,
    ) -> WeatherDay:
        daylight_h = 24 / pi * sunset_hour_angle_rad(self.latitude_deg, day.timetuple().tm_yday)
        return WeatherDay(
            day=day,
            minimum_c=minimum_c,
            maximum_c=maximum_c,
            rain_mm=rain_mm,
            et0_mm=et0_mm,
            radiation_mj_m2=float(radiation_mj_m2),
            dew_point_c=float(dew_point_c),
            sunrise_h=12 - daylight_h / 2,
            daylight_h=daylight_h,
        )
