"""The release registry: signed, content-addressed, immutable.

A release is a complete model image under the next version number, with the containers nodes can be given and the
reasons it exists: where it came from (provenance) and what the gate saw (evidence). The store refuses to change or
delete one. Version 1 is the factory model, which every node carries from the beginning.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server import store
from server.signing import SigningKey
from shared_models import container
from shared_models.messages import Artefact
from shared_models.network import ModelError, ModelImage

FACTORY_VERSION = 1


class ReleaseError(RuntimeError):
    """A release that cannot be made or found; the text says why."""


@dataclass(frozen=True)
class Release:
    """One release without its artefacts."""

    version: int
    created_s: int
    origin: str
    base_version: int | None
    round: int | None
    model_id: int
    backbone_id: int
    content_hash: str
    image: ModelImage
    provenance: dict[str, Any]
    evidence: dict[str, Any]

    @property
    def held_back(self) -> dict[str, str]:
        """Sites the gate found this release to hurt, and how; campaigns leave them out."""
        return dict(self.evidence.get("held_back", {}))


def content_hash(data: bytes) -> str:
    """BLAKE2b-256, hex."""
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def load_factory_model(path: Path) -> tuple[ModelImage, dict[str, Any]]:
    """The factory model and its model card.

    Raises:
        ReleaseError: the file is missing or not a model image.
    """
    card_path = path.with_suffix(".json")
    try:
        image = ModelImage.unpack(path.read_bytes())
        card = json.loads(card_path.read_text(encoding="utf-8")) if card_path.is_file() else {}
    except OSError as error:
        raise ReleaseError(f"{path}: cannot read the factory model: {error.strerror}") from error
    except ModelError as error:
        raise ReleaseError(f"{path}: not a model image: {error}") from error
    except ValueError as error:
        raise ReleaseError(f"{card_path}: not a model card: {error}") from error
    return image, card


def register_factory(
    connection: sqlite3.Connection, key: SigningKey, image: ModelImage, card: Mapping[str, Any], now_s: int
) -> Release:
    """Make ``image`` release 1; doing it again with the same image changes nothing.

    Raises:
        ReleaseError: another model already is release 1.
    """
    if connection.execute("SELECT 1 FROM releases WHERE version = ?", (FACTORY_VERSION,)).fetchone():
        present = find(connection, FACTORY_VERSION)
        if present.content_hash != content_hash(image.pack()):
            raise ReleaseError("release 1 is another model; a different factory model needs a store of its own")
        return present
    return _register(connection, key, image, FACTORY_VERSION, now_s, provenance=card, evidence={})


def register_improvement(
    connection: sqlite3.Connection,
    key: SigningKey,
    image: ModelImage,
    base: Release,
    number: int,
    now_s: int,
    *,
    provenance: Mapping[str, Any],
    evidence: Mapping[str, Any],
) -> Release:
    """Release ``image``, which round ``number`` made of ``base``, under the next version.

    Raises:
        ReleaseError: its backbone is not the base's, or this very model has been released before.
    """
    if image.backbone_id != base.backbone_id:
        raise ReleaseError("a head update must keep its backbone")
    return register(
        connection, key, image, base, number, now_s, origin="federation", provenance=provenance, evidence=evidence
    )


def register(
    connection: sqlite3.Connection,
    key: SigningKey,
    image: ModelImage,
    base: Release,
    number: int,
    now_s: int,
    *,
    origin: str,
    provenance: Mapping[str, Any],
    evidence: Mapping[str, Any],
) -> Release:
    """Release ``image``, made of ``base`` and the sums of round ``number``, under the next version.

    Raises:
        ReleaseError: this very model has been released before.
    """
    known = connection.execute("SELECT version FROM releases WHERE content_hash = ?", (content_hash(image.pack()),))
    if row := known.fetchone():
        raise ReleaseError(f"this very model is release {row['version']} already")
    version = connection.execute("SELECT max(version) FROM releases").fetchone()[0] + 1
    return _register(
        *(connection, key, image, version, now_s),
        origin=origin,
        base=base,
        number=number,
        provenance=provenance,
        evidence=evidence,
    )


def _register(
    connection: sqlite3.Connection,
    key: SigningKey,
    image: ModelImage,
    version: int,
    now_s: int,
    *,
    origin: str = "factory",
    base: Release | None = None,
    number: int | None = None,
    provenance: Mapping[str, Any],
    evidence: Mapping[str, Any],
) -> Release:
    packed = image.pack()
    with store.transaction(connection):
        connection.execute(
            "INSERT INTO releases (version, created_s, origin, base_version, round, model_id, backbone_id,"
            " content_hash, image, key_id, provenance, evidence) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                version,
                now_s,
                origin,
                base.version if base else None,
                number,
                image.model_id,
                image.backbone_id,
                content_hash(packed),
                packed,
                key.key_id,
                store.dumps(provenance),
                store.dumps(evidence),
            ),
        )
        for kind, base_id, data in sign_artefacts(key, image, version):
            connection.execute(
                "INSERT INTO artefacts (version, kind, base, content_hash, size_bytes, container)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (version, kind, base_id, content_hash(data), len(data), data),
            )
    return find(connection, version)


def sign_artefacts(key: SigningKey, image: ModelImage, version: int) -> list[tuple[str, int, bytes]]:
    """The containers of a release as (kind, base, signed bytes): the full model, and its head alone."""
    built = {"full": container.build_full(image, version), "head": container.build_head(image, version)}
    return [(kind, entry.base_id, container.sign(entry, key.secret)) for kind, entry in built.items()]


def find(connection: sqlite3.Connection, version: int | str) -> Release:
    """A release by number, or ``"latest"``.

    Raises:
        ReleaseError: there is no such release.
    """
    if version == "latest":
        row = connection.execute("SELECT * FROM releases ORDER BY version DESC LIMIT 1").fetchone()
    else:
        row = connection.execute("SELECT * FROM releases WHERE version = ?", (version,)).fetchone()
    if row is None:
        raise ReleaseError(f"there is no release {version}" if version != "latest" else "there is no release yet")
    return Release(
        version=row["version"],
        created_s=row["created_s"],
        origin=row["origin"],
        base_version=row["base_version"],
        round=row["round"],
        model_id=row["model_id"],
        backbone_id=row["backbone_id"],
        content_hash=row["content_hash"],
        image=ModelImage.unpack(row["image"]),
        provenance=json.loads(row["provenance"]),
        evidence=json.loads(row["evidence"]),
    )


def stayed(connection: sqlite3.Connection, running: Release) -> dict[str, ModelImage]:
    """What sites that were held back from ``running`` run instead: the newest release before it that spared them.

    A site held back from every release of this backbone runs none of it and is left out.
    """
    waiting, images, release = set(running.held_back), {}, running
    while waiting and release.base_version is not None:
        release = find(connection, release.base_version)
        if release.backbone_id != running.backbone_id:
            break
        for site in sorted(waiting - set(release.held_back)):
            images[site] = release.image
            waiting.discard(site)
    return images


def artefacts(connection: sqlite3.Connection, version: int) -> list[Artefact]:
    """The signed containers of a release, smallest first, as an assignment carries them."""
    rows = connection.execute(
        "SELECT kind, base, container FROM artefacts WHERE version = ? ORDER BY size_bytes, kind", (version,)
    )
    return [
        Artefact(kind=row["kind"], base=row["base"], container=base64.b64encode(row["container"]).decode("ascii"))
        for row in rows
    ]
