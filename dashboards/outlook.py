"""From reports to what a farmer asks: is there enough water, when is the next watering, what was saved?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from dashboards import words
from dashboards.config import Calendar
from dashboards.farm_store import DAY_S, Day, FieldSummary, Report
from shared_models.codes import Mode, Reason

SOON = 0.75
"""Share of the threshold depletion from which a field counts as drying."""


class Wetness(Enum):
    """A field's state as a word, a colour class and a sign; never colour alone."""

    GOOD = ("Enough water", "good", "✓")
    SOON = ("Water soon", "soon", "!")
    DRY = ("Dry", "dry", "!!")
    WAITING = ("Getting ready", "idle", "○")
    OVER = ("Season over", "idle", "○")
    UNKNOWN = ("No word yet", "idle", "?")

    def __init__(self, label: str, css: str, sign: str) -> None:
        self.label = label
        self.css = css
        self.sign = sign


@dataclass(frozen=True, slots=True)
class Saving:
    """Water used against the calendar, both since planting."""

    used_mm: float
    calendar_mm: float

    @property
    def saved_mm(self) -> float:
        """Positive where the field used less."""
        return self.calendar_mm - self.used_mm

    @property
    def share(self) -> float | None:
        """Saved share of the calendar's water; None before the calendar's first watering."""
        return self.saved_mm / self.calendar_mm if self.calendar_mm > 0 else None


def wetness(summary: FieldSummary) -> Wetness:
    """The state of a field after its newest report."""
    report = summary.report
    if report is None:
        return Wetness.UNKNOWN
    if report.mode == Mode.COMMISSIONING:
        return Wetness.WAITING
    if report.reason == Reason.SEASON_OVER:
        return Wetness.OVER
    if report.taw_mm <= 0 or report.threshold <= 0:
        return Wetness.UNKNOWN
    ratio = _depletion_now_mm(summary, report) / report.threshold_mm
    if ratio < SOON:
        return Wetness.GOOD
    return Wetness.SOON if ratio <= 1 else Wetness.DRY


def drying_rate_mm_per_day(days: Sequence[Day]) -> float | None:
    """Mean daily rise of depletion over the newest (at most five) days without watering or rain."""
    rises = []
    for before, after in pairwise(days):
        if before.depletion_max_mm is None or after.depletion_max_mm is None or after.day_s - before.day_s != DAY_S:
            continue
        rise = after.depletion_max_mm - before.depletion_max_mm
        if before.doses == 0 and after.doses == 0 and rise > 0:
            rises.append(rise)
    recent = rises[-5:]
    return sum(recent) / len(recent) if recent else None


def next_watering(summary: FieldSummary, now_s: int, utc_offset_min: int) -> str:
    """When the next watering is expected, in words."""
    report = summary.report
    settled = _no_watering_ahead(summary, report, now_s, utc_offset_min)
    if settled is not None:
        return settled
    if report is None:
        return "Not known yet"
    rate = drying_rate_mm_per_day(summary.days)
    left_mm = report.threshold_mm - _depletion_now_mm(summary, report)
    if left_mm <= 0:
        return "Tomorrow morning"
    if rate is None or rate < 0.2:
        return "Not in the next days"
    days = math.ceil(left_mm / rate)
    if days <= 1:
        return "Tomorrow morning, unless it rains"
    return f"In about {days} days, unless it rains" if days <= 14 else "Not in the next two weeks"


def _no_watering_ahead(summary: FieldSummary, report: Report | None, now_s: int, utc_offset_min: int) -> str | None:
    if summary.stopped_until_s is not None and summary.stopped_until_s > now_s:
        return f"Stopped by you until {words.moment(summary.stopped_until_s, utc_offset_min)}"
    if report is None:
        return "Not known yet"
    if report.mode == Mode.COMMISSIONING:
        return "After planting"
    if report.reason in {Reason.SEASON_ENDING, Reason.SEASON_OVER, Reason.SEASONAL_CAP}:
        return "No more this season"
    if report.reason == Reason.VALVE_FAULT:
        return "After the valve is repaired"
    return None


def _depletion_now_mm(summary: FieldSummary, report: Report) -> float:
    """The newest report's depletion, less a dose it does not hold yet."""
    dose = summary.last_watering
    if dose is None or dose.time_s < report.time_s or report.depletion_mm <= dose.depletion_mm - dose.dose_mm / 2:
        return report.depletion_mm
    return max(0.0, report.depletion_mm - dose.dose_mm)


def depletion_share_now(summary: FieldSummary, report: Report) -> float:
    """Dr / TAW with a dose told since the report already in the soil."""
    return _depletion_now_mm(summary, report) / report.taw_mm if report.taw_mm > 0 else 0.0


def next_call_s(reports: Sequence[Report], now_s: int) -> int:
    """When the node will probably report next, and so hear what is asked of it; now where that cannot be told.

    Args:
        reports: oldest first.
        now_s: Unix seconds.
    """
    if len(reports) < 2:
        return now_s
    last_s, before_s = reports[-1].time_s, reports[-2].time_s
    return max(now_s, last_s + min(max(last_s - before_s, 0), 2 * DAY_S))


def last_decision(summary: FieldSummary, now_s: int, utc_offset_min: int, units: words.Units) -> tuple[str, str]:
    """What the node did last, and why."""
    report, dose = summary.report, summary.last_watering
    if dose is not None and (report is None or dose.time_s >= report.time_s - DAY_S // 2):
        when = words.day_relative(dose.time_s, now_s, utc_offset_min)
        return f"Watered {when}: {words.depth(dose.dose_mm, units)}", words.reason(dose.reason).why
    if report is None:
        return "Not heard yet", "The node has not sent its first report."
    told = words.reason(report.reason)
    if report.reason == Reason.DEPLETED and dose is not None:
        when = words.day_relative(dose.time_s, now_s, utc_offset_min)
        return f"Watered {when}: {words.depth(dose.dose_mm, units)}", told.why
    return "Not watered today" if now_s - report.time_s < DAY_S else "Not watered", told.why


def calendar_mm(calendar: Calendar, start_s: int | None, until_s: int) -> float:
    """What the calendar would have given: one dose each time its days are full."""
    if start_s is None or until_s < start_s:
        return 0.0
    return (until_s - start_s) // (calendar.every_days * DAY_S) * calendar.dose_mm


def saving(summary: FieldSummary, calendar: Calendar, now_s: int) -> Saving:
    """Used and calendar water since planting, both until the season's end."""
    until_s = now_s if summary.season_end_s is None else min(now_s, summary.season_end_s)
    return Saving(summary.water_mm, calendar_mm(calendar, summary.season_start_s, until_s))


def attention(summary: FieldSummary, now_s: int, silent_after_s: float) -> str | None:
    """What a person should do about this field, or None."""
    device = summary.device
    if device.last_seen_s is None:
        return "The node has not been heard yet"
    if now_s - device.last_seen_s > silent_after_s:
        return f"Last heard {words.ago(now_s - device.last_seen_s)}: look at the node"
    if summary.report is not None and summary.report.reason == Reason.VALVE_FAULT:
        return "The valve does not answer: look at it"
    if device.faults:
        return "A sensor is broken: look at it"
    if device.battery_mv is not None and device.battery_mv < words.BATTERY_LOW_MV:
        return "Change the battery"
    return None


@dataclass(frozen=True, slots=True)
class Rise:
    """Water that came from above: the root zone got wetter by more than its own doses."""

    time_s: int
    water_mm: float


def rain_like_rises(reports: Sequence[Report], doses: Sequence[tuple[int, float]]) -> list[Rise]:
    """Rises between two reports that the doses (time, mm) between them do not explain; above 3 mm only."""
    rises = []
    for before, after in pairwise(reports):
        given = sum(mm for time_s, mm in doses if before.time_s <= time_s <= after.time_s)
        gained = before.depletion_mm - after.depletion_mm - given
        if gained > 3.0:
            rises.append(Rise(after.time_s, gained))
    return rises
