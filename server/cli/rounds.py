"""``noria server``: asking the fleet for an improvement, and the rounds held."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server import store
from server.cli.terminal import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    answer,
    app,
    ask,
    console,
    fail,
    load,
    print_json,
    rows,
    table,
    when,
)
from server.config import ServerSettings

if TYPE_CHECKING:
    from server.scheduler import Plan


@app.command()
def improve(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    wait: Annotated[bool, typer.Option(help="Wait for the outcome.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Ask the fleet for its sums and release what passes the gate."""
    answer(ask(load(config), "improve", {}, wait=wait), as_json=as_json)


@app.command()
def refresh(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    wait: Annotated[bool, typer.Option(help="Wait for the outcome, some minutes.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Retrain the backbone in the training worlds, weighed by the fleet's sums; release it if it passes its gate."""
    from server.refresh.running import in_words

    answer(ask(load(config), "refresh", {}, wait=wait, told=in_words), as_json=as_json)


def scheduled(settings: ServerSettings) -> Plan:
    """What the running server last wrote down about the next round."""
    from server.scheduler import plan

    try:
        with closing(store.connect(settings.database, read_only=True)) as connection:
            return plan(connection, settings.rounds)
    except store.StoreError as error:
        fail(str(error))


def next_round(schedule: Plan) -> str:
    """One line for people."""
    due = f"next round due {when(schedule.due_s)} UTC" if schedule.due_s is not None else "no round is due"
    return f"{due}; waits for {schedule.waits_for}" if schedule.waits_for else due


@app.command()
def rounds(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The newest so many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Rounds held, when the next one is due, and why it has not begun."""
    settings = load(config)
    found = rows(settings, "SELECT * FROM rounds ORDER BY id DESC LIMIT ?", limit)
    schedule = scheduled(settings)
    for entry in found:
        entry["evidence"] = json.loads(entry["evidence"])
        entry["replies"] = rows(
            settings, "SELECT node_id, site, verdict, reason FROM replies WHERE round = ? ORDER BY node_id", entry["id"]
        )
    if as_json:
        print_json({"schedule": schedule.as_json(), "rounds": found})
        return
    console.print(next_round(schedule), markup=False, highlight=False)
    console.print(
        table(
            "Rounds",
            {
                "round": [str(entry["id"]) for entry in found],
                "started": [when(entry["started_s"]) for entry in found],
                "took": [f"{entry['duration_ms'] / 1000:.1f} s" if entry["duration_ms"] else "" for entry in found],
                "accepted": [str(entry["accepted"]) for entry in found],
                "rejected": [str(entry["rejected"]) for entry in found],
                "silent": [str(entry["silent"]) for entry in found],
                "nodes": [str(entry["contributors"]) for entry in found],
                "windows": [str(entry["windows"]) for entry in found],
                "outcome": [outcome(entry) for entry in found],
            },
        )
    )
    for entry in found:
        for reply in entry["replies"]:
            if reply["verdict"] != "accepted":
                text = f"round {entry['id']}, {reply['site'] or reply['node_id']} {reply['verdict']}: {reply['reason']}"
                console.print(text, markup=False, highlight=False)


def outcome(entry: Mapping[str, Any]) -> str:
    """What became of a round, in words."""
    return f"release {entry['version']}" if entry["version"] else f"{entry['state']}: {entry['reason']}"
