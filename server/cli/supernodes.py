"""``noria server``: the published fleet API and which SuperNodes may join."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from server.cli.terminal import (
    DEFAULT_CONFIG,
    POLL_S,
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
from server.config import FleetApiSection, ServerSettings

supernode_app = typer.Typer(no_args_is_help=True, help="Which SuperNodes may join.")
app.add_typer(supernode_app, name="supernode")

TOLD_TIMEOUT_S = 15.0


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
