"""Lives of nodes on measured series: the real core, woken every 15 minutes by what was measured.

A farmer puts the node in after the last soaking rain before the usual planting time and plants eight days later, so
that the core learns its upper limit on drained soil as after a soak of its own. One node lives through all years of
its series. Its doses change nothing: what was measured is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np

from nodes.hostcore import READINGS, HostNode, Records, outcome_of
from noria.evaluation.forecast_windows import Dawns, Windows, windows_of
from noria.evaluation.probes import MEASURED, WAKE_S, Int64, Series, Site
from shared_models.codes import Board
from shared_models.fixed import DAWN_S
from shared_models.network import ModelImage
from shared_models.settings import Settings

DAY_S = 86_400
BATTERY_MV = 3000
DRAINAGE_DAYS = 8
"""From soaking to planting; the core learns from the last dawns of these."""
LOOK_BACK_DAYS = 60
SOAKING_RISE = 0.02
"""A rise of both probes' mean in a day, m³/m³, that a farmer takes for a soaking."""
SHORTEST_DAYS = 60
"""A year with less of its season measured is left out."""


@dataclass(frozen=True, slots=True)
class Life:
    """A node's life in one place."""

    site: Site
    windows: Windows
    seasons: int


def planting_days(series: Series, month: int) -> list[date]:
    """A planting per year of the series: eight days after the last soaking of 60 days before the month, or its first.

    Only what was measured until the month is looked at.
    """
    first, last = (datetime.fromtimestamp(int(time), UTC).date() for time in series.shallow.time_s[[0, -1]])
    chosen = []
    for year in range(first.year, last.year + 1):
        usual = date(year, month, 1)
        soaked = _last_soaking(series, usual)
        planting = soaked + timedelta(DRAINAGE_DAYS) if soaked else usual
        if planting - timedelta(DRAINAGE_DAYS + 1) >= first and planting + timedelta(SHORTEST_DAYS) <= last:
            chosen.append(planting)
    return chosen


def _last_soaking(series: Series, until: date) -> date | None:
    dawns = np.arange(LOOK_BACK_DAYS + 1) * DAY_S + _local(until - timedelta(LOOK_BACK_DAYS), series)
    mean = (series.shallow.held(dawns) + series.deep.held(dawns)) / 2
    rises = np.flatnonzero(np.diff(mean) >= SOAKING_RISE)
    return until - timedelta(LOOK_BACK_DAYS - 1 - int(rises[-1])) if len(rises) else None


def _local(day: date, series: Series) -> int:
    """06:00 local."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) + DAWN_S - series.utc_offset_min * 60


def settings_of(site: Site, series: Series, planting: date) -> Settings:
    """What an installer would write for this season."""
    return Settings(
        dev_eui="00" * 8,
        board=Board.STM32L072,
        crop=site.crop,
        planting_time_s=_local(planting, series),
        season_days=site.season_days,
        season=planting.year,
        utc_offset_min=series.utc_offset_min,
    )


def live(
    site: Site,
    series: Series,
    image: ModelImage,
    seasons: int | None = None,
) -> Life:
    """Let a node live through the series.

    Args:
        site: Where.
        series: What was measured there.
        image: The model it runs.
        seasons: How many to live through; all when None.
    """
    plantings = planting_days(series, site.month)[:seasons]
    dawns = Dawns(image)
    state = None
    for number, planting in enumerate(plantings):
        node = HostNode(settings_of(site, series, planting))
        if state is not None:
            node.state_bytes = state
        begin = _local(planting - timedelta(DRAINAGE_DAYS + 1), series)
        after = plantings[number + 1] - timedelta(DRAINAGE_DAYS + 1) if number + 1 < len(plantings) else None
        grown = planting + timedelta(site.season_days)
        end = _local(min(after, grown) if after else grown, series)
        times = np.arange(begin, min(end, int(series.shallow.time_s[-1])) + 1, WAKE_S)
        for readings in _until_dawns(times, series):
            last = node.wake_many(readings, image)[-1]
            dawns.watch(node.state, outcome_of(last.tobytes()))
        state = node.state_bytes
    return Life(site, windows_of(dawns.seen), len(plantings))


def _until_dawns(times: Int64, series: Series) -> list[Records]:
    """All wakes' readings, cut after every dawn; the first wake is one, too."""
    readings = np.zeros(len(times), READINGS)
    readings["time_s"] = times
    readings["battery_mv"] = BATTERY_MV
    for name, column in zip(MEASURED, series.readings(times).T, strict=True):
        readings[name] = column
    return np.split(readings, np.arange(1, len(times), DAY_S // WAKE_S))
