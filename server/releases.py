"""The release registry: signed, content-addressed, immutable.

A release is a complete model image under the next version number, with the containers nodes can be given and the
reasons it exists: where it came from (provenance) and what the gate saw (evidence). The store refuses to change or
delete one. Version 1 is the factory model, which every node carries from the beginning. A release found to be bad is
withdrawn (:mod:`server.withdrawals`): a fact about it, by which ``"latest"`` and campaigns pass it over.

A release is made in three steps, for signing may take a minute and must not hold the store meanwhile: what its
containers are made for is read (:func:`upcoming`), they are made and signed (:func:`sign`, values only, in any thread),
and they are stored in one transaction that refuses them if their number has been taken since.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server import store
from server.code_version import code_version
from server.signing import Signer
from shared_models import container
from shared_models.container import ContainerError
from shared_models.messages import Artefact
from shared_models.network import ModelError, ModelImage

FACTORY_VERSION = 1
MAX_DELTAS = 16
"""Deltas made for one release: against the versions most nodes run."""


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
    connection: sqlite3.Connection, key: Signer, image: ModelImage, card: Mapping[str, Any], now_s: int
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
    provenance = {**card, "code": code_version()}
    signed = sign(key, image, Upcoming(FACTORY_VERSION, {}))
    with store.transaction(connection):
        return _register(connection, signed, image, now_s, "factory", provenance=provenance, evidence={})


def register_improvement(
    connection: sqlite3.Connection,
    signed: Signed,
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
        ReleaseError: its backbone is not the base's, or as :func:`register` says.
    """
    if image.backbone_id != base.backbone_id:
        raise ReleaseError("a head update must keep its backbone")
    return register(
        connection, signed, image, base, number, now_s, origin="federation", provenance=provenance, evidence=evidence
    )


def register(
    connection: sqlite3.Connection,
    signed: Signed,
    image: ModelImage,
    base: Release,
    number: int,
    now_s: int,
    *,
    origin: str,
    provenance: Mapping[str, Any],
    evidence: Mapping[str, Any],
) -> Release:
    """Release ``image``, made of ``base`` and the sums of round ``number``, under the version it was signed for.

    Raises:
        ReleaseError: this very model has been released before, or another release came in between.
    """
    with store.transaction(connection):
        _refuse_known(connection, image)
        return _register(
            connection,
            signed,
            image,
            now_s,
            origin,
            base=base,
            number=number,
            provenance=provenance,
            evidence=evidence,
        )


def _refuse_known(connection: sqlite3.Connection, image: ModelImage) -> None:
    known = connection.execute("SELECT version FROM models WHERE content_hash = ?", (content_hash(image.pack()),))
    if row := known.fetchone():
        raise ReleaseError(f"this very model is release {row['version']} already")


def next_version(connection: sqlite3.Connection) -> int:
    """The number of the next thing that nodes can be given."""
    return int(connection.execute("SELECT coalesce(max(version), 0) FROM releases").fetchone()[0]) + 1


def register_variant(
    connection: sqlite3.Connection,
    signed: Signed,
    origin: str,
    base: Release,
    now_s: int,
    *,
    number: int | None = None,
    provenance: Mapping[str, Any],
    evidence: Mapping[str, Any],
) -> Release:
    """Release something that is no model for the fleet: farms' own heads, or a change of keys.

    The release's model is the base's. Runs inside the caller's transaction.

    Raises:
        ReleaseError: another release came in between.
    """
    whole = {**provenance, "code": code_version()}
    return _register(
        connection,
        signed,
        base.image,
        now_s,
        origin,
        base=base,
        number=number,
        provenance=whole,
        evidence=evidence,
    )


def _register(
    connection: sqlite3.Connection,
    signed: Signed,
    image: ModelImage,
    now_s: int,
    origin: str,
    *,
    base: Release | None = None,
    number: int | None = None,
    provenance: Mapping[str, Any],
    evidence: Mapping[str, Any],
) -> Release:
    packed, version = image.pack(), signed.version
    if version != next_version(connection):
        raise ReleaseError(f"another release took number {version} while this one was being signed; ask again")
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
            signed.key_id,
            store.dumps(provenance),
            store.dumps(evidence),
        ),
    )
    for artefact in signed.artefacts:
        connection.execute(
            "INSERT INTO artefacts (version, kind, base, device, content_hash, size_bytes, container)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                version,
                artefact.kind,
                artefact.base,
                artefact.device,
                content_hash(artefact.data),
                len(artefact.data),
                artefact.data,
            ),
        )
    return find(connection, version)


@dataclass(frozen=True)
class SignedArtefact:
    """A container of a release, as it goes on the air."""

    kind: str
    base: int
    """What a node must run: a backbone id (head), a version (delta, personal), or 0."""
    device: str
    """The only node it is for; empty where any can take it."""
    data: bytes


@dataclass(frozen=True)
class Signed:
    """A release's containers, as yet in no store."""

    version: int
    """The number they were signed for."""
    key_id: int
    artefacts: Sequence[SignedArtefact]


@dataclass(frozen=True)
class Upcoming:
    """What the next release's containers are made for."""

    version: int
    running: Mapping[int, ModelImage]
    """Models that nodes run now, by version."""


def upcoming(connection: sqlite3.Connection, image: ModelImage) -> Upcoming:
    """Read what is needed to make and sign the containers of ``image`` as the next release.

    Raises:
        ReleaseError: this very model has been released before.
    """
    _refuse_known(connection, image)
    version = next_version(connection)
    return Upcoming(version, _running(connection, version))


def sign(key: Signer, image: ModelImage, release: Upcoming) -> Signed:
    """The containers of a release: the full model, its head alone, and what it differs by from what nodes run.

    May take minutes, where a command signs. A difference that saves a node nothing is left out.

    Raises:
        SigningError: there is no signature to be had.
    """
    version = release.version
    full, head = container.build_full(image, version), container.build_head(image, version)
    made = [SignedArtefact("full", 0, "", key.sign(full)), SignedArtefact("head", head.base_id, "", key.sign(head))]
    sizes = {artefact.kind: len(artefact.data) for artefact in made}
    for base, base_image in release.running.items():
        try:
            delta = container.build_delta(image, base_image, version)
        except ContainerError:
            continue  # Another quantisation grid: nothing to go on from.
        alternative = sizes["head" if base_image.backbone_id == image.backbone_id else "full"]
        if len(container.signed_bytes(delta, key.public)) + container.SIGNATURE_SIZE < alternative:
            made.append(SignedArtefact("delta", base, "", key.sign(delta)))
    return Signed(version, key.key_id, made)


def _running(connection: sqlite3.Connection, version: int) -> dict[int, ModelImage]:
    """Models older than ``version`` that nodes run; withdrawn ones too, for from those nodes must get away."""
    rows = connection.execute(
        "SELECT r.version, r.image FROM models AS r JOIN nodes AS n ON n.model_version = r.version"
        " WHERE r.version < ?"
        " GROUP BY r.version ORDER BY count(*) DESC, r.version DESC LIMIT ?",
        (version, MAX_DELTAS),
    )
    return {row["version"]: ModelImage.unpack(row["image"]) for row in rows}


def find(connection: sqlite3.Connection, version: int | str) -> Release:
    """A release by number, or ``"latest"``: the newest model for the fleet that is not withdrawn.

    Raises:
        ReleaseError: there is no such release.
    """
    if version == "latest":
        row = connection.execute("SELECT * FROM models_on_offer ORDER BY version DESC LIMIT 1").fetchone()
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


def withdrawn(connection: sqlite3.Connection, version: int) -> str | None:
    """Why a release is withdrawn, or None where it is not."""
    row = connection.execute("SELECT reason FROM withdrawals WHERE version = ?", (version,)).fetchone()
    return None if row is None else str(row["reason"])


ArtefactKey = tuple[str, int, str]
"""Kind, base and device of a container of a release."""


@dataclass(frozen=True)
class Recipient:
    """A node, as far as it decides which containers it can use."""

    dev_eui: str
    model_version: int
    backbone_id: int

    def usable(self) -> list[ArtefactKey]:
        """The containers this node could apply, should the release have them.

        A short list to look up: a release of farms' own heads has as many containers as the fleet has nodes.
        """
        return [
            ("full", 0, ""),
            ("keys", 0, ""),
            ("head", self.backbone_id, ""),
            ("delta", self.model_version, ""),
            ("personal", self.model_version, self.dev_eui),
        ]


def artefacts(connection: sqlite3.Connection, version: int, recipients: Collection[Recipient]) -> list[Artefact]:
    """The signed containers of a release that some of these nodes can use, smallest first.

    A full model is always among them: what a node runs may change before its turn comes.
    """
    wanted = {("full", 0, ""), *(key for node in recipients for key in node.usable())}
    select = "SELECT * FROM artefacts WHERE version = ? AND kind = ? AND base = ? AND device = ?"
    found = [row for key in wanted if (row := connection.execute(select, (version, *key)).fetchone()) is not None]
    return [
        Artefact(
            kind=row["kind"],
            base=row["base"],
            device=row["device"] or None,
            container=base64.b64encode(row["container"]).decode("ascii"),
        )
        for row in sorted(found, key=lambda row: (row["size_bytes"], row["kind"], row["base"], row["device"]))
    ]


def artefact_name(kind: str, base: int, device: str) -> str:
    """A container for people: its kind, and what it is for."""
    if kind == "head":
        return f"head for backbone {base:08x}"
    if kind in ("delta", "personal"):
        name = f"{kind} from release {base}"
        return f"{name} for {device}" if device else name
    return kind


def sizes(connection: sqlite3.Connection, version: int) -> dict[str, int]:
    """Bytes of each container of a release, by name, smallest first."""
    rows = connection.execute(
        "SELECT kind, base, device, size_bytes FROM artefacts WHERE version = ?"
        " ORDER BY size_bytes, kind, base, device",
        (version,),
    )
    return {artefact_name(row["kind"], row["base"], row["device"]): row["size_bytes"] for row in rows}
