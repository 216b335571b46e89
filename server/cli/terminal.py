"""What every command shares: the two groups, the configuration, how the server is asked and how it is answered.

Commands that change something write a row into ``commands`` and wait for the running server to carry it out; those
that only look read the store.
"""

from __future__ import annotations

import getpass
import json
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from server import store
from server.config import ServerSettings
from shared_models.configuration import ConfigurationError

app = typer.Typer(no_args_is_help=True, help="The fleet's server: rounds, releases, keys.")
ota_app = typer.Typer(no_args_is_help=True, help="Campaigns: bringing a release to the nodes.")
console = Console()
errors = Console(stderr=True)

POLL_S = 0.1
REFUSED = 1
UNUSABLE = 2

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", envvar="NORIA_SERVER_CONFIG", help="The server's configuration.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_CONFIG = Path("server.toml")


def fail(text: str, code: int = UNUSABLE) -> NoReturn:
    """Say why and leave."""
    errors.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def load(config: Path) -> ServerSettings:
    """The configuration, or a clear end."""
    try:
        return ServerSettings.from_toml(config)
    except ConfigurationError as error:
        fail(str(error))


def print_json(value: Any) -> None:  # noqa: ANN401  whatever JSON can hold
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True) + "\n")


def rows(settings: ServerSettings, query: str, *arguments: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """Read from the store without being able to change it."""
    try:
        with closing(store.connect(settings.database, read_only=True)) as connection:
            return [dict(row) for row in connection.execute(query, arguments)]
    except store.StoreError as error:
        fail(str(error))


def ask(
    settings: ServerSettings,
    action: str,
    arguments: Mapping[str, Any],
    *,
    wait: bool = True,
    told: Callable[[sqlite3.Connection], str] = lambda _: "",
) -> dict[str, Any]:
    """Write a command and wait for the running server's answer.

    Args:
        settings: The server's.
        action: What is asked for.
        arguments: Of it.
        wait: For the answer.
        told: Reads off the store how far it is, in words.

    Returns:
        ``{"command", "state", …result}``; with ``wait`` False only the command's number.
    """
    from server import commands
    from server.service import is_running

    if not settings.database.is_file():
        fail(f"{settings.database}: no store; create it with: noria server init")
    if not is_running(settings.state_dir):
        fail(f"no server runs on {settings.state_dir}; start it with: noria server run --config …")
    with closing(store.connect(settings.database)) as connection:
        number = commands.submit(connection, getpass.getuser(), action, arguments, int(time.time()))
        if not wait:
            return {"command": number, "state": "pending", "message": f"command {number} is written down"}
        with Progress(
            SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=errors, transient=True
        ) as progress:
            task = progress.add_task(action, total=None)
            while True:
                row = connection.execute("SELECT state, result FROM commands WHERE id = ?", (number,)).fetchone()
                if row["state"] not in ("pending", "running"):
                    return {"command": number, "state": row["state"], **json.loads(row["result"])}
                progress.update(task, description=f"{action} {told(connection)}".strip())
                if not is_running(settings.state_dir):
                    fail(f"the server stopped before it answered; command {number} stays written down")
                time.sleep(POLL_S)


def answer(result: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a command's answer and leave with its code."""
    good = result["state"] in ("done", "pending")
    if as_json:
        print_json(result)
    elif good:
        console.print(result["message"], markup=False, highlight=False)
    else:
        errors.print(f"{result['state']}: {result.get('message', '')}", style="red", markup=False, highlight=False)
    if not good:
        raise typer.Exit(REFUSED)


def when(time_s: int | None) -> str:
    """A time for people, UTC."""
    return "" if time_s is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(time_s))


def table(title: str, columns: Mapping[str, list[str]]) -> Table:
    """A table from columns of texts."""
    made = Table(title=title, title_justify="left")
    for name in columns:
        made.add_column(name)
    for cells in zip(*columns.values(), strict=True):
        made.add_row(*cells)
    return made
