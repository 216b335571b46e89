"""The ``noria`` console script: a subcommand per job, each loaded only when it is used.

A gateway on a small board has neither TensorFlow nor Streamlit; importing lazily keeps it that way.
"""

from __future__ import annotations

import importlib
import sys

import click
import typer
from rich.console import Console
from typer.core import TyperGroup

# subcommand → (module, attribute, one line of help, extra that installs it)
LAZY_COMMANDS = {
    "demo": (
        "noria.demo.command",
        "app",
        "Run one accelerated growing season on real parts.",
        "emulator,server,gateway,dashboard",
    ),
    "node": ("nodes.cli", "app", "Build, provision and inspect nodes.", "emulator"),
    "gateway": ("gateway.cli", "app", "Run and inspect a farm's gateway.", "gateway"),
    "server": ("server.cli", "app", "Run the fleet's server; train, improve and release models.", "server"),
    "ota": ("server.cli", "ota_app", "Bring a release to the nodes: create, start, watch, pause, abort.", "server"),
    "dashboard": ("dashboards.cli", "app", "Open the dashboard for farmers and operators.", "dashboard"),
    "evaluate": (
        "noria.evaluation.cli",
        "app",
        "Measure water, yield and forecasts in worlds nobody trained in.",
        "emulator,server",
    ),
    "doctor": ("noria.doctor", "app", "Explain what this machine has and what is missing.", ""),
}


class LazyGroup(TyperGroup):
    """Lists every subcommand, imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of :data:`LAZY_COMMANDS`."""
        del ctx
        return list(LAZY_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module behind ``cmd_name``, or a one-line stand-in while help is printed."""
        if cmd_name not in LAZY_COMMANDS:
            return None
        module, attribute, help_text, extra = LAZY_COMMANDS[cmd_name]
        if ctx.invoked_subcommand is None and cmd_name not in sys.argv[1:]:
            return click.Command(cmd_name, help=help_text)
        try:
            sub_app = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name and error.name.split(".")[0] in {"noria", "nodes", "gateway", "server", "dashboards"}:
                raise
            Console(stderr=True).print(
                f"[red]noria {cmd_name}[/] needs the package '{error.name}': pip install 'noria\\[{extra}]'"
            )
            raise SystemExit(2) from error
        command: click.Command = typer.main.get_command(sub_app)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=LazyGroup,
    name="noria",
    help="Noria: an open, federated irrigation network. Each patch of soil decides for itself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def root() -> None:
    """Noria: an open, federated irrigation network. Each patch of soil decides for itself."""


def main() -> None:
    """Entry point of the console script."""
    app()
