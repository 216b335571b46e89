"""Checking the registry from outside: hashes recomputed, signatures checked, containers opened as nodes open them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import monocypher

from server import farm_heads, federation, releases
from server.releases import Release, ReleaseError
from server.update_keys import UpdateKeys
from shared_models.codes import Board
from shared_models.container import SIGNATURE_SIZE, ContainerError, Receiver, open_container
from shared_models.network import ModelError, ModelImage


@dataclass(frozen=True)
class Checked:
    """What became of checking one release."""

    version: int
    containers: int
    """Opened on every board, or only hashed where they are for one node's own key."""
    problems: tuple[str, ...]


def verify(
    connection: sqlite3.Connection,
    public_keys: Sequence[bytes],
    version: int | None = None,
    update_keys: UpdateKeys | None = None,
) -> list[Checked]:
    """Check one release, or all of them.

    Args:
        connection: The server's store.
        public_keys: Whose signatures count.
        version: Only this one.
        update_keys: Opens the heads that are for one node alone.

    Raises:
        ReleaseError: there is no such release.
    """
    rows = connection.execute(
        "SELECT * FROM releases WHERE ? IS NULL OR version = ? ORDER BY version", (version, version)
    ).fetchall()
    if not rows:
        raise ReleaseError(f"there is no release {version}" if version else "there is no release yet")
    return [_check(connection, public_keys, row, update_keys) for row in rows]


def _check(
    connection: sqlite3.Connection, public_keys: Sequence[bytes], row: sqlite3.Row, update_keys: UpdateKeys | None
) -> Checked:
    version = row["version"]
    artefacts = connection.execute(
        "SELECT * FROM artefacts WHERE version = ? ORDER BY kind, base, device", (version,)
    ).fetchall()
    problems = []
    if releases.content_hash(row["image"]) != row["content_hash"]:
        problems.append("its model is not the one its hash names")
    try:
        image = ModelImage.unpack(row["image"])
        release = releases.find(connection, version)
    except (ModelError, ValueError) as error:
        return Checked(version, len(artefacts), (*problems, f"it cannot be read: {error}"))
    if (image.model_id, image.backbone_id) != (row["model_id"], row["backbone_id"]):
        problems.append("its identities are not its model's")
    problems += _provenance(connection, release)
    if row["origin"] not in ("farms", "keys") and not any(artefact["kind"] == "full" for artefact in artefacts):
        problems.append("no container with the full model")
    problems += _farms(connection, version)
    for artefact in artefacts:
        name = releases.artefact_name(artefact["kind"], artefact["base"], artefact["device"])
        found = _container(connection, public_keys, release, artefact, update_keys)
        problems += [f"{name}: {problem}" for problem in found]
    return Checked(version, len(artefacts), tuple(problems))


def _provenance(connection: sqlite3.Connection, release: Release) -> Iterator[str]:
    """What a release says it was made of must be what the store holds."""
    if release.base_version is not None and (named := release.provenance.get("base_content_hash")):
        base = connection.execute(
            "SELECT content_hash FROM releases WHERE version = ?", (release.base_version,)
        ).fetchone()
        if base is None or base["content_hash"] != named:
            yield f"release {release.base_version} is not the one it was made from"
    if release.round is None or not isinstance(sites := release.provenance.get("sites"), dict):
        return
    kept = {entry.site: federation.sums_hash(entry.sums) for entry in federation.site_sums(connection, release.round)}
    for site, figures in sorted(sites.items()):
        if kept.get(site) != figures.get("sums_hash", kept.get(site)):
            yield f"the sums of {site} in round {release.round} are not those it was learned from"


def _container(
    connection: sqlite3.Connection,
    public_keys: Sequence[bytes],
    release: Release,
    artefact: sqlite3.Row,
    update_keys: UpdateKeys | None,
) -> Iterator[str]:
    data: bytes = artefact["container"]
    if releases.content_hash(data) != artefact["content_hash"]:
        yield "it is not the one its hash names"
    if len(data) != artefact["size_bytes"]:
        yield f"it has {len(data)} bytes, not {artefact['size_bytes']}"
    if artefact["kind"] == "personal":
        yield from _personal(connection, release, artefact, update_keys)
        return
    if artefact["kind"] == "keys":
        # What a node does with it depends on the keys it has trusted so far; who signed it is on record.
        public = bytes.fromhex(str(release.provenance.get("signed_by", "")))
        if not monocypher.signature_check(data[-SIGNATURE_SIZE:], public, data[:-SIGNATURE_SIZE]):
            yield "it is not signed by the key on record"
        return
    base_version, base = _base(connection, release, artefact)
    for board in Board:
        try:
            restored = open_container(data, Receiver(board, public_keys, base_version, base))
        except ContainerError as error:
            yield f"{board.name} refuses it: {error}"
            continue
        if not isinstance(restored, ModelImage) or restored.pack() != release.image.pack():
            yield f"{board.name} makes another model of it"


def _personal(
    connection: sqlite3.Connection, release: Release, artefact: sqlite3.Row, update_keys: UpdateKeys | None
) -> Iterator[str]:
    """A farm's head, as its node opens it; without the secret behind the nodes' keys it is only hashed."""
    node = connection.execute("SELECT * FROM nodes WHERE dev_eui = ?", (artefact["device"],)).fetchone()
    if update_keys is None or node is None:
        return
    wanted = farm_heads.image_of(connection, release.version, node["site"])
    runs = farm_heads.image_of(connection, artefact["base"], node["site"])
    key = update_keys.of(artefact["device"])
    receiver = Receiver(Board(node["board"]), (), artefact["base"], runs, 0, artefact["device"], key)
    try:
        restored = open_container(artefact["container"], receiver)
    except ContainerError as error:
        yield f"its node refuses it: {error}"
        return
    if wanted is None or not isinstance(restored, ModelImage) or restored.pack() != wanted.pack():
        yield "its node makes another model of it"


def _farms(connection: sqlite3.Connection, version: int) -> Iterator[str]:
    for row in connection.execute("SELECT * FROM farm_heads WHERE version = ? ORDER BY site", (version,)):
        if releases.content_hash(row["image"]) != row["content_hash"]:
            yield f"the head of {row['site']} is not the one its hash names"


def _base(connection: sqlite3.Connection, release: Release, artefact: sqlite3.Row) -> tuple[int, ModelImage | None]:
    """What the node runs that the container is for: version and model."""
    if artefact["kind"] == "full":
        return release.version - 1, None
    if artefact["kind"] == "delta":
        return artefact["base"], releases.find(connection, artefact["base"]).image
    # A head needs the backbone, under whichever head the node has.
    row = connection.execute(
        "SELECT image FROM releases WHERE backbone_id = ? ORDER BY version LIMIT 1", (artefact["base"],)
    ).fetchone()
    return release.version - 1, release.image if row is None else ModelImage.unpack(row["image"])
