"""``noria evaluate forecast``: how well nodes foretell their own dry-down, in the judge's world and on real probes."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE, PICTURE = DOCS / "evaluation-forecast.md", DOCS / "images" / "forecast.svg"
WORLD_SEEDS = "101,102,103"
QUICK_SEEDS, QUICK_CLIMATES, QUICK_SITES, QUICK_SEASONS = "1", "champion,tunis", ("US-Tw3", "COSMOS ARM-1"), 2
"""Seen data, small enough for a test."""
UNUSABLE = 2

Item = TypeVar("Item")
Result = TypeVar("Result")
console = Console()
errors = Console(stderr=True)


class Part(StrEnum):
    """What to evaluate."""

    WORLD = "world"
    MEASURED = "measured"


class Sites(StrEnum):
    """Which measured series."""

    SEEN = "seen"
    HELD_OUT = "held-out"
    ALL = "all"


def forecast(
    seeds: Annotated[str, typer.Option(help="World seeds, with commas.")] = WORLD_SEEDS,
    climates: Annotated[str | None, typer.Option(help="Climates, with commas; all unless given.")] = None,
    fields: Annotated[int, typer.Option(min=1, help="Fields per climate and seed.")] = 3,
    part: Annotated[Part | None, typer.Option(help="Only the judge's world, or only measured series.")] = None,
    sites: Annotated[Sites, typer.Option(help="Measured series: those seen in development, the others, or all.")] = (
        Sites.ALL
    ),
    quick: Annotated[bool, typer.Option("--quick", help="A few seen fields and series, in seconds.")] = False,
    processes: Annotated[int | None, typer.Option(min=1, help="How many at a time; one per core unless given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    write_docs: Annotated[bool, typer.Option("--write-docs", help="Renew docs/evaluation-forecast.md.")] = False,
) -> None:
    """Measure how well nodes forecast their dry-down over 24, 48 and 72 h, against their free dry-rate average.

    A ratio below 1 is better than the average. The judge's world: the second year of AquaCrop fields, after one year
    of the fleet's statistics from all other climates, and of the node's own. Measured series: every four weeks anew
    from all that had ended by then. Exit 2 where measured series cannot be had.
    """
    from noria.evaluation.forecast_chart import forecast_chart
    from noria.evaluation.probes_sources import ProbesError

    if write_docs and (quick or part):
        _fail("--write-docs: the page shows the whole evaluation; leave out --quick and --part")
    report: dict[str, Any] = {}
    workers = processes or os.cpu_count() or 1
    try:
        if part is not Part.MEASURED:
            chosen = QUICK_CLIMATES if quick else climates
            report["world"] = _world(QUICK_SEEDS if quick else seeds, chosen, 1 if quick else fields, workers)
        if part is not Part.WORLD:
            report["measured"] = _measured(sites, workers, quick=quick)
    except ProbesError as error:
        _fail(f"{error}; for the judge's world alone: --part world")
    if write_docs:
        PICTURE.write_text(forecast_chart(report), encoding="utf-8")
        PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), report), encoding="utf-8")
    if as_json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        _show(report)


def _world(seeds: str, climates: str | None, fields: int, workers: int) -> dict[str, Any]:
    from nodes.field.climates import CLIMATES
    from nodes.field.fields import sample_fields
    from noria.evaluation.forecast_report import world_report
    from shared_models.factory import factory_image

    names = climates.split(",") if climates else None
    unknown = set(names or ()) - set(CLIMATES)
    if unknown:
        _fail(f"--climates: {', '.join(sorted(unknown))} unknown; there are {', '.join(sorted(CLIMATES))}")
    if not all(seed.strip().isdigit() for seed in seeds.split(",")):
        _fail(f"--seeds: {seeds!r} is not a list of numbers such as 101,102")
    years = [year for seed in seeds.split(",") for year in sample_fields(int(seed), names, fields)]
    lives = [tuple(life) for _, life in groupby(years, key=lambda year: (year.seed, year.name))]
    return {
        "seeds": [int(seed) for seed in seeds.split(",")],
        **world_report(_all("fields", _live_field, lives, workers), factory_image()),
    }


def _live_field(years: tuple[Any, ...]) -> Any:  # noqa: ANN401  loads AquaCrop only where it is used
    from noria.evaluation.forecast_world import live_field
    from shared_models.factory import factory_image

    return live_field(years, factory_image())


def _measured(sites: Sites, workers: int, *, quick: bool) -> dict[str, Any]:
    from noria.evaluation.forecast_report import measured_report
    from noria.evaluation.probes import SITES, seen_sites
    from noria.evaluation.probes_sources import SOURCES, ensure
    from shared_models.factory import factory_image

    for source in SOURCES:
        ensure(source)
    seen = {site.name for site in seen_sites()}
    chosen = {
        Sites.SEEN: seen,
        Sites.HELD_OUT: {site.name for site in SITES} - seen,
        Sites.ALL: {site.name for site in SITES},
    }[sites]
    tasks = [
        (site.name, QUICK_SEASONS if quick else None)
        for site in SITES
        if site.name in (QUICK_SITES if quick else chosen)
    ]
    return measured_report(_all("measured series", _live_site, tasks, workers), factory_image())


def _live_site(task: tuple[str, int | None]) -> Any:  # noqa: ANN401  loads nothing unless it is used
    from noria.evaluation.forecast_lives import live
    from noria.evaluation.probes import SITES
    from shared_models.factory import factory_image

    name, seasons = task
    site = next(site for site in SITES if site.name == name)
    return live(site, site.load(), factory_image(), seasons)


def _all(title: str, work: Callable[[Item], Result], items: list[Item], workers: int) -> list[Result]:
    """The results in order, with a bar; the number of processes changes nothing."""
    from nodes.hostcore import library

    library()
    bar = Progress(
        TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=errors, transient=True
    )
    context = multiprocessing.get_context("spawn")
    with bar, ProcessPoolExecutor(min(workers, len(items)), mp_context=context) as pool:
        found: Iterable[Result] = pool.map(work, items)
        return list(bar.track(found, total=len(items)))


# For people


def tables(report: dict[str, Any]) -> dict[str, list[list[str]]]:
    """Every table of the report by the name of its marks in the page."""
    from noria.evaluation import forecast_report as rows

    found = {}
    if "world" in report:
        found["climates"] = rows.climate_rows(report["world"])
        found["world"] = rows.world_rows(report["world"])
        found["eight-weeks"] = rows.eight_weeks_rows(report["world"])
    if "measured" in report:
        measured = report["measured"]
        found["measured"] = rows.measured_rows(measured, radiation=True, kind="dry-down")
        found["measured-no-rise"] = rows.measured_rows(measured, radiation=True, kind="no rise")
        found["measured-one-depth"] = rows.measured_rows(measured, radiation=False, kind="no rise")
        found["sites"] = rows.site_rows(measured)
        found["sources"] = rows.source_rows(measured)
    return found


def page_with(page: str, report: dict[str, Any]) -> str:
    """The page with its tables renewed.

    Raises:
        ValueError: a table's marks are not there.
    """
    from noria.evaluation.forecast_report import markdown
    from noria.pages import with_table

    for name, rows in tables(report).items():
        page = with_table(page, name, markdown(rows))
    return page


def _show(report: dict[str, Any]) -> None:
    for name, (header, *rows) in tables(report).items():
        table = Table(*header, title=name.replace("-", " "))
        for row in rows:
            table.add_row(*row)
        console.print(table)


def _fail(text: str) -> NoReturn:
    errors.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(UNUSABLE)
