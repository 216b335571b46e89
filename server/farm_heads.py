"""Farms' own heads: for each farm that gains by one, a head shrunk toward the fleet's, for its nodes alone.

What a farm's sums say about it beyond the fleet's head (:mod:`server.hierarchy`) is released as one version: a head
per farm, and per node a personal container, authenticated by the node's own update key, as a change of what the node
runs. Campaigns bring it to nodes as any release.

A farm gets a head only where it has shown, in windows that came after those the head was learned from, that it does
not harm; and nobody does unless sites on the whole forecast better that way, with certainty. The first row, which moves
water, is the fleet's always.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from server import backbones, releases, store
from server.federation import earlier_sums, site_sums, sums_hash
from server.hierarchy import LevelEvidence, later, metric_of, site_evidence, step
from server.panel import Panel
from server.releases import Release, Signed, SignedArtefact
from server.signing import Signer
from server.update_keys import UpdateKeys
from shared_models import container
from shared_models.moments import TARGET_CLASS, TARGET_NAMES, TARGETS, UPTAKE, Sums
from shared_models.network import ModelError, ModelImage, head_weights, quantise_head
from shared_models.ridge import Choice, Weights

ORIGIN = "farms"
FORECASTS = tuple(target for target in range(TARGETS) if target != UPTAKE)


class FarmHeadsError(RuntimeError):
    """There is nothing to release; the text says why."""


class FarmFigures(BaseModel):
    """A farm's squared errors in windows its head had not learned from, all forecasts together."""

    model_config = ConfigDict(frozen=True)

    fleet: float
    own: float
    windows: int
    kept: bool
    """Whether it gets its own head."""


class FarmEvidence(BaseModel):
    """What farms' own heads are worth."""

    model_config = ConfigDict(frozen=True)

    round: int
    levels: list[LevelEvidence]
    farms: dict[str, FarmFigures]


@dataclass(frozen=True)
class _Case:
    """The sums of a round, and what each site had sent before."""

    sums: dict[str, Sums]
    earlier: dict[str, Sums]
    prior: Weights
    """The fleet's head, (4, 9)."""

    @cached_property
    def panel(self) -> Panel:
        """The sums side by side."""
        return Panel.of(self.sums)

    @cached_property
    def metrics(self) -> dict[int, Weights]:
        """Per forecast, what a change of its weights means to all of these sites."""
        return {target: metric_of(self.panel, target) for target in FORECASTS}


@dataclass(frozen=True)
class Heads:
    """Farms' own heads in containers for their nodes, as yet no release."""

    base: Release
    round: int
    """Whose sums they were learned from."""
    evidence: FarmEvidence
    images: Mapping[str, ModelImage]
    """By farm."""
    signed: Signed
    provenance: dict[str, Any]


async def prepare(connection: sqlite3.Connection, signer: Signer, keys: UpdateKeys, tolerance: float) -> Heads:
    """Make farms' own heads from the newest round.

    Args:
        connection: The server's store.
        signer: Names the release's key; personal heads are authenticated with ``keys``.
        keys: The nodes' update keys.
        tolerance: Share by which a farm's own head may forecast worse than the fleet's in its later windows.

    Raises:
        FarmHeadsError: no farm gains by a head of its own, or none can be given one.
    """
    base = backbones.running_release(connection)
    number, case = _newest_round(connection, base)
    evidence, images = await asyncio.to_thread(_learn, case, base.image, number, tolerance)
    if not images:
        raise FarmHeadsError("no farm has shown that a head of its own does not harm it")
    version, nodes = releases.next_version(connection), _nodes(connection, images.keys())
    made = await asyncio.to_thread(_artefacts, nodes, images, keys, version)
    if not made:
        raise FarmHeadsError("no node of these farms runs a model that a head could change")
    signed = Signed(version, signer.key_id, made)
    return Heads(base, number, evidence, images, signed, _provenance(base, case, images))


def keep(connection: sqlite3.Connection, heads: Heads, now_s: int, actor: str) -> dict[str, Any]:
    """Release them.

    Args:
        connection: The server's store.
        heads: What :func:`prepare` made.
        now_s: The server's clock.
        actor: Who asked.

    Raises:
        FarmHeadsError: the fleet's head is another one by now.
        ReleaseError: another release came in between.
    """
    with store.transaction(connection):
        if backbones.running_release(connection).version != heads.base.version:
            raise FarmHeadsError(f"release {heads.base.version} is not the fleet's any more; ask again")
        release = releases.register_variant(
            connection,
            heads.signed,
            ORIGIN,
            heads.base,
            now_s,
            number=heads.round,
            provenance=heads.provenance,
            evidence=heads.evidence.model_dump(mode="json"),
        )
        packed = {site: image.pack() for site, image in heads.images.items()}
        connection.executemany(
            "INSERT INTO farm_heads (version, site, content_hash, image) VALUES (?, ?, ?, ?)",
            [(release.version, site, releases.content_hash(data), data) for site, data in packed.items()],
        )
        nodes = len(heads.signed.artefacts)
        detail = f"heads of {len(heads.images)} farms for {nodes} nodes, from round {heads.round}"
        store.audit(connection, now_s, actor, "release.created", f"release {release.version}", detail=detail)
    return {
        "version": release.version,
        "round": heads.round,
        "farms": sorted(heads.images),
        "nodes": nodes,
        "message": f"release {release.version}: {detail}",
    }


def image_of(connection: sqlite3.Connection, version: int, site: str) -> ModelImage | None:
    """What a site's nodes run who run this version: its own where it has one, else the release's."""
    row = connection.execute("SELECT image FROM farm_heads WHERE version = ? AND site = ?", (version, site)).fetchone()
    if row is None:
        row = connection.execute("SELECT image FROM models WHERE version = ?", (version,)).fetchone()
    return None if row is None else ModelImage.unpack(row["image"])


def running(connection: sqlite3.Connection, backbone_id: int) -> dict[str, ModelImage]:
    """Sites all of whose nodes run one head of their own, and that head."""
    rows = connection.execute(
        "SELECT h.site, h.image FROM farm_heads AS h JOIN nodes AS n USING (site) GROUP BY h.version, h.site"
        " HAVING min(n.model_version) = h.version AND max(n.model_version) = h.version ORDER BY h.site"
    )
    images = {row["site"]: ModelImage.unpack(row["image"]) for row in rows}
    return {site: image for site, image in images.items() if image.backbone_id == backbone_id}


# Learning and judging


def _newest_round(connection: sqlite3.Connection, base: Release) -> tuple[int, _Case]:
    row = connection.execute(
        "SELECT id FROM rounds WHERE state IN ('released', 'refused') AND backbone_id = ? ORDER BY id DESC LIMIT 1",
        (base.backbone_id,),
    ).fetchone()
    if row is None:
        raise FarmHeadsError("no round has been held for this backbone yet: noria server improve")
    # A cohort's total says nothing about one farm, and a noisy one is made to say little.
    alone = [entry for entry in site_sums(connection, row["id"]) if entry.members == 1 and not entry.noise]
    sums = {entry.site: entry.sums for entry in alone}
    return row["id"], _Case(sums, earlier_sums(connection, row["id"], alone), head_weights(base.image))


def _learn(case: _Case, base: ModelImage, number: int, tolerance: float) -> tuple[FarmEvidence, dict[str, ModelImage]]:
    """The heads of farms that get one, and what all of them are worth."""
    choices, levels = _choices(case)
    evidence = FarmEvidence(round=number, levels=levels, farms=_judge(case, base, choices, tolerance))
    images = {
        site: image
        for site, figures in evidence.farms.items()
        if figures.kept and (image := _image(case, base, case.sums[site], choices)) is not None
    }
    return evidence, {site: image for site, image in images.items() if image.model_id != base.model_id}


def _choices(case: _Case) -> tuple[dict[int, Choice], list[LevelEvidence]]:
    """How far sites' heads move, per target that sites agree on, and what that is worth."""
    choices, levels = {}, []
    for target in FORECASTS:
        parents = np.repeat(case.prior[target][None], len(case.panel), axis=0)
        evidence, choice = site_evidence(case.panel, case.earlier, target, case.prior[target], parents)
        if evidence is not None:
            levels.append(evidence)
        if choice is not None:
            choices[target] = choice
    if not choices:
        raise FarmHeadsError("sites do not forecast better with heads of their own, or too few have grown since")
    return choices, levels


def _judge(case: _Case, base: ModelImage, choices: Mapping[int, Choice], tolerance: float) -> dict[str, FarmFigures]:
    """Every farm's quantised head, learned from what it had sent before, in the windows that came since."""
    figures = {}
    for site, since in sorted(later(case.sums, case.earlier).items()):
        image = _image(case, base, case.earlier[site], choices)
        if image is None:
            continue
        part = Panel.of({site: since})
        errors = [
            sum(float(part.error(target, head_weights(model)[target])[0]) for target in FORECASTS)
            for model in (base, image)
        ]
        figures[site] = FarmFigures(
            fleet=errors[0],
            own=errors[1],
            windows=int(part.count.sum()),
            kept=errors[1] <= (1 + tolerance) * errors[0],
        )
    return figures


def _image(case: _Case, base: ModelImage, sums: Sums, choices: Mapping[int, Choice]) -> ModelImage | None:
    """The quantised head that a farm's sums teach; None where no int8 head can hold it."""
    rows = case.prior.copy()
    for target, choice in choices.items():
        rows[target] = step(sums, target, case.prior[target], choice, case.metrics[target])
    try:
        return quantise_head(base, rows, sums.gram[list(TARGET_CLASS)])
    except ModelError:
        return None


# Containers


@dataclass(frozen=True)
class _Node:
    """A node of a farm that gets a head, and what it runs."""

    dev_eui: str
    site: str
    version: int
    runs: ModelImage


def _nodes(connection: sqlite3.Connection, sites: Collection[str]) -> list[_Node]:
    """Every node of these farms whose model is known."""
    known = cache(partial(image_of, connection))
    found = connection.execute("SELECT dev_eui, site, model_version FROM nodes ORDER BY dev_eui").fetchall()
    return [
        _Node(node["dev_eui"], node["site"], node["model_version"], runs)
        for node in found
        if node["site"] in sites and (runs := known(node["model_version"], node["site"])) is not None
    ]


def _artefacts(
    nodes: Sequence[_Node], images: Mapping[str, ModelImage], keys: UpdateKeys, version: int
) -> list[SignedArtefact]:
    """A container for every node whose backbone is still that of its farm's head."""
    made = []
    for node in nodes:
        target = images[node.site]
        if node.runs.backbone_id == target.backbone_id:
            built = container.build_personal(target, node.runs, version)
            data = container.authenticate(built, keys.of(node.dev_eui), node.dev_eui)
            made.append(SignedArtefact("personal", node.version, node.dev_eui, data))
    return made


def _provenance(base: Release, case: _Case, images: Mapping[str, ModelImage]) -> dict[str, Any]:
    return {
        "method": "per farm a ridge toward the release's head; strength and use judged in later windows",
        "base_version": base.version,
        "base_content_hash": base.content_hash,
        "targets": [TARGET_NAMES[target] for target in FORECASTS],
        "sites": {site: {"sums_hash": sums_hash(case.sums[site])} for site in images},
    }
