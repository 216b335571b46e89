"""``noria ota``: campaigns from the dry run to their end."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from server import store
from server.cli.plan_options import takes_plan
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
from shared_models.configuration import explain

WATCH_S = 0.5
BAR_WIDTH = 40
LISTED = 50
"""Nodes listed one by one in a dry run for people."""
CampaignArgument = Annotated[int, typer.Argument(min=1, help="The campaign's number.")]
NODE_STATES = {
    "confirmed": ("█", "green"),
    "activated": ("▓", "cyan"),
    "sending": ("▒", "blue"),
    "pending": ("░", "bright_black"),
    "failed": ("x", "red"),
}


@ota_app.command(name="plan")
@takes_plan
def dry_run(plan: dict[str, Any], config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """What a campaign would do and cost: nodes, groups, containers, downlinks, airtime, charge. Nothing is changed."""
    _dry_run(load(config), plan, as_json=as_json)


@ota_app.command()
@takes_plan
def create(
    plan: dict[str, Any],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="As noria ota plan.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Draft a campaign."""
    settings = load(config)
    if dry_run:
        _dry_run(settings, plan, as_json=as_json)
    else:
        answer(ask(settings, "campaign.create", {"release": "latest", **plan}), as_json=as_json)


def _dry_run(settings: ServerSettings, plan: dict[str, Any], *, as_json: bool) -> None:
    from server.campaigns import CampaignError, Plan, forecast

    try:
        with closing(store.connect(settings.database, read_only=True)) as connection:
            expected = forecast(connection, Plan.model_validate({"release": "latest", **plan})).to_json()
    except store.StoreError as error:
        fail(str(error))
    except CampaignError as error:
        fail(str(error), REFUSED)
    except ValidationError as error:
        fail(explain(error), REFUSED)
    if as_json:
        print_json(expected)
    else:
        _print_forecast(expected)


def _print_forecast(expected: Mapping[str, Any]) -> None:
    parts = [*expected["groups"], {"nodes": expected["nodes"], **expected["total"]}]
    console.print(
        table(
            f"Release {expected['version']}, as if no frame were lost",
            {
                "group": [*(str(number + 1) for number in range(len(parts) - 1)), "all"],
                "nodes": [str(part["nodes"]) for part in parts],
                "downlinks": [str(part["downlinks"]) for part in parts],
                "gateways' airtime": [f"{part['downlink_airtime_s']:.1f} s" for part in parts],
                "nodes' airtime": [f"{part['uplink_airtime_s']:.1f} s" for part in parts],
                "charge": [f"{part['charge_uah']:.0f} µAh" for part in parts],
            },
        ),
        table(
            "Containers",
            {
                "container": list(expected["containers"]),
                "nodes": [str(count) for count in expected["containers"].values()],
            },
        ),
    )
    devices = expected["devices"][:LISTED]
    console.print(
        table(
            "Nodes" if len(devices) == expected["nodes"] else f"The first {LISTED} nodes",
            {
                "node": [entry["dev_eui"] for entry in devices],
                "site": [entry["site"] for entry in devices],
                "group": [str(entry["group"] + 1) for entry in devices],
                "runs": [str(entry["running"]) for entry in devices],
                "rate": ["?" if entry["data_rate"] is None else f"DR{entry['data_rate']}" for entry in devices],
                "container": [entry["artefact"] or "none that it can apply" for entry in devices],
                "bytes": [str(entry["size_bytes"]) for entry in devices],
                "downlinks": [str(entry["cost"]["downlinks"]) for entry in devices],
                "charge": [f"{entry['cost']['charge_uah']:.0f} µAh" for entry in devices],
            },
        )
    )
    if expected["data_rates_unknown"]:
        text = f"{expected['data_rates_unknown']} nodes' data rates are not known; the slowest was taken"
        console.print(text, highlight=False)
    for site in expected["held_back"]:
        console.print(f"held back: {site}, its nodes keep what they run", markup=False, highlight=False)


@ota_app.command()
def approve(campaign: CampaignArgument, config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """Approve a draft; where the server asks for a second operator, another than who drafted it."""
    answer(ask(load(config), "campaign.approve", {"campaign": campaign}), as_json=as_json)


@ota_app.command()
@takes_plan
def start(
    plan: dict[str, Any],
    campaign: Annotated[int | None, typer.Argument(min=1, help="An approved campaign's number.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: JsonOption = False,
) -> None:
    """Start an approved campaign; or with --release (and the other options) draft, approve and start one."""
    settings = load(config)
    if (campaign is None) == ("release" not in plan):
        fail("give either a campaign's number or --release")
    if campaign is None:
        result = ask(settings, "campaign.create", plan)
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


@ota_app.command()
def retry(
    campaign: CampaignArgument,
    release: Annotated[int | None, typer.Option(min=1, help="Another than it carried; the same unless given.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: JsonOption = False,
) -> None:
    """Draft a campaign for the nodes that failed in one that has ended or halted."""
    arguments = {"campaign": campaign} if release is None else {"campaign": campaign, "release": release}
    answer(ask(load(config), "campaign.retry", arguments), as_json=as_json)


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
            "state": [_state(entry) for entry in found],
            "by": [entry["created_by"] for entry in found],
            "group": [f"{entry['open_group'] + 1} of {entry['groups']}" for entry in found],
            "confirmed": [f"{entry['confirmed']} of {entry['nodes']}" for entry in found],
            "failed": [str(entry["failed"]) for entry in found],
            "ailing": [str(entry["ailing"]) for entry in found],
            "reason": [entry["reason"] for entry in found],
        },
    )


def _state(entry: Mapping[str, Any]) -> str:
    return "approved" if entry["state"] == "draft" and entry["approved"] else str(entry["state"])


@ota_app.command(name="status")
def campaign_status(
    campaign: CampaignArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Follow until the campaign has ended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """A campaign, group by group and node by node."""
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
        "SELECT dev_eui, site, group_index, base_version, state, detail, ailment, downlinks, opened_s, activated_s,"
        " updated_s FROM campaign_nodes WHERE campaign = ? ORDER BY group_index, dev_eui",
        campaign,
    )
    asked = rows(settings, "SELECT plan, held_back FROM campaigns WHERE id = ?", campaign)[0]
    groups = rows(settings, "SELECT * FROM campaign_groups WHERE campaign = ? ORDER BY group_index", campaign)
    overview = {
        **found[0],
        "plan": json.loads(asked["plan"]),
        "held_back": json.loads(asked["held_back"]),
        "group_figures": groups,
    }
    return overview, nodes


def _print_campaign(settings: ServerSettings, campaign: int, *, bars: bool = True) -> None:
    overview, nodes = _campaign(settings, campaign)
    console.print(_campaign_table([overview]), *([progress_picture(overview)] if bars else []), _node_table(nodes))
    for site in overview["held_back"]:
        console.print(f"held back: {site}, its nodes keep what they run", markup=False, highlight=False)


def progress_picture(overview: Mapping[str, Any]) -> RenderableType:
    """Groups as bars of their nodes' states, what the shades mean, and when the end may be expected."""
    lines = []
    for group in overview["group_figures"]:
        name = "canary" if group["group_index"] == 0 else f"group {group['group_index'] + 1}"
        line = Text(f"{name:>9} ")
        for state, cells in zip(NODE_STATES, _cells([group[state] for state in NODE_STATES]), strict=True):
            sign, style = NODE_STATES[state]
            line.append(sign * cells, style)
        ailing = f", {group['ailing']} ailing" if group["ailing"] else ""
        waits = ", waits" if group["opened_s"] is None else ""
        line.append(f" {group['confirmed']} of {group['nodes']} confirmed, {group['failed']} failed{ailing}{waits}")
        lines.append(line)
    legend = Text("          ")
    for state, (sign, style) in NODE_STATES.items():
        legend.append(f"{sign} ", style)
        legend.append(f"{overview[state]} {state}   ")
    lines.append(legend)
    if overview["state"] == "running":
        end_s = overview["expected_end_s"]
        text = "not known before a node has confirmed" if end_s is None else f"{when(end_s)} UTC at the pace so far"
        lines.append(Text(f"          end: {text}"))
    return Group(*lines)


def _cells(counts: list[int]) -> list[int]:
    """Cells of a bar for each count, in proportion, adding up to its width."""
    total, given, passed, cells = sum(counts), 0, 0, []
    for count in counts:
        passed += count
        upto = round(BAR_WIDTH * passed / total) if total else 0
        cells.append(upto - given)
        given = upto
    return cells


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
            "detail": [entry["ailment"] or entry["detail"] for entry in nodes],
        },
    )


def _watch(settings: ServerSettings, campaign: int) -> None:
    with Live(console=console, auto_refresh=False) as live:
        while True:
            overview, _ = _campaign(settings, campaign)
            title = Text(f"campaign {campaign}, release {overview['version']}: {_state(overview)} {overview['reason']}")
            live.update(Group(title, progress_picture(overview)), refresh=True)
            if overview["state"] in ("done", "aborted", "halted"):
                break
            time.sleep(WATCH_S)
    if not console.is_terminal:
        console.print()
    _print_campaign(settings, campaign, bars=False)
