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

from gateway.clock import DAWN_S, Clock
from gateway.config import GatewaySettings
from gateway.keys import KeyFileError, fingerprint, generate, load
from gateway.membership import read as membership_of
from gateway.store import StoreError, ask, open_read_only
from gateway.sums import NotEnough, backbones, farm_sums
from shared_models.codes import Crop, Mode
from shared_models.configuration import ConfigurationError
from shared_models.frames import FrameError, SettingsChange
from shared_models.settings import Setting

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
    if settings.federation is not None and settings.federation.private_key is not None:
        # Only here: a gateway with a bad key runs, and says so, but takes no part in rounds.
        try:
            load(settings.federation.private_key)
        except KeyFileError as error:
            raise _failed(error) from error
    facts = {"site": settings.site, "nodes": len(settings.nodes), "store": str(settings.store), "clock": settings.clock}
    if as_json:
        _print_json(facts)
    else:
        typer.echo(f"{config}: site {settings.site}, {len(settings.nodes)} nodes, store {settings.store}")


@app.command()
def keygen(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Make the SuperNode's key where the configuration expects it, and print the public half for the operator."""
    settings = _settings(config)
    if settings.federation is None or settings.federation.private_key is None:
        raise _failed(ValueError(f"{config}: federation.private_key says where the key belongs; it is not there"))
    path = settings.federation.private_key
    try:
        line = generate(path, f"noria-{settings.site}")
        mark = fingerprint(load(path))
    except KeyFileError as error:
        raise _failed(error) from error
    if as_json:
        _print_json({"private_key": str(path), "public_key": line, "fingerprint": mark})
        return
    typer.echo(f"{path} (stays here; nobody else needs it)", err=True)
    typer.echo(f"{mark}; give this line to the fleet's operator, also in {path}.pub:", err=True)
    typer.echo(line)


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
    if (membership := facts["federation"]) is not None:
        since = f"{datetime.fromtimestamp(membership['since_s'], UTC):%Y-%m-%d %H:%M}"
        console.print(f"federation since {since}: {membership['standing']}: {membership['words']}", markup=False)
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


@app.command("settings")
def change_settings(
    dev_eui: Annotated[str, typer.Argument(help="The node, 16 hex digits.")],
    config: ConfigOption,
    planting: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Planting day; sets the season.")
    ] = None,
    season_days: Annotated[int | None, typer.Option(help="Planting to harvest.")] = None,
    crop: Annotated[str | None, typer.Option(help="maize, soybean, potato, ...")] = None,
    application_rate_mm_h: Annotated[float | None, typer.Option(help="What the valve delivers.")] = None,
    dose_mm: Annotated[float | None, typer.Option(help="One dose.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Depletion that triggers a dose, share of TAW.")] = None,
    awc: Annotated[float | None, typer.Option(help="Available water capacity, m³/m³; 0: unknown.")] = None,
    min_interval_h: Annotated[int | None, typer.Option(help="Least time between doses.")] = None,
    daily_cap_mm: Annotated[int | None, typer.Option(help="Most water in one day.")] = None,
    seasonal_cap_mm: Annotated[int | None, typer.Option(help="Most water in one season.")] = None,
    window_start_h: Annotated[int | None, typer.Option(help="Watering allowed from, local hour.")] = None,
    window_end_h: Annotated[int | None, typer.Option(help="Watering allowed until, local hour.")] = None,
    telemetry_period_h: Annotated[int | None, typer.Option(help="Hours between telemetry frames.")] = None,
    statistics_period_h: Annotated[int | None, typer.Option(help="Hours between statistics.")] = None,
    root_depth_max_cm: Annotated[int | None, typer.Option(help="Deepest roots.")] = None,
    utc_offset_min: Annotated[int | None, typer.Option(help="Local time minus UTC.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Change a node's settings: the gateway sends them with the node's next uplinks until it says they are applied."""
    settings = _settings(config)
    offset_min = settings.utc_offset_min if utc_offset_min is None else utc_offset_min
    asked = {
        Setting.PLANTING_TIME_S: None if planting is None else _dawn_s(planting, offset_min),
        Setting.SEASON: None if planting is None else planting.year,
        Setting.SEASON_DAYS: season_days,
        Setting.CROP: None if crop is None else _crop(crop),
        Setting.APPLICATION_RATE_E2_MM_H: _scaled(application_rate_mm_h, 100),
        Setting.DOSE_E1_MM: _scaled(dose_mm, 10),
        Setting.THRESHOLD_PERMILLE: _scaled(threshold, 1000),
        Setting.AWC_PRIOR_PERMILLE: _scaled(awc, 1000),
        Setting.MIN_INTERVAL_H: min_interval_h,
        Setting.DAILY_CAP_MM: daily_cap_mm,
        Setting.SEASONAL_CAP_MM: seasonal_cap_mm,
        Setting.WINDOW_START_H: window_start_h,
        Setting.WINDOW_END_H: window_end_h,
        Setting.TELEMETRY_PERIOD_H: telemetry_period_h,
        Setting.STATISTICS_PERIOD_H: statistics_period_h,
        Setting.ROOT_DEPTH_MAX_CM: root_depth_max_cm,
        Setting.UTC_OFFSET_MIN: utc_offset_min,
    }
    changes = {setting: value for setting, value in asked.items() if value is not None}
    command, frame = _ask_for_settings(settings, dev_eui.lower(), changes)
    if as_json:
        _print_json({"command": command, "settings": _named(changes), "payload": frame.hex()})
    else:
        named = ", ".join(f"{name} {value}" for name, value in _named(changes).items())
        typer.echo(f"command {command}: {named}; goes out with the node's next uplink")


def _ask_for_settings(settings: GatewaySettings, dev_eui: str, changes: dict[Setting, int]) -> tuple[int, bytes]:
    if all(node.dev_eui != dev_eui for node in settings.nodes):
        raise _failed(ValueError(f"{dev_eui} is not one of this site's nodes; they are in the configuration"))
    arguments = {"dev_eui": dev_eui, "settings": _named(changes)}
    try:
        frame = SettingsChange(changes).encode()
        with closing(open_read_only(settings.store)) as db:
            row = db.execute("SELECT value FROM meta WHERE key = 'clock_s'").fetchone()
        now_s = Clock(settings.clock, 0 if row is None else int(row["value"])).now_s()
        command = ask(settings.store, created_s=now_s, actor="cli", action="settings.change", arguments=arguments)
    except (FrameError, StoreError) as error:
        raise _failed(error) from error
    return command, frame


def _named(changes: dict[Setting, int]) -> dict[str, int]:
    return {setting.name.lower(): value for setting, value in changes.items()}


def _scaled(value: float | None, steps: int) -> int | None:
    return None if value is None else round(value * steps)


def _dawn_s(day: datetime, utc_offset_min: int) -> int:
    """06:00 local of a day, when the node's days begin."""
    return int(day.replace(tzinfo=UTC).timestamp()) + DAWN_S - 60 * utc_offset_min


def _crop(name: str) -> Crop:
    try:
        return Crop[name.upper()]
    except KeyError as error:
        known = ", ".join(crop.name.lower() for crop in Crop)
        raise _failed(ValueError(f"no crop is called {name!r:.40}; there are {known}")) from error


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
        membership = membership_of(db)
    for node in nodes:
        node["mode"] = None if node["mode"] is None else Mode(node["mode"]).name.lower()
        seen_s = node["last_seen_s"]
        node["last_seen"] = None if seen_s is None else f"{datetime.fromtimestamp(seen_s, UTC):%Y-%m-%d %H:%M}"
    return {
        "site": settings.site,
        "federation": membership,
        "nodes": nodes,
        "updates": updates,
        "counters": counters,
        "outbox": waiting,
    }
