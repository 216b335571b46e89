"""``noria server``: the key, the store, the running server, and how it stands."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path
from typing import Annotated

import typer

from server import store
from server.cli.rounds import next_round, outcome, scheduled
from server.cli.terminal import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    app,
    console,
    fail,
    load,
    print_json,
    rows,
    table,
    when,
)
from server.config import ServerSettings
from shared_models.configuration import ConfigurationError


@app.command()
def keygen(
    config: ConfigOption = DEFAULT_CONFIG,
    key_file: Annotated[Path | None, typer.Option(help="Instead of the configured file.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Make the operator's signing key, and the secret that nodes' update keys follow from."""
    from server import signing, update_keys
    from server.secret_files import KeyFileError

    settings = None if key_file else load(config)
    path = key_file or (settings or load(config)).key_file
    secret = None if settings is None or settings.update_keys_path.exists() else settings.update_keys_path
    try:
        key = signing.generate(path)
        if secret is not None:
            update_keys.generate(secret)
    except KeyFileError as error:
        fail(str(error))
    if as_json:
        files = {"key_file": str(path), "update_key_file": str(secret) if secret else None}
        print_json({**files, "public_key": key.public.hex(), "key_id": key.key_id})
    else:
        console.print(f"{path} (keep it safe and apart from the store)", markup=False, highlight=False)
        if secret is not None:
            console.print(f"{secret} (likewise; noria server update-keys)", markup=False, highlight=False)
        console.print(f"public key {key.public.hex()}, id {key.key_id}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def init(config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """Create the store and register the factory model as release 1."""
    from server.releases import ReleaseError
    from server.secret_files import KeyFileError
    from server.service import initialise

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
    from server.secret_files import KeyFileError
    from server.service import AlreadyRunningError, serve

    settings = load(config)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(serve(settings))
    except (AlreadyRunningError, KeyFileError, PkiError, store.StoreError, ConfigurationError) as error:
        fail(str(error))


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


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def train(context: typer.Context) -> None:
    """Train a factory model (TensorFlow); see: noria server train --help."""
    from server.training.cli import train as train_command

    trainer = typer.Typer(add_completion=False)
    trainer.command()(train_command)
    trainer(args=context.args, prog_name="noria server train")
