"""The server's store as operators see it: fleet, releases with their evidence, rounds, campaigns, audit.

The schema is the server's ``schema.sql``; the evidence's is ``Evidence`` of its gate, read here leniently so
that a release of another version is still shown.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dashboards import words
from dashboards.access import counters, json_object, meta, meta_int, reading

MAX_NODES = 20_000
MAX_LISTED = 200


@dataclass(frozen=True, slots=True)
class Node:
    """One node as its gateway last reported it."""

    dev_eui: str
    site: str
    board: int
    model_version: int
    backbone_id: int
    battery_mv: int
    last_seen_s: int
    healthy: bool


@dataclass(frozen=True, slots=True)
class SiteHealth:
    """A gateway's heartbeat and its own counters."""

    site: str
    last_status_s: int
    counters: dict[str, int]


@dataclass(frozen=True, slots=True)
class Fleet:
    """Inventory and health."""

    clock_s: int | None
    heartbeat_s: int
    superlink: str
    nodes: Sequence[Node]
    sites: Sequence[SiteHealth]
    counters: dict[str, int]


@dataclass(frozen=True, slots=True)
class Errors:
    """Root mean squared errors at one site for one target, in output steps."""

    target: str
    site: str
    windows: int
    baseline: float
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate decided for one target."""

    target: str
    decision: str
    reason: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What stands behind a release or a refusal."""

    reason: str
    verdicts: Sequence[Verdict]
    errors: Sequence[Errors]
    held_back: Mapping[str, str]
    """Farms that keep what they run, and why."""
    set_aside: Mapping[str, str]
    """Farms whose statistics did not count, and why."""


@dataclass(frozen=True, slots=True)
class Release:
    """One immutable release."""

    version: int
    created_s: int
    origin: str
    base_version: int | None
    round: int | None
    backbone_id: int
    content_hash: str
    artefacts: Mapping[str, int]
    """Containers, by kind and what they go on from, and their sizes in bytes."""
    evidence: Evidence
    nodes: int
    """How many run it."""
    withdrawn: str
    """When, by whom and why; empty where it is not."""


@dataclass(frozen=True, slots=True)
class Round:
    """One federated round."""

    id: int
    started_s: int
    state: str
    base_version: int
    asked: int
    accepted: int
    rejected: int
    silent: int
    contributors: int
    windows: int
    version: int | None
    reason: str
    evidence: Evidence
    objections: Sequence[str]
    """Replies that were refused, and why."""


@dataclass(frozen=True, slots=True)
class Group:
    """A campaign's group and how far it is; group 0 is the canary."""

    index: int
    nodes: int
    confirmed: int
    lost: int
    ailing: int
    """Nodes that run the release and are unhealthy or silent since."""
    opened: bool
    activated: int
    sending: int


@dataclass(frozen=True, slots=True)
class CampaignNode:
    """One node in a campaign."""

    dev_eui: str
    site: str
    group: int
    base_version: int
    state: str
    detail: str
    downlinks: int
    updated_s: int | None
    ailment: str


@dataclass(frozen=True, slots=True)
class Campaign:
    """One campaign with its groups and nodes."""

    id: int
    version: int
    state: str
    created_s: int
    created_by: str
    approved: bool
    approved_by: str
    reason: str
    retry_of: int | None
    expected_end_s: int | None
    """At the pace so far; None before a node has confirmed."""
    asked: Mapping[str, object]
    """The plan it was drafted from."""
    groups: Sequence[Group]
    nodes: Sequence[CampaignNode]

    @property
    def confirmed(self) -> int:
        """Nodes that said they keep the release."""
        return sum(group.confirmed for group in self.groups)

    @property
    def lost(self) -> int:
        """Nodes that did not keep it."""
        return sum(group.lost for group in self.groups)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what, and what came of it."""

    id: int
    time_s: int
    actor: str
    action: str
    subject: str
    outcome: str
    detail: str
    hash: str
    """Follows from this row and the hash of the one before."""


def read_fleet(store: Path) -> Fleet:
    """Every node and gateway."""
    with reading(store) as connection:
        facts = meta(connection)
        nodes = connection.execute(
            "SELECT dev_eui, site, board, model_version, backbone_id, battery_mv, last_seen_s, healthy"
            " FROM nodes ORDER BY site, dev_eui LIMIT ?",
            (MAX_NODES,),
        )
        sites = connection.execute(
            "SELECT site, last_status_s, counters FROM sites ORDER BY site LIMIT ?", (MAX_LISTED,)
        )
        return Fleet(
            clock_s=meta_int(facts, "clock_s") or None,
            heartbeat_s=meta_int(facts, "heartbeat_s"),
            superlink=facts.get("superlink", "not known"),
            nodes=[_node(row) for row in nodes],
            sites=[SiteHealth(row["site"], row["last_status_s"], _whole_numbers(row["counters"])) for row in sites],
            counters=counters(connection),
        )


def read_clock(store: Path) -> int | None:
    """The server's clock where it is simulated."""
    with reading(store) as connection:
        return meta_int(meta(connection), "clock_s") or None


def read_releases(store: Path) -> list[Release]:
    """Releases, newest first."""
    with reading(store) as connection:
        sizes: dict[int, dict[str, int]] = {}
        for row in connection.execute(
            "SELECT version, kind, base, size_bytes FROM artefacts WHERE device = ''"
            " ORDER BY version DESC, kind, base LIMIT 4000"
        ):
            name = f"{row['kind']} from {row['base']}" if row["kind"] == "delta" else str(row["kind"])
            sizes.setdefault(row["version"], {})[name] = row["size_bytes"]
        rows = connection.execute(
            "SELECT r.version, r.created_s, r.origin, r.base_version, r.round, r.backbone_id, r.content_hash,"
            " r.evidence, w.withdrawn_s, w.actor, w.reason,"
            " (SELECT count(*) FROM nodes AS n WHERE n.model_version = r.version) AS nodes"
            " FROM releases AS r LEFT JOIN withdrawals AS w USING (version) ORDER BY r.version DESC LIMIT ?",
            (MAX_LISTED,),
        )
        return [
            Release(
                version=row["version"],
                created_s=row["created_s"],
                origin=row["origin"],
                base_version=row["base_version"],
                round=row["round"],
                backbone_id=row["backbone_id"],
                content_hash=row["content_hash"],
                artefacts=sizes.get(row["version"], {}),
                evidence=evidence_of(row["evidence"]),
                nodes=row["nodes"],
                withdrawn=_withdrawn(row),
            )
            for row in rows
        ]


def _withdrawn(row: sqlite3.Row) -> str:
    if row["withdrawn_s"] is None:
        return ""
    return f"{words.moment(row['withdrawn_s'], 0)} UTC by {row['actor']}: {row['reason']}"


def read_rounds(store: Path) -> list[Round]:
    """Rounds, newest first, with what was refused in them."""
    with reading(store) as connection:
        rows = connection.execute(
            "SELECT id, started_s, state, base_version, asked, accepted, rejected, silent, contributors, windows,"
            " version, reason, evidence FROM rounds ORDER BY id DESC LIMIT ?",
            (MAX_LISTED,),
        ).fetchall()
        return [
            Round(
                id=row["id"],
                started_s=row["started_s"],
                state=row["state"],
                base_version=row["base_version"],
                asked=row["asked"],
                accepted=row["accepted"],
                rejected=row["rejected"],
                silent=row["silent"],
                contributors=row["contributors"],
                windows=row["windows"],
                version=row["version"],
                reason=row["reason"],
                evidence=evidence_of(row["evidence"]),
                objections=_objections(connection, row["id"]),
            )
            for row in rows
        ]


def read_campaigns(store: Path) -> list[Campaign]:
    """Campaigns, newest first; nodes of the newest twenty."""
    with reading(store) as connection:
        rows = connection.execute(
            "SELECT c.id, c.version, c.state, c.created_s, c.created_by, c.approved_s, c.approved_by, c.open_group,"
            " c.reason, c.retry_of, c.plan, o.expected_end_s"
            " FROM campaigns AS c JOIN campaign_overview AS o USING (id) ORDER BY c.id DESC LIMIT 20"
        ).fetchall()
        return [_campaign(connection, row) for row in rows]


def read_audit(store: Path) -> list[AuditEntry]:
    """What people and the server did, newest first."""
    with reading(store) as connection:
        rows = connection.execute(
            "SELECT id, time_s, actor, action, subject, outcome, detail, hash FROM audit ORDER BY id DESC LIMIT ?",
            (MAX_LISTED,),
        )
        return [AuditEntry(*row) for row in rows]


def evidence_of(text: object) -> Evidence:
    """The gate's JSON as errors per site; parts that do not fit are left out."""
    content = json_object(text)
    verdicts, errors = [], []
    targets = content.get("targets")
    for target in targets if isinstance(targets, list) else []:
        if not isinstance(target, dict):
            continue
        name = str(target.get("target", "?"))
        verdicts.append(Verdict(name, str(target.get("decision", "")), str(target.get("reason", ""))))
        sites = target.get("sites")
        for site, figures in sites.items() if isinstance(sites, dict) else ():
            entry = _errors(name, str(site), figures)
            if entry is not None:
                errors.append(entry)
    held_back, set_aside = (_reasons(content.get(key)) for key in ("held_back", "set_aside"))
    return Evidence(str(content.get("reason", "")), verdicts, errors, held_back, set_aside)


def _reasons(listed: object) -> dict[str, str]:
    return {str(site): str(reason) for site, reason in listed.items()} if isinstance(listed, dict) else {}


def _errors(target: str, site: str, figures: object) -> Errors | None:
    if not isinstance(figures, dict):
        return None
    try:
        windows = int(figures["windows"])
        squared = [float(figures[key]) for key in ("physics", "running", "candidate")]
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if windows <= 0:
        return None
    # Rounded sums can lie a hair below zero where a head fits perfectly.
    baseline, before, after = (max(0.0, value / windows) ** 0.5 for value in squared)
    return Errors(target, site, windows, baseline, before, after)


def _node(row: sqlite3.Row) -> Node:
    return Node(
        dev_eui=row["dev_eui"],
        site=row["site"],
        board=row["board"],
        model_version=row["model_version"],
        backbone_id=row["backbone_id"],
        battery_mv=row["battery_mv"],
        last_seen_s=row["last_seen_s"],
        healthy=bool(row["healthy"]),
    )


def _objections(connection: sqlite3.Connection, round_id: int) -> list[str]:
    rows = connection.execute(
        "SELECT coalesce(site, 'SuperNode ' || node_id) AS who, verdict, reason FROM replies"
        " WHERE round = ? AND verdict <> 'accepted' ORDER BY who LIMIT ?",
        (round_id, MAX_LISTED),
    )
    return [f"{row['who']}: {row['reason'] or row['verdict']}" for row in rows]


def _campaign(connection: sqlite3.Connection, row: sqlite3.Row) -> Campaign:
    groups = connection.execute(
        "SELECT * FROM campaign_groups WHERE campaign = ? ORDER BY group_index LIMIT ?", (row["id"], MAX_LISTED)
    )
    nodes = connection.execute(
        "SELECT dev_eui, site, group_index, base_version, state, detail, downlinks, updated_s, ailment"
        " FROM campaign_nodes"
        " WHERE campaign = ? ORDER BY group_index, site, dev_eui LIMIT 1000",
        (row["id"],),
    )
    return Campaign(
        id=row["id"],
        version=row["version"],
        state=row["state"],
        created_s=row["created_s"],
        created_by=row["created_by"],
        approved=row["approved_s"] is not None,
        approved_by=row["approved_by"] or "",
        reason=row["reason"],
        retry_of=row["retry_of"],
        expected_end_s=row["expected_end_s"],
        asked=json_object(row["plan"]),
        groups=[
            Group(
                index=group["group_index"],
                nodes=group["nodes"],
                confirmed=group["confirmed"],
                lost=group["failed"],
                ailing=group["ailing"],
                opened=group["group_index"] <= row["open_group"],
                activated=group["activated"],
                sending=group["sending"],
            )
            for group in groups
        ],
        nodes=[CampaignNode(*node) for node in nodes],
    )


def _whole_numbers(text: object) -> dict[str, int]:
    return {name: value for name, value in json_object(text).items() if isinstance(value, int)}
