"""``noria evaluate irrigation``: how much water the node needs for its yield, beside everything else one could do."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from noria.evaluation.protocol import Plan

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "build" / "evaluation"
PAGE, PICTURE = ROOT / "docs" / "evaluation.md", ROOT / "docs" / "images" / "irrigation.svg"
FAILED = 2
INTERRUPTED = 130
WIDTH = 160
"""Of tables that no terminal shows."""


class _Bar:
    """A bar for all stages on the error stream, so that ``--json -`` stays clean."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task = bars.add_task("", total=None)
        self._total = 0

    def stage(self, name: str, runs: int) -> None:
        """Name it, and make it longer."""
        self._total += runs
        self._bars.update(self._task, description=name, total=self._total)

    def done(self, runs: int) -> None:
        """Move it."""
        self._bars.advance(self._task, runs)


def irrigation(
    seeds: Annotated[str, typer.Option(help="World seeds, with commas between.")] = "",
    climates: Annotated[str, typer.Option(help="Climates, with commas between; all of them otherwise.")] = "",
    fields: Annotated[int | None, typer.Option(min=1, help="Fields in each climate.")] = None,
    years: Annotated[int | None, typer.Option(min=1, help="Years of each field.")] = None,
    training_seasons: Annotated[
        int | None, typer.Option(min=1, help="Seasons in the training worlds, for the figures beside it.")
    ] = None,
    processes: Annotated[int, typer.Option(min=0, max=256, help="Seasons at a time; 0 is one per core.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder of finished runs, report and picture.")] = OUTPUT,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the report as JSON to this file; - is standard output.")
    ] = None,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="A minute on seen data: does everything work?")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget all finished runs and do them again.")] = False,
    write_docs: Annotated[
        bool, typer.Option("--write-docs", help="Put tables and picture into docs/evaluation.md.")
    ] = False,
) -> None:
    """Judge controllers in AquaCrop: water against yield. Interrupt it at will; run it again and it goes on."""
    from nodes.firmware.host.build import HostBuildError
    from noria.evaluation.ledger import LedgerError, ledger
    from noria.evaluation.protocol import evaluate
    from noria.evaluation.runs import EvaluationError

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    try:
        plan = _plan(seeds, climates, fields, years, training_seasons, quick=quick)
        with ledger(output / "runs.sqlite", fresh=fresh) as connection, Progress(*columns, console=console) as bars:
            report = evaluate(plan, connection, processes or os.cpu_count() or 1, _Bar(bars))
    except (EvaluationError, LedgerError, HostBuildError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt:
        console.print("Stopped. Finished runs are kept; the same command goes on from there.")
        raise typer.Exit(INTERRUPTED) from None
    console.print(f"done in {time.monotonic() - started:.0f} s")
    _write(report, output, json_file, write_docs=write_docs)


def _plan(
    seeds: str, climates: str, fields: int | None, years: int | None, training_seasons: int | None, *, quick: bool
) -> Plan:
    from noria.evaluation.protocol import Plan
    from noria.evaluation.runs import EvaluationError

    plan = Plan.quick() if quick else Plan()
    try:
        numbers = tuple(int(part) for part in seeds.split(",")) if seeds else plan.seeds
    except ValueError as error:
        raise EvaluationError(f"--seeds {seeds}: whole numbers with commas between are needed") from error
    return replace(
        plan,
        seeds=numbers,
        climates=tuple(part.strip() for part in climates.split(",")) if climates else plan.climates,
        per_climate=fields or plan.per_climate,
        years=years or plan.years,
        home_seasons=training_seasons or plan.home_seasons,
    )


def _write(report: dict[str, Any], output: Path, json_file: Path | None, *, write_docs: bool) -> None:
    from noria.evaluation.irrigation_chart import irrigation_chart
    from noria.evaluation.tables import grids
    from noria.pages import with_table

    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    picture = irrigation_chart(report)
    (output / "irrigation.json").write_text(text, encoding="utf-8")
    (output / "irrigation.svg").write_text(picture, encoding="utf-8")
    if write_docs:
        page = PAGE.read_text(encoding="utf-8")
        for grid in grids(report):
            page = with_table(page, grid.name, grid.markdown())
        PAGE.write_text(page, encoding="utf-8")
        PICTURE.write_text(picture, encoding="utf-8")
    if json_file == Path("-"):
        typer.echo(text, nl=False)
        return
    if json_file is not None:
        json_file.write_text(text, encoding="utf-8")
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    for grid in grids(report):
        console.print(grid.rich())
        console.print()
    console.print(f"picture and report: {output}", markup=False, highlight=False, soft_wrap=True)
