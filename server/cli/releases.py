"""``noria server release``: the registry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from server import store
from server.cli.terminal import (
    DEFAULT_CONFIG,
    REFUSED,
    ConfigOption,
    JsonOption,
    answer,
    app,
    ask,
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

release_app = typer.Typer(no_args_is_help=True, help="The registry: what was released, why, and whether it is whole.")
app.add_typer(release_app, name="release")

VersionArgument = Annotated[int, typer.Argument(min=1, help="The release's version.")]
FRAME_RATES = (0, 3, 5)
"""EU868 data rates for which frames are counted: SF12, SF9, SF7."""

_RELEASES = """
SELECT r.version, r.created_s, r.origin, r.base_version, r.round, r.model_id, r.backbone_id, r.content_hash, r.key_id,
       w.withdrawn_s, w.actor AS withdrawn_by, w.reason AS withdrawn_because,
       (SELECT count(*) FROM nodes AS n WHERE n.model_version = r.version) AS nodes
FROM releases AS r LEFT JOIN withdrawals AS w USING (version)
"""


@release_app.command(name="list")
def list_releases(config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """All releases: where each came from, what goes on the air, how many nodes run it."""
    settings = load(config)
    found = rows(settings, f"{_RELEASES} ORDER BY r.version")
    for entry in found:
        entry["artefacts"] = _artefacts(settings, entry["version"])
    if as_json:
        print_json({"releases": found})
        return
    console.print(
        table(
            "Releases",
            {
                "version": [str(entry["version"]) for entry in found],
                "created": [when(entry["created_s"]) for entry in found],
                "from": [_origin(entry) for entry in found],
                "model": [f"{entry['model_id']:08x}" for entry in found],
                "backbone": [f"{entry['backbone_id']:08x}" for entry in found],
                "bytes on the air": [
                    ", ".join(f"{artefact['kind']} {artefact['size_bytes']}" for artefact in entry["artefacts"])
                    for entry in found
                ],
                "nodes": [str(entry["nodes"]) for entry in found],
                "withdrawn": [entry["withdrawn_because"] or "" for entry in found],
            },
        )
    )


def _origin(entry: Mapping[str, Any]) -> str:
    if entry["base_version"] is None:
        return str(entry["origin"])
    of_round = f", round {entry['round']}" if entry["round"] else ""
    told = "" if entry["origin"] == "federation" else f"{entry['origin']}, "
    return f"{told}release {entry['base_version']}{of_round}"


def _artefacts(settings: ServerSettings, version: int) -> list[dict[str, Any]]:
    return rows(
        settings,
        "SELECT kind, base, device, content_hash, size_bytes FROM artefacts WHERE version = ?"
        " ORDER BY size_bytes, kind, base, device",
        version,
    )


@release_app.command()
def show(version: VersionArgument, config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """One release: what it was made of, its containers with the frames each takes, and the evidence in short."""
    settings = load(config)
    found = rows(settings, f"{_RELEASES} WHERE r.version = ?", version)
    if not found:
        fail(f"there is no release {version}", REFUSED)
    entry = found[0]
    text = rows(settings, "SELECT provenance, evidence FROM releases WHERE version = ?", version)[0]
    entry["provenance"] = json.loads(text["provenance"])
    evidence = json.loads(text["evidence"])
    entry["evidence"] = _in_short(evidence)
    entry["artefacts"] = _with_frames(settings, version)
    if as_json:
        print_json(entry)
        return
    _print_release(entry)


def _in_short(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict per target; ``noria server explain`` has the figures."""
    return {
        "reason": evidence.get("reason", ""),
        "targets": {target["target"]: target["decision"] for target in evidence.get("targets", [])},
        "held_back": sorted(evidence.get("held_back", {})),
        "set_aside": sorted(evidence.get("set_aside", {})),
    }


def _with_frames(settings: ServerSettings, version: int) -> list[dict[str, Any]]:
    from server.campaigns.forecast import cost
    from server.releases import artefact_name

    found = rows(
        settings,
        "SELECT kind, base, device, content_hash, size_bytes, container FROM artefacts WHERE version = ?"
        " ORDER BY size_bytes, kind, base, device",
        version,
    )
    for entry in found:
        container = entry.pop("container")
        costs = {rate: cost(container, rate) for rate in FRAME_RATES}
        entry["frames"] = {f"DR{rate}": None if spent is None else spent.downlinks for rate, spent in costs.items()}
        entry["name"] = artefact_name(entry["kind"], entry["base"], entry["device"])
    return found


def _print_release(entry: Mapping[str, Any]) -> None:
    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say(f"release {entry['version']}, {_origin(entry)}, {when(entry['created_s'])} UTC")
    if entry["withdrawn_s"] is not None:
        by = f"{when(entry['withdrawn_s'])} by {entry['withdrawn_by']}"
        say(f"withdrawn {by}: {entry['withdrawn_because']}")
    say(f"model {entry['model_id']:08x}, backbone {entry['backbone_id']:08x}, key {entry['key_id']}")
    say(f"BLAKE2b-256 {entry['content_hash']}")
    provenance = entry["provenance"]
    if code := provenance.get("code"):
        say(f"made by Noria {code['version']}, code {code['hash']}")
    if base_hash := provenance.get("base_content_hash"):
        say(f"from release {entry['base_version']}, {base_hash}")
    if sites := provenance.get("sites"):
        console.print(
            table(
                "Learned from",
                {
                    "site": list(sites),
                    "nodes": [str(figures.get("contributors", "")) for figures in sites.values()],
                    "windows": [str(figures.get("windows", "")) for figures in sites.values()],
                    "sums": [figures.get("sums_hash", "")[:16] for figures in sites.values()],
                },
            )
        )
    console.print(
        table(
            "Containers",
            {
                "container": [artefact["name"] for artefact in entry["artefacts"]],
                "bytes": [str(artefact["size_bytes"]) for artefact in entry["artefacts"]],
                **{
                    f"downlinks at DR{rate}": [_frames(artefact, rate) for artefact in entry["artefacts"]]
                    for rate in FRAME_RATES
                },
                "BLAKE2b-256": [artefact["content_hash"][:16] for artefact in entry["artefacts"]],
            },
        )
    )
    short = entry["evidence"]
    for target, decision in short["targets"].items():
        say(f"{target}: {decision}")
    for title in ("held_back", "set_aside"):
        if short[title]:
            say(f"{title.replace('_', ' ')}: {', '.join(short[title])}")
    say(f"{entry['nodes']} nodes run it")


def _frames(artefact: Mapping[str, Any], rate: int) -> str:
    count = artefact["frames"][f"DR{rate}"]
    return "too long" if count is None else str(count)


@release_app.command()
def diff(
    before: VersionArgument,
    after: VersionArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: JsonOption = False,
) -> None:
    """What one release changes in another: weights, biases and scales by layer, and how far the forecasts part."""
    from server import releases
    from server.differences import compare

    settings = load(config)
    try:
        with closing(store.connect(settings.database, read_only=True)) as connection:
            found = compare(connection, releases.find(connection, before), releases.find(connection, after))
    except store.StoreError as error:
        fail(str(error))
    except releases.ReleaseError as error:
        fail(str(error), REFUSED)
    if as_json:
        print_json(found.to_json())
        return
    console.print(f"{before} → {after}: {found.in_words()}", markup=False, highlight=False)
    layers, outputs = found.layers, found.outputs
    console.print(
        table(
            "Numbers that differ",
            {
                "layer": [change.layer for change in layers],
                "weights": [f"{change.weights} of {change.weights_of}" for change in layers],
                "largest change": [str(change.largest_weight_change) for change in layers],
                "biases": [f"{change.biases} of {change.biases_of}" for change in layers],
                "scales": [", ".join(change.scales) or "none" for change in layers],
            },
        ),
        table(
            "Forecasts, in output steps",
            {
                "target": [output.target for output in outputs],
                "largest change": [str(output.largest) for output in outputs],
                "mean change": [f"{output.mean:.2f}" for output in outputs],
                "": ["█" * min(40, round(output.mean)) for output in outputs],
            },
        ),
        table(
            f"Containers of release {after}",
            {"container": list(found.artefacts_bytes), "bytes": [str(size) for size in found.artefacts_bytes.values()]},
        ),
    )


@release_app.command()
def verify(
    version: Annotated[int | None, typer.Argument(min=1, help="Only this one; all unless given.")] = None,
    public_key: Annotated[
        list[Path] | None,
        typer.Option(help="File of a trusted public key; may be repeated. The configured key's .pub unless given."),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: JsonOption = False,
) -> None:
    """Recompute hashes, check signatures, open every container as a node would; exit code 1 if anything is wrong.

    Heads that are for one node alone are opened where the secret behind the nodes' update keys is at hand.
    """
    from server import signing, verification
    from server.releases import ReleaseError
    from server.secret_files import KeyFileError
    from server.update_keys import UpdateKeys

    settings = load(config)
    files = public_key or [signing.public_key_path(settings.key_file)]
    try:
        keys = [signing.load_public(path) for path in files]
        with closing(store.connect(settings.database, read_only=True)) as connection:
            own = UpdateKeys.load(settings.update_keys_path) if settings.update_keys_path.is_file() else None
            checked = verification.verify(connection, keys, version, own)
    except (KeyFileError, store.StoreError) as error:
        fail(str(error))
    except ReleaseError as error:
        fail(str(error), REFUSED)
    problems = [f"release {entry.version}: {problem}" for entry in checked for problem in entry.problems]
    containers = sum(entry.containers for entry in checked)
    if as_json:
        print_json({"releases": len(checked), "containers": containers, "problems": problems})
    else:
        for problem in problems:
            errors.print(problem, style="red", markup=False, highlight=False, soft_wrap=True)
        if not problems:
            console.print(f"{len(checked)} releases with {containers} containers are whole", highlight=False)
    if problems:
        raise typer.Exit(REFUSED)


@release_app.command()
def withdraw(
    version: VersionArgument,
    reason: Annotated[str, typer.Option(help="Why, for everybody who meets the release later.")],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: JsonOption = False,
) -> None:
    """Bring a release to no further node, for good; nodes that run it keep it until something newer comes."""
    answer(ask(load(config), "release.withdraw", {"release": version, "reason": reason}), as_json=as_json)
