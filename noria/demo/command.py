"""``noria demo``: the season as a person runs it."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nodes.scenario import Scenario, ScenarioError, load_scenario

SCENARIOS = Path(__file__).resolve().parent.parent / "scenarios"
INCOMPLETE = 1
FAILED = 2
INTERRUPTED = 130

app = typer.Typer(add_completion=False, help="Run one accelerated growing season on real parts.")


@app.callback(invoke_without_command=True)
def demo(
    scenario: Annotated[Path, typer.Option(help="Scenario file: farms, fields, nodes, radio.")] = SCENARIOS
    / "demo.toml",
    seed: Annotated[int | None, typer.Option(min=0, max=0xFFFFFFFF, help="Instead of the scenario's seed.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the summary as JSON to this file.")] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Keep stores, logs and configuration in this new directory.")
    ] = None,
    *,
    headless: Annotated[bool, typer.Option("--headless", help="End after the season instead of staying open.")] = False,
) -> None:
    """Run one accelerated growing season on real parts; exit code 0 only if every stage really happened."""
    console = Console()
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    try:
        plan = load_scenario(scenario)
    except ScenarioError as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(FAILED) from error
    if keep is not None and keep.exists():
        console.print(f"{keep} exists; --keep needs a new directory", style="red", markup=False)
        raise typer.Exit(FAILED)
    if seed is not None:
        plan = plan.with_seed(seed)
    try:
        complete = asyncio.run(_run(plan, console, json_file, keep, headless=headless))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("Stopped; nothing is left running.")
        raise typer.Exit(INTERRUPTED) from None
    if not complete:
        raise typer.Exit(INCOMPLETE)


@contextmanager
def _season_bar(console: Console) -> Iterator[tuple[Progress, TaskID]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("day {task.completed:.0f} of {task.total:.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=console) as bar:
        yield bar, bar.add_task("season", total=1, figures="")


async def _run(plan: Scenario, console: Console, json_file: Path | None, keep: Path | None, *, headless: bool) -> bool:
    from nodes.emulator.worker import WorkerError
    from noria.demo.clock import ServiceSilentError
    from noria.demo.operator import OperatorError
    from noria.demo.processes import ProcessError
    from noria.demo.season import Progress as SeasonProgress
    from noria.demo.season import Season
    from noria.demo.summary import show, summarise
    from noria.demo.system import answers, running_system

    main_task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for ending in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(ending, lambda: main_task.cancel() if main_task else None)

    nodes = sum(len(farm.nodes) for farm in plan.farms)
    console.print(
        f"[bold]Noria[/] {plan.name}: {len(plan.farms)} farms, {nodes} nodes, {plan.days} days, seed {plan.seed}"
    )
    try:
        async with running_system(plan, keep=keep, report=lambda text: console.print(f"  starting {text}")) as system:
            console.print(f"  dashboard: [bold]{system.dashboard_url}[/]")
            started = time.monotonic()
            with _season_bar(console) as (bar, task):
                bar.update(task, total=plan.days)

                def watch(progress: SeasonProgress) -> None:
                    water = sum(progress.water_mm.values()) / max(1, len(progress.water_mm))
                    figures = f"{progress.frames_sent} frames, {progress.frames_lost} lost, {water:.0f} mm a field"
                    bar.update(task, completed=progress.day, figures=figures)
                    if progress.note:
                        bar.console.print(f"  day {progress.day}: {progress.note}", markup=False)

                season = Season(system, watch)
                reports = await season.run()
            wall_s = time.monotonic() - started
            pages = await asyncio.to_thread(answers, system.dashboard_url)
            summary = summarise(season, reports, wall_s, dashboard_pages=int(pages))
            show(summary, console)
            if json_file is not None:
                json_file.write_text(json.dumps(summary.as_json(), indent=2, sort_keys=True) + "\n", encoding="utf-8")
                console.print(f"Written to {json_file}", markup=False)
            if not headless:
                console.print(f"The dashboard stays open at [bold]{system.dashboard_url}[/]; Ctrl-C ends it.")
                await asyncio.Event().wait()
            return summary.complete
    except (OperatorError, ProcessError, ServiceSilentError, WorkerError) as error:
        console.print(str(error), style="red", markup=False)
        return False
