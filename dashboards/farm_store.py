"""A farm's gateway store as the dashboard sees it: fields, reports, decisions, days, overrides.

The schema is the gateway's ``schema.sql``. Every query is bounded and walks a primary key or an index.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dashboards.access import counters, json_object, meta, meta_int, reading
from shared_models.codes import EventCode, Mode, Reason

MAX_FIELDS = 500
MAX_REPORTS = 6000
MAX_EVENTS = 2000
DAY_S = 86400
DAWN_S = 6 * 3600
STRIP_DAYS = 21
"""Days in the small picture of a field's recent past."""


@dataclass(frozen=True, slots=True)
class Report:
    """One telemetry report. Water in millimetres, contents as fractions (m3/m3)."""

    time_s: int
    mode: int
    valve_open: bool
    faults: int
    updating: bool
    battery_mv: int
    depletion_mm: float
    taw_mm: float
    threshold: float
    """Share of TAW at which the node waters."""
    forecast_24h: float
    """Expected change of the root zone's water content by tomorrow, m3/m3."""
    water_season_mm: float
    reason: int
    model_version: int

    @property
    def depletion_share(self) -> float:
        """Dr / TAW: 0 is full, 1 is nothing left for the crop."""
        return self.depletion_mm / self.taw_mm if self.taw_mm > 0 else 0.0

    @property
    def threshold_mm(self) -> float:
        """Depletion at which the node waters."""
        return self.threshold * self.taw_mm


@dataclass(frozen=True, slots=True)
class FieldEvent:
    """One event a node told: what happened, and why."""

    time_s: int
    code: int
    reason: int
    dose_mm: float
    depletion_mm: float
    taw_mm: float
    threshold: float
    model_version: int


@dataclass(frozen=True, slots=True)
class Day:
    """One dawn-to-dawn day of the roll-up."""

    day_s: int
    depletion_min_mm: float | None
    depletion_max_mm: float | None
    taw_mm: float | None
    threshold: float | None
    water_mm: float
    doses: int


@dataclass(frozen=True, slots=True)
class Device:
    """A field and the node in it."""

    dev_eui: str
    name: str
    crop: str
    board: str
    area_ha: float
    last_seen_s: int | None
    battery_mv: int | None
    mode: int | None
    faults: int
    model_version: int | None
    data_rate: int | None
    rssi_dbm: float | None
    frames: int
    frames_missed: int


@dataclass(frozen=True, slots=True)
class FieldSummary:
    """All that one card of the overview shows."""

    device: Device
    report: Report | None
    days: Sequence[Day]
    """The last weeks, oldest first."""
    last_watering: FieldEvent | None
    season_start_s: int | None
    season_end_s: int | None
    """When the node said the season is over; None while it runs."""
    water_mm: float
    stopped_until_s: int | None
    """The farmer's own stop, as far as it was asked for here."""


@dataclass(frozen=True, slots=True)
class FarmState:
    """A farm at one instant."""

    clock_s: int | None
    utc_offset_min: int
    fields: Sequence[FieldSummary]
    counters: dict[str, int]


@dataclass(frozen=True, slots=True)
class Override:
    """Something a farmer asked for."""

    id: int
    created_s: int
    actor: str
    action: str
    dose_mm: float | None
    until_s: int | None
    state: str
    result: str


@dataclass(frozen=True, slots=True)
class FieldHistory:
    """One field's season."""

    clock_s: int | None
    utc_offset_min: int
    summary: FieldSummary
    reports: Sequence[Report]
    events: Sequence[FieldEvent]
    overrides: Sequence[Override]


def read_farm(store: Path, season_start: dt.date | None = None) -> FarmState:
    """Every field of the farm, for the overview."""
    with reading(store) as connection:
        facts = meta(connection)
        offset_min = meta_int(facts, "utc_offset_min")
        return FarmState(
            clock_s=_clock(facts),
            utc_offset_min=offset_min,
            fields=[_summary(connection, device, offset_min, season_start) for device in _devices(connection)],
            counters=counters(connection),
        )


def field_names(store: Path) -> dict[str, str]:
    """Names of the fields by device."""
    with reading(store) as connection:
        return {device.dev_eui: device.name for device in _devices(connection)}


def read_field(store: Path, dev_eui: str, season_start: dt.date | None = None) -> FieldHistory | None:
    """One field's season; None where the store does not know the device."""
    with reading(store) as connection:
        facts = meta(connection)
        offset_min = meta_int(facts, "utc_offset_min")
        device = next((known for known in _devices(connection) if known.dev_eui == dev_eui), None)
        if device is None:
            return None
        summary = _summary(connection, device, offset_min, season_start)
        since_s = summary.season_start_s or 0
        return FieldHistory(
            clock_s=_clock(facts),
            utc_offset_min=offset_min,
            summary=summary,
            reports=_reports(connection, dev_eui, since_s),
            events=_events(connection, dev_eui),
            overrides=_overrides(connection, dev_eui),
        )


def _clock(facts: dict[str, str]) -> int | None:
    return meta_int(facts, "clock_s") or None


def _devices(connection: sqlite3.Connection) -> list[Device]:
    rows = connection.execute(
        "SELECT dev_eui, name, crop, board, area_ha, last_seen_s, battery_mv, mode, faults, model_version, data_rate,"
        " rssi_dbm, frames, frames_missed FROM devices WHERE listed = 1 ORDER BY name, dev_eui LIMIT ?",
        (MAX_FIELDS,),
    )
    return [
        Device(
            dev_eui=row["dev_eui"],
            name=row["name"],
            crop=row["crop"],
            board=row["board"],
            area_ha=row["area_ha"],
            last_seen_s=row["last_seen_s"],
            battery_mv=row["battery_mv"],
            mode=row["mode"],
            faults=row["faults"] or 0,
            model_version=row["model_version"],
            data_rate=row["data_rate"],
            rssi_dbm=row["rssi_dbm"],
            frames=row["frames"],
            frames_missed=row["frames_missed"],
        )
        for row in rows
    ]


def _summary(
    connection: sqlite3.Connection, device: Device, offset_min: int, season_start: dt.date | None
) -> FieldSummary:
    report = _latest_report(connection, device.dev_eui)
    start_s = _season_start(connection, device.dev_eui, offset_min, season_start)
    return FieldSummary(
        device=device,
        report=report,
        days=_recent_days(connection, device.dev_eui),
        last_watering=_last_watering(connection, device.dev_eui),
        season_start_s=start_s,
        season_end_s=_season_end(connection, device.dev_eui, start_s),
        water_mm=_water(connection, device.dev_eui, report),
        stopped_until_s=_stopped_until(connection, device.dev_eui),
    )


_REPORT_COLUMNS = (
    "time_s, mode, valve_open, faults, updating, battery_mv, depletion_e1_mm, taw_e1_mm, threshold_permille,"
    " forecast_24h_e4, water_season_e1_mm, last_reason, model_version"
)


def _report(row: sqlite3.Row) -> Report:
    return Report(
        time_s=row["time_s"],
        mode=row["mode"],
        valve_open=bool(row["valve_open"]),
        faults=row["faults"],
        updating=bool(row["updating"]),
        battery_mv=row["battery_mv"],
        depletion_mm=row["depletion_e1_mm"] / 10,
        taw_mm=row["taw_e1_mm"] / 10,
        threshold=row["threshold_permille"] / 1000,
        forecast_24h=row["forecast_24h_e4"] / 10_000,
        water_season_mm=row["water_season_e1_mm"] / 10,
        reason=row["last_reason"],
        model_version=row["model_version"],
    )


def _latest_report(connection: sqlite3.Connection, dev_eui: str) -> Report | None:
    row = connection.execute(
        f"SELECT {_REPORT_COLUMNS} FROM telemetry WHERE dev_eui = ? ORDER BY time_s DESC LIMIT 1",  # noqa: S608
        (dev_eui,),
    ).fetchone()
    return None if row is None else _report(row)


def _reports(connection: sqlite3.Connection, dev_eui: str, since_s: int) -> list[Report]:
    rows = connection.execute(
        f"SELECT {_REPORT_COLUMNS} FROM telemetry WHERE dev_eui = ? AND time_s >= ?"  # noqa: S608
        " ORDER BY time_s DESC LIMIT ?",
        (dev_eui, since_s, MAX_REPORTS),
    ).fetchall()
    return [_report(row) for row in reversed(rows)]


def _event(row: sqlite3.Row) -> FieldEvent:
    return FieldEvent(
        time_s=row["time_s"],
        code=row["code"],
        reason=row["reason"],
        dose_mm=row["dose_e1_mm"] / 10,
        depletion_mm=row["depletion_e1_mm"] / 10,
        taw_mm=row["taw_e1_mm"] / 10,
        threshold=row["threshold_permille"] / 1000,
        model_version=row["model_version"],
    )


def _events(connection: sqlite3.Connection, dev_eui: str) -> list[FieldEvent]:
    rows = connection.execute(
        "SELECT * FROM events WHERE dev_eui = ? ORDER BY time_s DESC LIMIT ?", (dev_eui, MAX_EVENTS)
    )
    return [_event(row) for row in rows]


def _last_watering(connection: sqlite3.Connection, dev_eui: str) -> FieldEvent | None:
    row = connection.execute(
        "SELECT * FROM events WHERE dev_eui = ? AND code = ? ORDER BY time_s DESC LIMIT 1",
        (dev_eui, int(EventCode.WATERED)),
    ).fetchone()
    return None if row is None else _event(row)


def _recent_days(connection: sqlite3.Connection, dev_eui: str) -> list[Day]:
    rows = connection.execute(
        "SELECT day_s, depletion_min_e1_mm, depletion_max_e1_mm, taw_e1_mm, threshold_permille, water_e1_mm, doses"
        " FROM daily WHERE dev_eui = ? ORDER BY day_s DESC LIMIT ?",
        (dev_eui, STRIP_DAYS),
    ).fetchall()
    return [
        Day(
            day_s=row["day_s"],
            depletion_min_mm=_scaled(row["depletion_min_e1_mm"], 10),
            depletion_max_mm=_scaled(row["depletion_max_e1_mm"], 10),
            taw_mm=_scaled(row["taw_e1_mm"], 10),
            threshold=_scaled(row["threshold_permille"], 1000),
            water_mm=row["water_e1_mm"] / 10,
            doses=row["doses"],
        )
        for row in reversed(rows)
    ]


def _scaled(value: int | None, divisor: int) -> float | None:
    return None if value is None else value / divisor


def _season_start(
    connection: sqlite3.Connection, dev_eui: str, offset_min: int, configured: dt.date | None
) -> int | None:
    """06:00 local of planting day: configured, else the dawn at or before the first report after commissioning."""
    if configured is not None:
        midnight = dt.datetime.combine(configured, dt.time(), dt.UTC)
        return int(midnight.timestamp()) + DAWN_S - offset_min * 60
    row = connection.execute(
        "SELECT min(time_s) AS first_s FROM telemetry WHERE dev_eui = ?1 AND mode <> ?2 AND time_s >"
        " coalesce((SELECT max(time_s) FROM telemetry WHERE dev_eui = ?1 AND mode = ?2), 0)",
        (dev_eui, int(Mode.COMMISSIONING)),
    ).fetchone()
    if row["first_s"] is None:
        return None
    since_dawn_s = (int(row["first_s"]) + offset_min * 60 - DAWN_S) % DAY_S
    return int(row["first_s"]) - since_dawn_s


def _season_end(connection: sqlite3.Connection, dev_eui: str, start_s: int | None) -> int | None:
    row = connection.execute(
        "SELECT min(time_s) AS end_s FROM telemetry WHERE dev_eui = ? AND time_s >= ? AND last_reason = ?",
        (dev_eui, start_s or 0, int(Reason.SEASON_OVER)),
    ).fetchone()
    return None if row["end_s"] is None else int(row["end_s"])


def _water(connection: sqlite3.Connection, dev_eui: str, report: Report | None) -> float:
    """Given this season: the node's own total, which survives lost frames, and doses told since."""
    row = connection.execute(
        "SELECT coalesce(sum(dose_e1_mm), 0) AS dose FROM events WHERE dev_eui = ? AND time_s > ? AND code = ?",
        (dev_eui, report.time_s if report else 0, int(EventCode.WATERED)),
    ).fetchone()
    return (report.water_season_mm if report else 0.0) + int(row["dose"]) / 10


def _overrides(connection: sqlite3.Connection, dev_eui: str) -> list[Override]:
    """What was asked for this field, newest first; ``dev_eui`` of a row is NULL until the gateway has read it."""
    rows = connection.execute(
        "SELECT id, created_s, actor, action, arguments, state, result, dev_eui FROM commands"
        " ORDER BY id DESC LIMIT 500"
    )
    found = []
    for row in rows:
        arguments = json_object(row["arguments"])
        if dev_eui not in {row["dev_eui"], arguments.get("dev_eui")}:
            continue
        until_s, dose_mm = arguments.get("until_s"), arguments.get("dose_mm")
        found.append(
            Override(
                id=row["id"],
                created_s=row["created_s"],
                actor=row["actor"],
                action=row["action"],
                dose_mm=float(dose_mm) if isinstance(dose_mm, int | float) else None,
                until_s=until_s if isinstance(until_s, int) else None,
                state=row["state"],
                result=row["result"],
            )
        )
    return found


def _stopped_until(connection: sqlite3.Connection, dev_eui: str) -> int | None:
    for override in _overrides(connection, dev_eui):
        if override.state in {"refused", "failed"}:
            continue
        if override.action in {"override.resume", "override.water"}:
            return None
        if override.action == "override.stop":
            return override.until_s
    return None
