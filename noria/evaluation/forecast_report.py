"""The report of ``noria evaluate forecast``: what was measured, as numbers for programs and tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from nodes.field.climates import CLIMATES
from noria.evaluation.forecast_heads import walk_forward
from noria.evaluation.forecast_lives import Life
from noria.evaluation.forecast_scores import HORIZONS_H, Score, by_horizon
from noria.evaluation.forecast_windows import Bool, Int64, Windows
from noria.evaluation.forecast_world import FieldLife, after_eight_weeks, second_year
from noria.evaluation.probes_sources import SOURCES
from shared_models.network import ModelImage

HEADS = ("node", "shipped", "own", "fleet", "fleet and own", "deployed")
BASELINES = ("unchanged", "trend")
EARLY_HEADS = ("shipped", "fleet", "fleet and own")
WINDOWS = ("dry-down", "counted", "no rise", "all")
"""The node's own dry-down windows; those of them it sums; no rise of a probe; every one, rain and doses included."""
TOGETHER = {"light derived from ET0": {False}, "radiation measured": {True}, "over all": {False, True}}
"""Climates scored together, by whether their radiation was measured."""
Report = dict[str, Any]


def _forecasts(windows: Windows, learned: Mapping[str, Int64], image: ModelImage) -> dict[str, Int64]:
    return {
        "node": windows.node_e4,
        "shipped": windows.forecast_e4(image),
        **learned,
        "unchanged": np.zeros(len(windows), np.int64),
        "trend": windows.trend_e4,
    }


def _scores(windows: Windows, learned: Mapping[str, Int64], allowed: Bool, blocks: Int64, image: ModelImage) -> Report:
    """Scores by kind of window, forecast and horizon; ``deployed`` is ``fleet and own`` where it is ``allowed``."""
    forecasts = _forecasts(windows, learned, image)
    forecasts["deployed"] = np.where(allowed, learned["fleet and own"], windows.average_e4())
    trust = {"deployed": allowed, "node": windows.model}
    chosen = {
        "dry-down": windows.gated,
        "counted": windows.learned,
        "no rise": windows.dried,
        "all": np.ones(len(windows), np.bool_),
    }
    report: Report = {}
    for kind, rows in chosen.items():
        scores = by_horizon(
            windows.where(rows),
            {name: forecast[rows] for name, forecast in forecasts.items()},
            blocks[rows],
            {name: flags[rows] for name, flags in trust.items()},
        )
        report[kind] = {
            name: {hours: _rounded(score) for hours, score in horizons.items()} for name, horizons in scores.items()
        }
    return report


def _rounded(score: Score | None) -> dict[str, float] | None:
    return None if score is None else {name: round(value, 4) for name, value in asdict(score).items()}


def world_report(lives: Sequence[FieldLife], image: ModelImage) -> Report:
    """Second-year scores per climate and of climates together, a field being a block."""
    learned, allowed = zip(*second_year(lives, image), strict=True)

    def scored(chosen: Sequence[int]) -> Report:
        windows = Windows.join([lives[index].second for index in chosen])
        joined = {name: np.concatenate([learned[index][name] for index in chosen]) for name in learned[chosen[0]]}
        blocks = np.repeat(np.array(chosen), [len(lives[index].second) for index in chosen])
        permitted = np.concatenate([allowed[index] for index in chosen])
        return {"fields": len(chosen), "windows": _scores(windows, joined, permitted, blocks, image)}

    places = {life.climate: CLIMATES[life.climate].radiation_measured for life in lives}
    report: Report = {"climates": {}, "together": {}}
    for climate in sorted(places):
        chosen = [index for index, life in enumerate(lives) if life.climate == climate]
        report["climates"][climate] = {"radiation_measured": places[climate], **scored(chosen)}
    for name, kinds in TOGETHER.items():
        chosen = [index for index, life in enumerate(lives) if places[life.climate] in kinds]
        if chosen:
            report["together"][name] = scored(chosen)
    report["eight_weeks"] = _eight_weeks(lives, image)
    return report


def _eight_weeks(lives: Sequence[FieldLife], image: ModelImage) -> Report:
    """Scores of the node's own dry-down windows from the ninth week on, by climate and over all."""
    found = after_eight_weeks(lives, image)
    climates = sorted({life.climate for life in lives})
    report: Report = {}
    for name in (*climates, "over all"):
        chosen = [index for index, life in enumerate(lives) if name in (life.climate, "over all")]
        windows = Windows.join([found[index][0] for index in chosen])
        blocks = np.repeat(np.array(chosen), [len(found[index][0]) for index in chosen])
        forecasts = {head: np.concatenate([found[index][1][head] for index in chosen]) for head in found[chosen[0]][1]}
        rows = windows.gated
        scores = by_horizon(
            windows.where(rows), {head: forecast[rows] for head, forecast in forecasts.items()}, blocks[rows], {}
        )
        report[name] = {
            head: {hours: _rounded(score) for hours, score in horizons.items()} for head, horizons in scores.items()
        }
    return report


def measured_report(lives: Sequence[Life], image: ModelImage) -> Report:
    """Scores per site; a week is a block."""
    sites: Report = {}
    for life in lives:
        others = [other.windows for other in lives if other is not life]
        learned, allowed = walk_forward(life.windows, others, image)
        sites[life.site.name] = {
            "package": life.site.source.package,
            "depths": life.site.depths,
            "radiation_measured": life.site.radiation_measured,
            "seasons": life.seasons,
            "windows": _scores(life.windows, learned, allowed, life.windows.start // 7, image),
        }
    return {
        "sites": sites,
        "sources": [
            {
                "package": f"{source.package} {source.version}",
                "package_licence": source.package_licence,
                "data": source.data,
                "data_terms": source.data_terms,
            }
            for source in SOURCES
        ],
    }


# For people


def world_rows(report: Report) -> list[list[str]]:
    """A header and a row per climate and horizon: the average's error, and every head's ratio to it."""
    rows = [["climate", "h", "windows", "average, vol-%", *HEADS, *BASELINES]]
    for places in (report["climates"], report["together"]):
        for name, place in places.items():
            rows += _ratio_rows(name, place["windows"]["dry-down"])
    return rows


def climate_rows(report: Report) -> list[list[str]]:
    """A header and a row per climate: every head's ratio over the horizons together, the root of their mean square.

    Each horizon counts the same, or three days' larger errors would decide.
    """
    rows = [["climate", *HEADS]]
    for places in (report["climates"], report["together"]):
        for name, place in places.items():
            scores = place["windows"]["dry-down"]
            ratios = [[score["ratio"] for score in scores[head].values() if score is not None] for head in HEADS]
            if all(ratios):
                rows.append([name, *(f"{np.sqrt(np.mean(np.square(of_head))):.2f}" for of_head in ratios)])
    return rows


def eight_weeks_rows(report: Report) -> list[list[str]]:
    """The same for what eight weeks of a fleet's statistics are worth."""
    rows = [["climate", "h", "windows", *EARLY_HEADS]]
    for name, scores in report["eight_weeks"].items():
        for hours in map(str, HORIZONS_H):
            if scores["shipped"][hours] is not None:
                ratios = [_ratio(scores[head][hours], head) for head in EARLY_HEADS]
                rows.append([name, hours, str(scores["shipped"][hours]["windows"]), *ratios])
    return rows


def measured_rows(report: Report, *, radiation: bool, kind: str) -> list[list[str]]:
    """The same per site, of those with or without measured radiation."""
    rows = [["site", "h", "windows", "average, vol-%", *HEADS, *BASELINES]]
    for name, site in report["sites"].items():
        if site["radiation_measured"] == radiation:
            rows += _ratio_rows(name, site["windows"][kind])
    return rows


def _ratio_rows(name: str, scores: Report) -> list[list[str]]:
    rows = []
    for hours in map(str, HORIZONS_H):
        node = scores["node"][hours]
        if node is not None:
            ratios = [_ratio(scores[forecast][hours], forecast) for forecast in (*HEADS, *BASELINES)]
            rows.append([name, hours, str(int(node["windows"])), f"{node['average_rmse']:.2f}", *ratios])
    return rows


def _ratio(score: Mapping[str, float], forecast: str) -> str:
    if forecast == "deployed" and not score["deployed"]:
        return "not deployed"
    share = f", on {score['deployed']:.0%}" if forecast == "deployed" else ""
    return f"{score['ratio']:.2f} [{score['low']:.2f}, {score['high']:.2f}]{share}"


def source_rows(report: Report) -> list[list[str]]:
    """A header and a row per package."""
    rows = [["package", "its licence", "measurements", "their terms"]]
    return rows + [
        [source["package"], source["package_licence"], source["data"], source["data_terms"]]
        for source in report["sources"]
    ]


def site_rows(report: Report) -> list[list[str]]:
    """A header and a row per site."""
    rows = [["site", "package", "probes", "measured radiation", "seasons"]]
    return rows + [
        [name, site["package"], site["depths"], "yes" if site["radiation_measured"] else "no", str(site["seasons"])]
        for name, site in report["sites"].items()
    ]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table; a row's first cell is left out where it repeats the one above."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    before = ""
    for first, *rest in rows[1:]:
        lines.append("| " + " | ".join(["" if first == before else first, *rest]) + " |")
        before = first
    return "\n".join(lines)
