"""What a season came to: water, yield, models, frames, energy, and whether every stage really happened."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from nodes.emulator.farm import FarmReport
from nodes.scenario import DAY_S, WAKE_PERIOD_S
from noria.demo.season import Season


@dataclass(frozen=True)
class Stage:
    """One stage of the slice, counted.

    Attributes:
        name: what should have happened.
        count: how often it did.
        needed: how often it must have, at least.
    """

    name: str
    count: int
    needed: int

    @property
    def ok(self) -> bool:
        """Whether it happened often enough."""
        return self.count >= self.needed


@dataclass(frozen=True)
class GatewayFigures:
    """What one gateway's store says of its season."""

    site: str
    uplinks: int
    snapshots: int
    windows: int
    sums_digest: str
    """SHA-256 over every node's newest statistics: equal digests mean equal sums."""
    counters: dict[str, int]


@dataclass
class Summary:
    """The whole result, JSON-able."""

    scenario: str
    seed: int
    days: int
    wall_s: float
    fields: list[dict[str, Any]]
    radio: dict[str, Any]
    gateways: list[GatewayFigures]
    rounds: list[dict[str, Any]]
    campaigns: list[dict[str, Any]]
    stages: list[Stage] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every stage really happened."""
        return all(stage.ok for stage in self.stages)

    def as_json(self) -> dict[str, Any]:
        """Plain values for :func:`json.dumps`."""
        stages = [{**asdict(stage), "ok": stage.ok} for stage in self.stages]
        return {**asdict(self), "stages": stages, "complete": self.complete}


def _read(path: Path, query: str) -> list[sqlite3.Row]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(query).fetchall()


def gateway_figures(site: str, store: Path) -> GatewayFigures:
    """Read a gateway's store as documented in ``gateway/schema.sql``."""
    snapshots = _read(store, "SELECT * FROM snapshots ORDER BY dev_eui, backbone_id, season")
    digest = sha256()
    for row in snapshots:
        digest.update(f"{row['dev_eui']}/{row['backbone_id']}/{row['season']}/".encode() + row["payload"])
    counters = {row["name"]: row["value"] for row in _read(store, "SELECT name, value FROM counters ORDER BY name")}
    return GatewayFigures(
        site=site,
        uplinks=_read(store, "SELECT count(*) AS n FROM uplinks")[0]["n"],
        snapshots=len(snapshots),
        windows=sum(row["windows"] for row in snapshots),
        sums_digest=digest.hexdigest(),
        counters=counters,
    )


def _ratio(value: float, reference: float) -> float | None:
    """None where there is nothing to compare with."""
    return round(value / reference, 3) if reference > 0 else None


def field_row(site: str, report: Any) -> dict[str, Any]:  # noqa: ANN401  FieldReport, spelled once in nodes
    """One field's line of the summary."""
    result = report.result
    return {
        "site": site,
        "field": report.name,
        "crop": report.crop,
        "soil": report.soil,
        "board": report.board,
        "dev_eui": report.dev_eui,
        "water_mm": round(result.water_mm, 1),
        "calendar_water_mm": round(result.calendar_water_mm, 1),
        "yield_t_ha": round(result.yield_t_ha, 3),
        "rainfed_yield_t_ha": round(result.rainfed_yield_t_ha, 3),
        "calendar_yield_t_ha": round(result.calendar_yield_t_ha, 3),
        "yield_relative_to_rainfed": _ratio(result.yield_t_ha, result.rainfed_yield_t_ha),
        "yield_relative_to_calendar": _ratio(result.yield_t_ha, result.calendar_yield_t_ha),
        "water_relative_to_calendar": _ratio(result.water_mm, result.calendar_water_mm),
        "ripe": result.ripe,
        "model_version": report.model_version,
        "events": report.events,
        "wakes": report.wakes,
        "cycles_per_wake": round(report.cycles_per_wake),
        "energy_uah": round(report.energy_uah, 1),
        "energy_by_consumer_uah": {name: round(value, 2) for name, value in report.energy_by_consumer_uah.items()},
        "projected_life_years": round(report.projected_life_years, 2),
    }


def radio_figures(reports: Sequence[FarmReport], fields: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Frames of all farms together."""
    traffic = [entry.traffic for report in reports for entry in report.fields]
    digest = sha256("".join(report.air_digest for report in reports).encode()).hexdigest()
    updated = {row["dev_eui"] for row in fields if row["events"].get("model_activated")}
    recovered = sum(
        entry.traffic.downlinks_lost for report in reports for entry in report.fields if entry.dev_eui in updated
    )
    return {
        "uplinks_sent": sum(each.uplinks_sent for each in traffic),
        "uplinks_lost": sum(each.uplinks_lost for each in traffic),
        "downlinks_sent": sum(each.downlinks_sent for each in traffic),
        "downlinks_lost": sum(each.downlinks_lost for each in traffic),
        "downlinks_recovered": recovered,
        "airtime_s": round(sum(each.airtime_s for each in traffic), 1),
        "sha256": digest,
    }


def summarise(season: Season, reports: Sequence[FarmReport], wall_s: float, *, dashboard_pages: int) -> Summary:
    """Gather what the parts say of themselves, and count every stage.

    Args:
        season: after :meth:`Season.run`.
        reports: what it returned.
        wall_s: real time the season took, s.
        dashboard_pages: pages of the dashboard that answered.
    """
    system, scenario = season.system, season.system.scenario
    fields = [field_row(report.site, entry) for report in reports for entry in report.fields]
    radio = radio_figures(reports, fields)
    gateways = [gateway_figures(farm.site, system.deployment.gateway_store(farm.site)) for farm in scenario.farms]
    store = system.deployment.server_store
    rounds = [
        {**dict(row), "evidence": json.loads(row["evidence"])}
        for row in _read(store, "SELECT * FROM rounds ORDER BY id")
    ]
    campaigns = [dict(row) for row in _read(store, "SELECT * FROM campaign_overview ORDER BY id")]
    summary = Summary(
        scenario=scenario.name,
        seed=scenario.seed,
        days=scenario.days,
        wall_s=round(wall_s, 1),
        fields=fields,
        radio=radio,
        gateways=gateways,
        rounds=rounds,
        campaigns=campaigns,
    )
    summary.stages = stages(season, summary, dashboard_pages)
    return summary


def stages(season: Season, summary: Summary, dashboard_pages: int) -> list[Stage]:
    """Count what happened against what must have."""
    scenario = season.system.scenario
    nodes = len(summary.fields)
    farms = len(scenario.farms)
    events: Counter[str] = Counter()
    for row in summary.fields:
        events.update(row["events"])
    wakes_needed = scenario.days * DAY_S // WAKE_PERIOD_S - 1
    committed = sum(gateway.uplinks for gateway in summary.gateways)
    return [
        Stage("nodes that woke every 15 minutes", sum(row["wakes"] >= wakes_needed for row in summary.fields), nodes),
        Stage(
            "nodes that read their drained upper limit", sum("anchored" in r["events"] for r in summary.fields), nodes
        ),
        Stage("doses decided and given by nodes", events["watered"], 1),
        Stage("uplinks lost on the air", summary.radio["uplinks_lost"], 1),
        Stage("uplinks committed by gateways", committed, max(1, season.uplinks_published)),
        Stage("nodes whose statistics arrived", sum(gateway.snapshots for gateway in summary.gateways), nodes),
        Stage("federated rounds with every farm", sum(row["accepted"] == farms for row in summary.rounds), 1),
        Stage("releases proved better, signed", sum(row["state"] == "released" for row in summary.rounds), 1),
        Stage("campaigns done", sum(row["state"] == "done" for row in summary.campaigns), 1),
        Stage("nodes that verified and activated it", events["model_activated"], nodes),
        Stage("nodes whose probation decided", events["model_confirmed"] + events["model_rolled_back"], nodes),
        Stage("nodes that confirmed it", events["model_confirmed"], nodes // 2 + 1),
        Stage("dashboard pages that answered", dashboard_pages, 1),
    ]


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    """A table that fits 80 columns: names to the left, numbers to the right."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for heading in left:
        table.add_column(heading, no_wrap=True)
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _fields_table(summary: Summary) -> Table:
    numbers = ("water mm", "calendar", "yield t/ha", "÷ calendar", "÷ rainfed")
    table = _table("Fields", ("field", "crop"), numbers)
    for row in summary.fields:
        relative = (row["yield_relative_to_calendar"], row["yield_relative_to_rainfed"])
        table.add_row(
            f"{row['site']}/{row['field']}",
            row["crop"],
            f"{row['water_mm']:.0f}",
            f"{row['calendar_water_mm']:.0f}",
            f"{row['yield_t_ha']:.2f}",
            *("–" if ratio is None else f"{ratio:.2f}" for ratio in relative),
        )
    return table


def _nodes_table(summary: Summary) -> Table:
    table = _table("Nodes", ("node", "board"), ("model", "wakes", "cycles/wake", "energy mAh", "battery years"))
    for row in summary.fields:
        table.add_row(
            f"{row['site']}/{row['field']}",
            row["board"],
            str(row["model_version"]),
            f"{row['wakes']:,}",
            f"{row['cycles_per_wake']:,}",
            f"{row['energy_uah'] / 1000:.2f}",
            f"{row['projected_life_years']:.1f}",
        )
    return table


def show(summary: Summary, console: Console) -> None:
    """Print the summary for people."""
    console.print(_fields_table(summary), _nodes_table(summary))
    water = sum(row["water_mm"] for row in summary.fields)
    calendar = sum(row["calendar_water_mm"] for row in summary.fields)
    produce = sum(row["yield_t_ha"] for row in summary.fields) / sum(r["calendar_yield_t_ha"] for r in summary.fields)
    console.print(
        f"Water: {water:.0f} mm where the calendar gives {calendar:.0f} mm "
        f"({100 * (1 - water / calendar):.0f} % less), at {produce:.3f} of its yield."
    )
    radio = summary.radio
    console.print(
        f"Radio: {radio['uplinks_sent']} uplinks, {radio['uplinks_lost']} lost; {radio['downlinks_sent']} downlinks, "
        f"{radio['downlinks_lost']} lost, {radio['downlinks_recovered']} of those made good. "
        f"Every byte: sha256 {radio['sha256'][:16]}…"
    )
    for row in summary.rounds:
        outcome = f"release {row['version']}" if row["version"] else f"{row['state']}: {row['reason']}"
        console.print(
            f"Round {row['id']}: {row['accepted']} farms, {row['contributors']} nodes, "
            f"{row['windows']} windows → {outcome}"
        )
    for row in summary.campaigns:
        console.print(
            f"Campaign {row['id']}: release {row['version']}, {row['state']}, "
            f"{row['confirmed']} of {row['nodes']} nodes confirmed, {row['downlinks']} downlinks"
        )
    checks = Table(title="Stages", title_justify="left", box=None, padding=(0, 1, 0, 0), show_header=False)
    for stage in summary.stages:
        checks.add_row(
            "[green]✓[/]" if stage.ok else "[red]✗[/]", stage.name, f"{stage.count}", f"needs {stage.needed}"
        )
    console.print(checks)
    console.print(f"Season of {summary.days} days, seed {summary.seed}, in {summary.wall_s:.0f} s.")
