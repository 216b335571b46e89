"""``noria server audit``: who did what, and whether the record was touched."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from server import store
from server.cli.terminal import (
    DEFAULT_CONFIG,
    REFUSED,
    ConfigOption,
    JsonOption,
    app,
    console,
    errors,
    fail,
    load,
    print_json,
    rows,
    table,
    when,
)
from server.config import ServerSettings


@app.command()
def audit(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="The newest so many.")] = 50,
    subject: Annotated[str | None, typer.Option(help='Only about this, such as "campaign 3".')] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the chain of hashes; exit code 1 if it broke.")
    ] = False,
    since: Annotated[
        str | None, typer.Option(help="With --verify: a head printed earlier; the log must still lead to it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Who did what, newest last; with --verify whether anybody changed, removed or inserted a row."""
    settings = load(config)
    if verify:
        _verify(settings, since, as_json=as_json)
        return
    if since is not None:
        fail("--since goes with --verify")
    found = rows(
        settings,
        "SELECT * FROM (SELECT * FROM audit WHERE ? IS NULL OR subject = ? ORDER BY id DESC LIMIT ?) ORDER BY id",
        subject,
        subject,
        limit,
    )
    if as_json:
        print_json({"audit": found})
        return
    console.print(
        table(
            "Audit",
            {
                "row": [str(entry["id"]) for entry in found],
                "when": [when(entry["time_s"]) for entry in found],
                "who": [entry["actor"] for entry in found],
                "what": [entry["action"] for entry in found],
                "on": [entry["subject"] for entry in found],
                "outcome": [entry["outcome"] for entry in found],
                "detail": [entry["detail"] for entry in found],
            },
        )
    )


def _verify(settings: ServerSettings, since: str | None, *, as_json: bool) -> None:
    from server.audit import Head, HeadError, verify

    try:
        known = None if since is None else Head.parse(since)
        with closing(store.connect(settings.database, read_only=True)) as connection:
            found = verify(connection, known)
    except (HeadError, store.StoreError) as error:
        fail(str(error))
    head = None if found.head is None else str(found.head)
    if as_json:
        print_json({"rows": found.rows, "head": head, "problems": list(found.problems)})
    else:
        for problem in found.problems:
            errors.print(problem, style="red", markup=False, highlight=False, soft_wrap=True)
        if not found.problems:
            text = f"{found.rows} rows, none changed or removed; head {head or 'none'}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
    if found.problems:
        raise typer.Exit(REFUSED)
