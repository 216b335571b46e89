"""``noria server train``: make a factory model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from server.training import card, factory, study

STUDY_FILE = "study.json"


class RichProgress:
    """One bar per stage, on the error stream so that ``--json`` stays clean."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def stage(self, name: str, steps: int) -> None:
        """Start a bar."""
        self._task = self._bars.add_task(name, total=max(steps, 1), completed=0 if steps else 1, remark="")

    def advance(self, remark: str = "") -> None:
        """Move it."""
        if self._task is not None:
            self._bars.update(self._task, advance=1, remark=remark)


def bars(console: Console) -> Bars:
    """A bar per stage, with what is left and a remark."""
    return Bars(
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
        console=console,
    )


def train(
    output: Annotated[Path, typer.Option(help="Folder for model, card and text.")] = Path("build/factory"),
    seed: Annotated[int, typer.Option(min=0, max=9999, help="Draws every field-season and every weight.")] = 1,
    small: Annotated[bool, typer.Option("--small", help="A minute's try-out instead of the full run.")] = False,
    medium: Annotated[bool, typer.Option("--medium", help="A third of the full run.")] = False,
    compare: Annotated[
        bool, typer.Option("--study", help="Instead of a model: compression, distillation and groups compared.")
    ] = False,
    processes: Annotated[int, typer.Option(min=0, max=256, help="Simulation processes; 0 is one per core.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False,
) -> None:
    """Train the factory model in the training worlds and write it with its card."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    processes = processes or os.cpu_count() or 1
    configuration = factory.SMALL if small else factory.MEDIUM if medium else factory.FULL
    console = Console(stderr=True)
    with bars(console) as shown:
        progress = RichProgress(shown)
        if compare:
            size = study.SMALL if small else study.FULL
            text = json.dumps(study.run(size, seed, processes, progress), indent=1) + "\n"
            output.mkdir(parents=True, exist_ok=True)
            (output / STUDY_FILE).write_text(text, encoding="utf-8")
            typer.echo(text if as_json else f"study: {output / STUDY_FILE}", nl=not as_json)
            return
        try:
            model = factory.make(configuration, seed, processes, progress)
        except factory.FactoryError as error:
            console.print(f"training failed: {error}")
            raise typer.Exit(1) from error
    paths = card.write(model, output)
    if as_json:
        typer.echo(json.dumps({"files": [path.name for path in paths], "card": model.card}))
    else:
        typer.echo(f"model {model.card['model_id']}: " + ", ".join(str(path) for path in paths))
