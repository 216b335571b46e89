"""``noria server`` and ``noria ota``: what operators type.

Commands that change something write a row into ``commands`` and wait for the running server to carry it out; those
that only look read the store.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import logging
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from server import store
from server.config import FleetApiSection, ServerSettings
from shared_models.configuration import ConfigurationError

if TYPE_CHECKING:
    from server.scheduler import Plan

app = typer.Typer(no_args_is_help=True, help="The fleet's server: rounds, releases, keys.")
supernode_app = typer.Typer(no_args_is_help=True, help="Which SuperNodes may join.")
app.add_typer(supernode_app, name="supernode")
ota_app = typer.Typer(no_args_is_help=True, help="Campaigns: bringing a release to the nodes.")
console = Console()
errors = Console(stderr=True)

POLL_S = 0.1
TOLD_TIMEOUT_S = 15.0
WATCH_S = 0.5
REFUSED = 1
UNUSABLE = 2

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", envvar="NORIA_SERVER_CONFIG", help="The server's configuration.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CampaignArgument = Annotated[int, typer.Argument(min=1, help="The campaign's number.")]
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


# noria server


@app.command()
def keygen(
    config: ConfigOption = DEFAULT_CONFIG,
    key_file: Annotated[Path | None, typer.Option(help="Instead of the configured file.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Make the operator's signing key."""
    from server import signing

    path = key_file or load(config).key_file
    try:
        key = signing.generate(path)
    except signing.KeyFileError as error:
        fail(str(error))
    if as_json:
        print_json({"key_file": str(path), "public_key": key.public.hex(), "key_id": key.key_id})
    else:
        console.print(f"{path} (keep it safe and apart from the store)", markup=False, highlight=False)
        console.print(f"public key {key.public.hex()}, id {key.key_id}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def init(config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """Create the store and register the factory model as release 1."""
    from server.releases import ReleaseError
    from server.service import initialise
    from server.signing import KeyFileError

    settings = load(config)
    try:
        release = initialise(settings, int(time.time()) if settings.clock == "system" else 0)
    except (KeyFileError, ReleaseError, store.StoreError) as error:
        fail(str(error))
    if as_json:
        print_json({"version": release.version, "model_id": release.model_id, "backbone_id": release.backbone_id})
    else:
        console.print(f"{settings.database}: release 1 is model {release.model_id:08x}", markup=False, highlight=False)


@app.command()
def run(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the server until it is told to stop."""
    from server.pki import PkiError
    from server.service import AlreadyRunningError, serve
    from server.signing import KeyFileError

    settings = load(config)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(serve(settings))
    except (AlreadyRunningError, KeyFileError, PkiError, store.StoreError, ConfigurationError) as error:
        fail(str(error))


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


@app.command()
def status(config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """How the server and its fleet stand."""
    from server.service import is_running

    settings = load(config)
    facts = {row["key"]: row["value"] for row in rows(settings, "SELECT key, value FROM meta")}
    sites = rows(
        settings,
        "SELECT s.site, s.last_status_s, count(n.dev_eui) AS nodes, coalesce(sum(n.healthy), 0) AS healthy,"
        " min(n.model_version) AS oldest, max(n.model_version) AS newest"
        " FROM sites AS s LEFT JOIN nodes AS n USING (site) GROUP BY s.site ORDER BY s.site",
    )
    newest = rows(settings, "SELECT * FROM rounds ORDER BY id DESC LIMIT 10")
    schedule = scheduled(settings)
    counters = {row["name"]: row["value"] for row in rows(settings, "SELECT name, value FROM counters ORDER BY name")}
    for entry in newest:
        entry["evidence"] = json.loads(entry["evidence"])
    running = is_running(settings.state_dir)
    certificates = _certificates_end(settings)
    if as_json:
        superlink = facts.get("superlink", "down")
        print_json(
            {
                "running": running,
                "superlink": superlink,
                "fleet_certificates_end": certificates,
                "schedule": schedule.as_json(),
                "sites": sites,
                "rounds": newest,
                "counters": counters,
            }
        )
        return
    console.print(f"server {'runs' if running else 'does not run'}, SuperLink {facts.get('superlink', 'down')}")
    if certificates is not None:
        console.print(f"certificates of the fleet API end {certificates}", highlight=False)
    console.print(next_round(schedule), markup=False, highlight=False)
    console.print(
        table(
            "Sites",
            {
                "site": [entry["site"] for entry in sites],
                "last heard": [when(entry["last_status_s"]) for entry in sites],
                "nodes": [str(entry["nodes"]) for entry in sites],
                "healthy": [str(entry["healthy"]) for entry in sites],
                "model": [f"{entry['oldest']} … {entry['newest']}" for entry in sites],
            },
        ),
        table(
            "Rounds",
            {
                "round": [str(entry["id"]) for entry in newest],
                "started": [when(entry["started_s"]) for entry in newest],
                "sites": [f"{entry['accepted']} of {entry['asked']}" for entry in newest],
                "windows": [str(entry["windows"]) for entry in newest],
                "outcome": [outcome(entry) for entry in newest],
            },
        ),
    )
    for name, value in counters.items():
        console.print(f"{name} {value}", highlight=False)


def _certificates_end(settings: ServerSettings) -> str | None:
    """The day the first certificate ends, or why it cannot be told; None where the fleet API is not published."""
    from server import pki

    if settings.fleet_api is None:
        return None
    try:
        return f"{pki.ends(pki.Pki(settings.fleet_api.certificates)):%Y-%m-%d}"
    except pki.PkiError as error:
        return f"unknown: {error}"


@app.command()
def releases(config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """All releases."""
    found = rows(
        load(config),
        "SELECT version, created_s, origin, base_version, round, model_id, backbone_id, content_hash, key_id,"
        " (SELECT json_group_object(kind, size_bytes) FROM artefacts AS a WHERE a.version = r.version) AS sizes_bytes"
        " FROM releases AS r ORDER BY version",
    )
    for entry in found:
        entry["sizes_bytes"] = json.loads(entry["sizes_bytes"])
    if as_json:
        print_json({"releases": found})
        return
    console.print(
        table(
            "Releases",
            {
                "version": [str(entry["version"]) for entry in found],
                "created": [when(entry["created_s"]) for entry in found],
                "from": [
                    f"release {entry['base_version']}, round {entry['round']}" if entry["round"] else entry["origin"]
                    for entry in found
                ],
                "model": [f"{entry['model_id']:08x}" for entry in found],
                "backbone": [f"{entry['backbone_id']:08x}" for entry in found],
                "bytes on the air": [
                    ", ".join(f"{kind} {size}" for kind, size in sorted(entry["sizes_bytes"].items()))
                    for entry in found
                ],
            },
        )
    )


@app.command()
def explain(
    release: Annotated[int, typer.Argument(min=1, help="The release's version.")],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    plot: Annotated[Path | None, typer.Option(help="Draw the error per site before and after into this SVG.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Why a release exists: where it came from and what the gate saw."""
    found = rows(load(config), "SELECT version, origin, provenance, evidence FROM releases WHERE version = ?", release)
    if not found:
        fail(f"there is no release {release}", REFUSED)
    provenance, evidence = json.loads(found[0]["provenance"]), json.loads(found[0]["evidence"])
    if plot:
        _draw(release, evidence, plot)
    if as_json:
        print_json({"version": release, "provenance": provenance, "evidence": evidence})
        return
    console.print(f"release {release}: {found[0]['origin']}", highlight=False)
    console.print_json(data=provenance)
    if evidence:
        console.print(_evidence_table(evidence))
        for target in evidence["targets"]:
            console.print(f"{target['target']}: {target['decision']}, {target['reason']}", highlight=False)
            for rival in ("running", "physics"):
                if seen := target.get(f"against_{rival}"):
                    console.print(f"  against the {rival}: {_compared(seen)}", highlight=False)
        if evidence.get("levels"):
            console.print(_levels_table(evidence["levels"]))
        for title, listed in (("held back", evidence.get("held_back")), ("set aside", evidence.get("set_aside"))):
            for site, reason in (listed or {}).items():
                console.print(f"{title}: {site}, {reason}", markup=False, highlight=False)
    if plot:
        console.print(f"{plot}", markup=False, highlight=False)


def _draw(release: int, evidence: Mapping[str, Any], plot: Path) -> None:
    from server.evidence_chart import evidence_chart

    if not evidence:
        fail(f"release {release} has no evidence to draw: it was not learned from the fleet", REFUSED)
    try:
        plot.write_text(evidence_chart(evidence, f"Release {release}"), encoding="utf-8")
    except OSError as error:
        fail(f"{plot}: cannot be written: {error.strerror}")


def _compared(seen: Mapping[str, Any]) -> str:
    """A comparison for people."""
    if seen["low"] is None:
        return f"{seen['ratio']:.4f} of the squared error, {seen['sites']} sites: too few for an interval"
    return f"{seen['ratio']:.4f} of the squared error [{seen['low']:.4f}, {seen['high']:.4f}], {seen['sites']} sites"


def _levels_table(levels: list[dict[str, Any]]) -> Table:
    return table(
        "What heads are worth by level, out of sample; only the fleet's is released",
        {
            "target": [entry["target"] for entry in levels],
            "level": [
                f"{entry['level']} ({entry['groups']} of them)" if entry.get("groups") else entry["level"]
                for entry in levels
            ],
            "prior, windows": [
                "as above" if entry["strength_windows"] is None else f"{entry['strength_windows']:.0f}"
                for entry in levels
            ],
            "against the running": [_compared(entry["against_running"]) for entry in levels],
            "against the level above": [_compared(entry["against_above"]) for entry in levels],
        },
    )


def _evidence_table(evidence: Mapping[str, Any]) -> Table:
    columns: dict[str, list[str]] = {
        name: [] for name in ("target", "site", "windows", "physics", "running", "candidate")
    }
    for target in evidence["targets"]:
        figures = [*target["sites"].items(), ("all", target["total"])]
        for site, entry in figures:
            physics = entry["physics"] or 1.0
            columns["target"].append(target["target"])
            columns["site"].append(site)
            columns["windows"].append(str(entry["windows"]))
            columns["physics"].append(f"{entry['physics']:.0f}")
            columns["running"].append(f"{entry['running'] / physics:.4f}")
            columns["candidate"].append(f"{entry['candidate'] / physics:.4f}")
    return table("Squared error out of sample: physics in steps², running and candidate relative to it", columns)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def train(context: typer.Context) -> None:
    """Train a factory model (TensorFlow); see: noria server train --help."""
    from server.training.cli import train as train_command

    trainer = typer.Typer(add_completion=False)
    trainer.command()(train_command)
    trainer(args=context.args, prog_name="noria server train")


# The published fleet API


def _published(settings: ServerSettings) -> FleetApiSection:
    if settings.fleet_api is None:
        fail("the configuration has no table [fleet_api]: the fleet API stays on this machine and asks for no keys")
    return settings.fleet_api


@app.command("fleet-ca")
def fleet_ca(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    renew: Annotated[bool, typer.Option("--renew", help="New server certificates from the same CA.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the CA that gateways trust, and the proxy's and the SuperLink's certificates."""
    from server import pki

    fleet_api = _published(load(config))
    try:
        made = (pki.renew if renew else pki.create)(fleet_api.certificates, fleet_api.names)
        end = pki.ends(made)
    except pki.PkiError as error:
        fail(str(error))
    if as_json:
        files = {"ca": made.ca.certificate, "proxy": made.proxy.certificate, "superlink": made.superlink.certificate}
        print_json({"ends": end.isoformat(), **{name: str(path) for name, path in files.items()}})
        return
    for line in (
        f"{made.ca.certificate} (give it to every gateway)",
        f"{made.ca.key} (keep it offline; needed to renew only)",
        f"{made.proxy.certificate}, {made.proxy.key} (for the proxy: {', '.join(fleet_api.names)})",
        f"{made.superlink.certificate}, {made.superlink.key} (for this server)",
        f"to be renewed before {end:%Y-%m-%d}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def proxy(
    config: ConfigOption = DEFAULT_CONFIG,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here instead of printing.")] = None,
) -> None:
    """The nginx configuration that publishes the fleet API and nothing else."""
    from server.proxy import ProxyError, render

    settings = load(config)
    try:
        text = render(_published(settings), settings.superlink.port)
        if output is None:
            sys.stdout.write(text)
        else:
            output.write_text(text, encoding="utf-8")
    except (ProxyError, OSError) as error:
        fail(str(error))


SiteArgument = Annotated[str, typer.Argument(help="The site's name.")]


@supernode_app.command("add")
def supernode_add(
    site: SiteArgument,
    public_key: Annotated[Path, typer.Option("--public-key", help="File from: noria gateway keygen; - reads it.")],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: JsonOption = False,
) -> None:
    """Let a site's SuperNode join."""
    settings = load(config)
    _published(settings)
    try:
        text = sys.stdin.read(4096) if str(public_key) == "-" else public_key.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{public_key}: {error}")
    result = ask(settings, "supernode.add", {"site": site, "public_key": text})
    answer(_with_superlink(settings, result, told=("registered", "online", "offline")), as_json=as_json)


@supernode_app.command("revoke")
def supernode_revoke(site: SiteArgument, config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """Never let a site's present key in again; its SuperNode is cut off within seconds."""
    settings = load(config)
    _published(settings)
    result = ask(settings, "supernode.revoke", {"site": site})
    answer(_with_superlink(settings, result, told=("unregistered",)), as_json=as_json)


def _with_superlink(settings: ServerSettings, result: dict[str, Any], told: tuple[str, ...]) -> dict[str, Any]:
    """Wait a little until the SuperLink has been told, and say whether it has."""
    if result["state"] != "done":
        return result
    deadline = time.monotonic() + TOLD_TIMEOUT_S
    while True:
        row = rows(settings, "SELECT state, problem FROM supernodes WHERE fingerprint = ?", result["fingerprint"])[0]
        is_told = row["state"] in told and not row["problem"]
        if is_told or row["problem"] or time.monotonic() > deadline:
            break
        time.sleep(POLL_S)
    said = "the SuperLink knows" if is_told else row["problem"] or "the SuperLink will be told as soon as it is up"
    return {**result, "superlink_knows": is_told, "message": f"{result['message']}; {said}"}


@supernode_app.command("list")
def supernode_list(config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """Every key there ever was, and how the SuperLink sees it."""
    found = rows(load(config), "SELECT * FROM supernodes ORDER BY revoked_s IS NOT NULL, site, added_s")
    if as_json:
        print_json({"supernodes": found})
        return
    console.print(
        table(
            "SuperNodes",
            {
                "site": [entry["site"] for entry in found],
                "key": [entry["fingerprint"] for entry in found],
                "added": [f"{when(entry['added_s'])} by {entry['added_by']}" for entry in found],
                "revoked": [
                    f"{when(entry['revoked_s'])} by {entry['revoked_by']}" if entry["revoked_s"] else ""
                    for entry in found
                ],
                "SuperLink": [entry["problem"] or entry["state"] or "not told yet" for entry in found],
                "as of": [when(entry["checked_s"]) for entry in found],
            },
        )
    )


# noria ota


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
