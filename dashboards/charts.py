"""Charts of a field's season and of a release's evidence; Altair, in the page's own theme."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from dashboards.config import Calendar
from dashboards.farm_store import DAY_S, FieldEvent, Report
from dashboards.fleet_store import Errors
from dashboards.outlook import rain_like_rises
from dashboards.words import Units
from shared_models.codes import EventCode

MAX_POINTS = 1500
WATER, RAIN, LIMIT, CALENDAR = "#3f86d0", "#8a9a9f", "#d2604f", "#9aa7b5"
_AXIS = alt.Axis(minExtent=46, maxExtent=46)


def _when(time_s: int, offset_min: int) -> pd.Timestamp:
    """Wall-clock time on the farm, without a zone: charts show it as it is."""
    return pd.Timestamp(time_s + offset_min * 60, unit="s")


def _span(reports: Sequence[Report], offset_min: int) -> alt.X:
    scale = alt.Scale(domain=[_stamp(reports[0].time_s, offset_min), _stamp(reports[-1].time_s + DAY_S, offset_min)])
    return alt.X("when:T", title=None, scale=scale, axis=alt.Axis(format="%-d %b", tickCount=8))


def _stamp(time_s: int, offset_min: int) -> alt.DateTime:
    when = _when(time_s, offset_min)
    return alt.DateTime(year=when.year, month=when.month, date=when.day, hours=when.hour)


def soil(reports: Sequence[Report], offset_min: int) -> alt.LayerChart:
    """Water left for the crop through the season against the line where the node waters."""
    step = max(1, len(reports) // MAX_POINTS)
    frame = pd.DataFrame(
        {
            "when": [_when(report.time_s, offset_min) for report in reports[::step]],
            "left": [100 * (1 - report.depletion_share) for report in reports[::step]],
            "limit": [100 * (1 - report.threshold) for report in reports[::step]],
        }
    )
    lowest = min(frame["left"].min(), frame["limit"].min())
    scale = alt.Scale(domain=[max(0.0, lowest - 8), 102], nice=False, clamp=True)
    base = alt.Chart(frame).encode(x=_span(reports, offset_min))
    left = alt.Y("left:Q", title="water left, %", scale=scale, axis=_AXIS)
    tooltip = [
        alt.Tooltip("when:T", title="time", format="%a %-d %b %H:%M"),
        alt.Tooltip("left:Q", title="water left, %", format=".0f"),
        alt.Tooltip("limit:Q", title="waters below, %", format=".0f"),
    ]
    return alt.layer(
        base.mark_area(color=WATER, opacity=0.14, line=False, clip=True).encode(y=left),
        base.mark_line(color=WATER, strokeWidth=2.2).encode(y=left, tooltip=tooltip),
        base.mark_line(color=LIMIT, strokeDash=[6, 4], strokeWidth=2).encode(y=alt.Y("limit:Q", scale=scale)),
    ).properties(height=290)


def water(reports: Sequence[Report], events: Sequence[FieldEvent], offset_min: int, units: Units) -> alt.Chart:
    """Waterings, and rises of the soil's water that no watering explains."""
    doses = [(event.time_s, event.dose_mm) for event in events if event.code == EventCode.WATERED]
    rows = [(_when(time_s, offset_min), _shown(mm, units), "watering") for time_s, mm in doses]
    rows += [
        (_when(rise.time_s, offset_min), _shown(rise.water_mm, units), "like rain")
        for rise in rain_like_rises(reports, doses)
    ]
    frame = pd.DataFrame(rows, columns=["when", "amount", "kind"])
    unit = "in" if units == "imperial" else "mm"
    return (
        alt.Chart(frame)
        .mark_bar(width=5, clip=True)
        .encode(
            x=_span(reports, offset_min),
            y=alt.Y("amount:Q", title=unit, axis=_AXIS),
            color=alt.Color(
                "kind:N",
                scale=alt.Scale(domain=["watering", "like rain"], range=[WATER, RAIN]),
                legend=alt.Legend(orient="top", title=None),
            ),
            tooltip=[
                alt.Tooltip("when:T", title="time", format="%a %-d %b %H:%M"),
                alt.Tooltip("amount:Q", title=unit, format=".1f"),
                alt.Tooltip("kind:N", title="kind"),
            ],
        )
        .properties(height=210)
    )


def cumulative(
    reports: Sequence[Report],
    used_mm: float,
    start_s: int,
    until_s: int,
    calendar: Calendar,
    offset_min: int,
    units: Units,
) -> alt.Chart:
    """Water given since planting beside what the calendar would have given."""
    own = [
        (_when(report.time_s, offset_min), _shown(report.water_season_mm, units), "this field") for report in reports
    ]
    own.append((_when(until_s, offset_min), _shown(used_mm, units), "this field"))
    interval_s = calendar.every_days * DAY_S
    planned = [
        (_when(start_s + count * interval_s, offset_min), _shown(count * calendar.dose_mm, units), "by calendar")
        for count in range((until_s - start_s) // interval_s + 1)
    ]
    planned.append((_when(until_s, offset_min), planned[-1][1], "by calendar"))
    frame = pd.DataFrame(own[-MAX_POINTS:] + planned, columns=["when", "total", "kind"])
    unit = "in" if units == "imperial" else "mm"
    return (
        alt.Chart(frame)
        .mark_line(interpolate="step-after", strokeWidth=2.6)
        .encode(
            x=_span(reports, offset_min),
            y=alt.Y("total:Q", title=f"{unit} since planting", axis=_AXIS),
            color=alt.Color(
                "kind:N",
                scale=alt.Scale(domain=["this field", "by calendar"], range=[WATER, CALENDAR]),
                legend=alt.Legend(orient="top", title=None),
            ),
            strokeDash=alt.StrokeDash(
                "kind:N", scale=alt.Scale(domain=["this field", "by calendar"], range=[[1, 0], [6, 4]]), legend=None
            ),
            tooltip=[
                alt.Tooltip("kind:N", title="line"),
                alt.Tooltip("when:T", title="time", format="%a %-d %b"),
                alt.Tooltip("total:Q", title=unit, format=".0f"),
            ],
        )
        .properties(height=300)
    )


def evidence(errors: Sequence[Errors], target: str) -> alt.Chart:
    """Error at each site for one target: physics alone, the release before, this one."""
    kinds = ("physics", "before", "after")
    rows = [
        (entry.site, kind, value, entry.windows)
        for entry in errors
        if entry.target == target
        for kind, value in zip(kinds, (entry.baseline, entry.before, entry.after), strict=True)
    ]
    frame = pd.DataFrame(rows, columns=["site", "kind", "error", "windows"])
    return (
        alt.Chart(frame)
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            x=alt.X("error:Q", title="RMS error, output steps"),
            y=alt.Y("site:N", title=None, axis=alt.Axis(labelLimit=160)),
            yOffset=alt.YOffset("kind:N", scale=alt.Scale(domain=list(kinds))),
            color=alt.Color(
                "kind:N",
                scale=alt.Scale(domain=list(kinds), range=[CALENDAR, "#c79a3a", WATER]),
                legend=alt.Legend(orient="top", title=None),
            ),
            tooltip=[
                alt.Tooltip("site:N"),
                alt.Tooltip("kind:N"),
                alt.Tooltip("error:Q", format=".2f"),
                alt.Tooltip("windows:Q"),
            ],
        )
        .properties(height=130 + 66 * frame["site"].nunique())
    )


def _shown(mm: float, units: Units) -> float:
    return mm / 25.4 if units == "imperial" else mm
