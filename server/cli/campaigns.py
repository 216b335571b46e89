"""``noria ota``: campaigns from the draft to their end."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from server.cli.terminal import (
    DEFAULT_CONFIG,
    REFUSED,
    ConfigOption,
    JsonOption,
    answer,
    ask,
    console,
    fail,
    load,
    ota_app,
    print_json,
    rows,
    table,
    when,
)
from server.config import ServerSettings

WATCH_S = 0.5
CampaignArgument = Annotated[int, typer.Argument(min=1, help="The campaign's number.")]


@ota_app.command()
def create(
    release: Annotated[str, typer.Option(help="Version, or latest.")] = "latest",
    site: Annotated[list[str] | None, typer.Option(help="Only this site; may be repeated.")] = None,
    board: Annotated[list[str] | None, typer.Option(help="Only this board; may be repeated.")] = None,
    canary: Annotated[int, typer.Option(min=1, help="Nodes in the first group.")] = 1,
    growth: Annotated[float, typer.Option(min=1, help="Each group relative to the one before.")] = 3.0,
    success: Annotated[float, typer.Option(min=0, max=1, help="Confirmed share that opens the next group.")] = 0.9,
    error: Annotated[float, typer.Option(min=0, max=1, help="Failed share that halts the campaign.")] = 0.2,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: JsonOption = False,
) -> None:
    """Draft a campaign."""
    plan = _plan(release, site, board, canary, growth, success, error)
    answer(ask(load(config), "campaign.create", plan), as_json=as_json)


def _plan(
    release: str,
    site: list[str] | None,
    board: list[str] | None,
    canary: int,
    growth: float,
    success: float,
    error: float,
) -> dict[str, Any]:
    if release != "latest" and not release.isdecimal():
        fail(f"{release}: a release is a number, or latest")
    return {
        "release": release if release == "latest" else int(release),
        "sites": site or None,
        "boards": board or None,
        "canary": canary,
        "growth": growth,
        "success_threshold": success,
        "error_threshold": error,
    }


@ota_app.command()
def approve(campaign: CampaignArgument, config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """Approve a draft."""
    answer(ask(load(config), "campaign.approve", {"campaign": campaign}), as_json=as_json)


@ota_app.command()
def start(
    campaign: Annotated[int | None, typer.Argument(min=1, help="An approved campaign's number.")] = None,
    release: Annotated[
        str | None, typer.Option(help="Create, approve and start in one step: version, or latest.")
    ] = None,
    site: Annotated[list[str] | None, typer.Option(help="With --release: only this site.")] = None,
    board: Annotated[list[str] | None, typer.Option(help="With --release: only this board.")] = None,
    canary: Annotated[int, typer.Option(min=1, help="With --release.")] = 1,
    growth: Annotated[float, typer.Option(min=1, help="With --release.")] = 3.0,
    success: Annotated[float, typer.Option(min=0, max=1, help="With --release.")] = 0.9,
    error: Annotated[float, typer.Option(min=0, max=1, help="With --release.")] = 0.2,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: JsonOption = False,
) -> None:
    """Start an approved campaign, or with --release a new one."""
    settings = load(config)
    if (campaign is None) == (release is None):
        fail("give either a campaign's number or --release")
    if release is not None:
        result = ask(settings, "campaign.create", _plan(release, site, board, canary, growth, success, error))
        if result["state"] != "done":
            answer(result, as_json=as_json)
        campaign = result["campaign"]
        result = ask(settings, "campaign.approve", {"campaign": campaign})
        if result["state"] != "done":
            answer(result, as_json=as_json)
    answer(ask(settings, "campaign.start", {"campaign": campaign}), as_json=as_json)


@ota_app.command()
def pause(campaign: CampaignArgument, config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """Stop sending for now."""
    answer(ask(load(config), "campaign.pause", {"campaign": campaign}), as_json=as_json)


@ota_app.command()
def resume(campaign: CampaignArgument, config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """Go on with a paused campaign."""
    answer(ask(load(config), "campaign.resume", {"campaign": campaign}), as_json=as_json)


@ota_app.command()
def abort(campaign: CampaignArgument, config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """End a campaign for good; nodes that switched keep what they confirmed."""
    answer(ask(load(config), "campaign.abort", {"campaign": campaign}), as_json=as_json)


@ota_app.command(name="list")
def list_campaigns(config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """All campaigns, newest first."""
    found = rows(load(config), "SELECT * FROM campaign_overview ORDER BY id DESC")
    if as_json:
        print_json({"campaigns": found})
    else:
        console.print(_campaign_table(found))


def _campaign_table(found: list[dict[str, Any]]) -> Table:
    return table(
        "Campaigns",
        {
            "campaign": [str(entry["id"]) for entry in found],
            "release": [str(entry["version"]) for entry in found],
            "state": [
                "approved" if entry["state"] == "draft" and entry["approved"] else entry["state"] for entry in found
            ],
            "group": [f"{entry['open_group'] + 1} of {entry['groups']}" for entry in found],
            "confirmed": [f"{entry['confirmed']} of {entry['nodes']}" for entry in found],
            "failed": [str(entry["failed"]) for entry in found],
            "reason": [entry["reason"] for entry in found],
        },
    )


@ota_app.command(name="status")
def campaign_status(
    campaign: CampaignArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Follow until the campaign has ended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """A campaign, node by node."""
    settings = load(config)
    if as_json:
        overview, nodes = _campaign(settings, campaign)
        print_json({**overview, "devices": nodes})
    elif watch:
        _watch(settings, campaign)
    else:
        _print_campaign(settings, campaign)


def _campaign(settings: ServerSettings, campaign: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    found = rows(settings, "SELECT * FROM campaign_overview WHERE id = ?", campaign)
    if not found:
        fail(f"there is no campaign {campaign}", REFUSED)
    nodes = rows(
        settings,
        "SELECT dev_eui, site, group_index, base_version, state, detail, downlinks, updated_s FROM campaign_nodes"
        " WHERE campaign = ? ORDER BY group_index, dev_eui",
        campaign,
    )
    selection = json.loads(rows(settings, "SELECT selection FROM campaigns WHERE id = ?", campaign)[0]["selection"])
    return {**found[0], "held_back": selection.get("held_back", [])}, nodes


def _print_campaign(settings: ServerSettings, campaign: int) -> None:
    overview, nodes = _campaign(settings, campaign)
    console.print(_campaign_table([overview]), _node_table(nodes))
    for site in overview["held_back"]:
        console.print(f"held back: {site}, its nodes keep what they run", markup=False, highlight=False)


def _node_table(nodes: list[dict[str, Any]]) -> Table:
    return table(
        "Nodes",
        {
            "node": [entry["dev_eui"] for entry in nodes],
            "site": [entry["site"] for entry in nodes],
            "group": [str(entry["group_index"] + 1) for entry in nodes],
            "from": [str(entry["base_version"]) for entry in nodes],
            "state": [entry["state"] for entry in nodes],
            "downlinks": [str(entry["downlinks"]) for entry in nodes],
            "since": [when(entry["updated_s"]) for entry in nodes],
            "detail": [entry["detail"] for entry in nodes],
        },
    )


def _watch(settings: ServerSettings, campaign: int) -> None:
    with (
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f} of {task.total:.0f} nodes"),
            TimeElapsedColumn(),
            auto_refresh=False,
        ) as progress,
        Live(progress, console=console, refresh_per_second=4),
    ):
        bar = progress.add_task(f"campaign {campaign}", total=None)
        while True:
            overview, _ = _campaign(settings, campaign)
            through = overview["confirmed"] + overview["failed"]
            description = f"campaign {campaign} {overview['state']}"
            progress.update(bar, description=description, total=overview["nodes"], completed=through)
            if overview["state"] in ("done", "aborted", "halted"):
                break
            time.sleep(WATCH_S)
    _print_campaign(settings, campaign)
