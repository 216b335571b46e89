"""``noria gateway``: run and inspect a farm's gateway."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from gateway.config import GatewaySettings
from gateway.store import StoreError, open_read_only
from gateway.sums import NotEnough, backbones, farm_sums
from shared_models.codes import Mode
from shared_models.configuration import ConfigurationError

app = typer.Typer(help="Run and inspect a farm's gateway.", no_args_is_help=True)

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The gateway's TOML file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def run(config: ConfigOption) -> None:
    """Run the gateway until it is stopped."""
    from gateway.service import serve

    settings = _settings(config)
    _check_secrets(settings)
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    # aiomqtt's logger repeats what our own lines say.
    logging.getLogger("mqtt").setLevel(logging.ERROR)
    try:
        asyncio.run(serve(settings))
    except StoreError as error:
        raise _failed(error) from error


@app.command("check-config")
def check_config(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Read the configuration and the secrets it names, and say what is wrong."""
    settings = _settings(config)
    _check_secrets(settings)
    facts = {"site": settings.site, "nodes": len(settings.nodes), "store": str(settings.store), "clock": settings.clock}
    if as_json:
        _print_json(facts)
    else:
        typer.echo(f"{config}: site {settings.site}, {len(settings.nodes)} nodes, store {settings.store}")


@app.command()
def status(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Nodes, counters and updates, from the store of a gateway that may be running."""
    facts = _status(_settings(config))
    if as_json:
        _print_json(facts)
        return
    console = Console()
    nodes = Table(title=f"{facts['site']}: nodes")
    for column in ("devEUI", "field", "crop", "seen (UTC)", "mode", "model", "battery", "frames", "missed"):
        nodes.add_column(column)
    for node in facts["nodes"]:
        battery = f"{node['battery_mv']} mV" if node["battery_mv"] is not None else ""
        facts_shown = (node["last_seen"], node["mode"], node["model_version"], battery, node["frames"])
        nodes.add_row(
            node["dev_eui"],
            node["name"],
            node["crop"],
            *("" if fact is None else str(fact) for fact in facts_shown),
            str(node["frames_missed"]),
        )
    console.print(nodes)
    updates = Table(title="updates")
    for column in ("campaign", "devEUI", "state", "detail", "downlinks"):
        updates.add_column(column)
    for update in facts["updates"]:
        updates.add_row(*(str(update[key]) for key in ("campaign", "dev_eui", "state", "detail", "downlinks")))
    console.print(updates)
    counters = Table("counter", "value", title="counters")
    for name, value in facts["counters"].items():
        counters.add_row(name, str(value))
    console.print(counters)


@app.command()
def sums(config: ConfigOption, as_json: JsonOption = False) -> None:
    """What this farm would answer a federated round with, per backbone, and whether it may."""
    settings = _settings(config)
    try:
        with closing(open_read_only(settings.store)) as db:
            farms = [farm_sums(db, backbone) for backbone in backbones(db)]
    except StoreError as error:
        raise _failed(error) from error
    answers = []
    for farm in farms:
        try:
            farm.released()
            refusal = None
        except NotEnough as error:
            refusal = str(error)
        arrays = {name: getattr(farm.sums, name).tolist() for name in ("gram", "moment", "energy", "count")}
        answers.append(
            {
                "backbone": f"{farm.backbone_id:08x}",
                "contributors": farm.contributors,
                "windows": farm.windows,
                "refusal": refusal,
                "sums": arrays,
            }
        )
    if as_json:
        _print_json({"site": settings.site, "backbones": answers})
        return
    table = Table("backbone", "nodes", "windows", "may leave the farm", title=f"{settings.site}: sums")
    for answer in answers:
        may_leave = "yes" if answer["refusal"] is None else f"no: {answer['refusal']}"
        table.add_row(str(answer["backbone"]), str(answer["contributors"]), str(answer["windows"]), may_leave)
    Console().print(table)


def _settings(path: Path) -> GatewaySettings:
    try:
        return GatewaySettings.from_toml(path)
    except ConfigurationError as error:
        raise _failed(error) from error


def _check_secrets(settings: GatewaySettings) -> None:
    try:
        for broker in filter(None, (settings.broker, settings.server_broker)):
            broker.password()
    except ConfigurationError as error:
        raise _failed(error) from error


def _failed(error: Exception) -> typer.Exit:
    typer.echo(str(error), err=True)
    return typer.Exit(2)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))


def _status(settings: GatewaySettings) -> dict[str, Any]:
    try:
        db = open_read_only(settings.store)
    except StoreError as error:
        raise _failed(error) from error
    with closing(db):
        nodes = [dict(row) for row in db.execute("SELECT * FROM devices WHERE listed = 1 ORDER BY dev_eui")]
        updates = [dict(row) for row in db.execute("SELECT * FROM updates ORDER BY campaign, dev_eui")]
        counters = {row["name"]: row["value"] for row in db.execute("SELECT name, value FROM counters ORDER BY name")}
        (waiting,) = db.execute("SELECT count(*) FROM outbox").fetchone()
    for node in nodes:
        node["mode"] = None if node["mode"] is None else Mode(node["mode"]).name.lower()
        seen_s = node["last_seen_s"]
        node["last_seen"] = None if seen_s is None else f"{datetime.fromtimestamp(seen_s, UTC):%Y-%m-%d %H:%M}"
    return {"site": settings.site, "nodes": nodes, "updates": updates, "counters": counters, "outbox": waiting}
