"""``noria evaluate``: one subcommand per question."""

from __future__ import annotations

import typer

from noria.evaluation.forecast import forecast
from noria.evaluation.irrigation import irrigation

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Measure the intelligence where it was not trained.")
app.command("irrigation")(irrigation)
app.command("forecast")(forecast)


@app.callback()
def evaluate() -> None:
    """Measure the intelligence where it was not trained."""
