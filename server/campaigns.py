"""Campaigns: bringing one release to a selection of nodes, a canary first, then growing groups.

A campaign is a state machine (:data:`TRANSITIONS`) moved by operators and by the nodes' progress. A group opens when
the one before it has succeeded; too many failures halt the campaign. Sites that the gate holds back from the release
are left out by themselves. Mistakes are refused before anything is
sent. Every change is one transaction that also writes the audit log and the assignments to publish, so that a
server killed at any point goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from server import releases, store
from server.releases import Release
from shared_models.codes import Board, CampaignState, UpdateState
from shared_models.messages import Artefact, Assignment, Progress, Site

logger = logging.getLogger(__name__)

CLOCK_TOLERANCE_S = 86_400
"""A report from further in the future than this is dated by the server's own clock."""


class CampaignError(ValueError):
    """An operator's request that must not be carried out; the text says why."""


class Action(StrEnum):
    """What moves a campaign from state to state."""

    APPROVE = "approve"
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    HALT = "halt"
    """By the server: too many failures."""
    FINISH = "finish"
    """By the server: every node is through."""


OPERATOR_ACTIONS = (Action.APPROVE, Action.START, Action.PAUSE, Action.RESUME, Action.ABORT)

TRANSITIONS: dict[tuple[CampaignState, Action], CampaignState] = {
    (CampaignState.DRAFT, Action.APPROVE): CampaignState.DRAFT,
    (CampaignState.DRAFT, Action.START): CampaignState.RUNNING,
    (CampaignState.DRAFT, Action.ABORT): CampaignState.ABORTED,
    (CampaignState.RUNNING, Action.PAUSE): CampaignState.PAUSED,
    (CampaignState.RUNNING, Action.ABORT): CampaignState.ABORTED,
    (CampaignState.RUNNING, Action.HALT): CampaignState.HALTED,
    (CampaignState.RUNNING, Action.FINISH): CampaignState.DONE,
    (CampaignState.PAUSED, Action.RESUME): CampaignState.RUNNING,
    (CampaignState.PAUSED, Action.ABORT): CampaignState.ABORTED,
    (CampaignState.PAUSED, Action.HALT): CampaignState.HALTED,
    (CampaignState.HALTED, Action.ABORT): CampaignState.ABORTED,
}
"""All that may happen; a draft starts only once approved, see :func:`next_state`."""

ACTIVE = (CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.HALTED)
"""States in which a campaign holds its nodes: no other may have them."""
FINAL = (CampaignState.ABORTED, CampaignState.DONE)

SUCCEEDED = (UpdateState.CONFIRMED,)
FAILED = (UpdateState.ROLLED_BACK, UpdateState.REFUSED, UpdateState.FAILED)

_RANK = {UpdateState.PENDING: 0, UpdateState.SENDING: 1, UpdateState.ACTIVATED: 2}
_THROUGH = 3

_GATEWAY_ACTION: dict[CampaignState, Literal["run", "pause", "abort"]] = {
    CampaignState.RUNNING: "run",
    CampaignState.PAUSED: "pause",
    CampaignState.HALTED: "pause",
    CampaignState.ABORTED: "abort",
    CampaignState.DONE: "run",
}
"""What gateways are told. After a halt the operator decides whether to abort; until then nothing more is sent."""


def next_state(state: CampaignState, action: Action, *, approved: bool) -> CampaignState:
    """Where ``action`` leads from ``state``.

    Raises:
        CampaignError: the action is not possible now.
    """
    following = TRANSITIONS.get((state, action))
    if following is None:
        raise CampaignError(f"a campaign that is {state.value} cannot be asked to {action.value}")
    if action is Action.START and not approved:
        raise CampaignError("the campaign has not been approved")
    if action is Action.APPROVE and approved:
        raise CampaignError("the campaign has been approved already")
    return following


def advances(before: UpdateState, after: UpdateState) -> bool:
    """Whether a report of ``after`` is news; late and repeated reports are not, and an end is an end."""
    return _RANK.get(after, _THROUGH) > _RANK.get(before, _THROUGH)


def group_sizes(nodes: int, canary: int, growth: float) -> list[int]:
    """Sizes of the groups: the canary, then each ``growth`` times the one before, until all nodes have one."""
    sizes: list[int] = []
    size = float(canary)
    while nodes > 0:
        sizes.append(min(nodes, max(1, math.floor(size))))
        nodes -= sizes[-1]
        size *= growth
    return sizes


@dataclass(frozen=True)
class Standing:
    """How the nodes of a campaign stand, for :func:`judge`."""

    opened: int
    """Nodes in open groups."""
    failed: int
    """Of those, how many failed."""
    group: int
    """Nodes in the newest open group."""
    group_succeeded: int
    group_failed: int
    last_group: bool
    through: int
    """Nodes in open groups that succeeded or failed."""


class Judgement(StrEnum):
    """What the server does next by itself."""

    WAIT = "wait"
    OPEN_NEXT = "open the next group"
    HALT = "halt"
    FINISH = "finish"


def judge(standing: Standing, success_threshold: float, error_threshold: float) -> tuple[Judgement, str]:
    """What follows from how the nodes stand, and why where it is a halt."""
    if standing.failed > error_threshold * standing.opened:
        return (
            Judgement.HALT,
            f"{standing.failed} of {standing.opened} nodes failed, more than {error_threshold:.0%}",
        )
    needed = math.ceil(success_threshold * standing.group - 1e-9)
    if standing.group - standing.group_failed < needed:
        return Judgement.HALT, f"the group cannot reach {needed} of {standing.group} confirmed nodes any more"
    if standing.last_group:
        return (Judgement.FINISH if standing.through == standing.opened else Judgement.WAIT), ""
    return (Judgement.OPEN_NEXT if standing.group_succeeded >= needed else Judgement.WAIT), ""


class Plan(BaseModel):
    """What an operator asks for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    release: Annotated[int, Field(ge=1)] | Literal["latest"]
    sites: Annotated[list[Site], Field(max_length=10_000)] | None = None
    """Only nodes of these sites; all unless given."""
    boards: Annotated[list[str], Field(max_length=16)] | None = None
    """Only nodes on these boards (names of ``codes.Board``, any case); all unless given."""
    canary: Annotated[int, Field(ge=1)] = 1
    """Nodes in the first group."""
    growth: Annotated[float, Field(ge=1, le=100)] = 3.0
    """Each group's size relative to the one before."""
    success_threshold: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of a group that must confirm before the next opens."""
    error_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the opened nodes that may fail before the campaign halts."""


def create(connection: sqlite3.Connection, actor: str, plan: Plan, now_s: int) -> int:
    """Draft a campaign for the nodes the plan selects.

    Raises:
        CampaignError: unknown release, site or board; no node selected; nobody can apply it; a node is taken.
    """
    try:
        release = releases.find(connection, plan.release)
    except releases.ReleaseError as error:
        raise CampaignError(str(error)) from error
    nodes, held_back = _not_held_back(release, plan, _select(connection, plan))
    nodes = _that_need(release.version, nodes)
    nodes = _that_can_apply(releases.artefacts(connection, release.version), release.version, nodes)
    _refuse_taken(connection, [node["dev_eui"] for node in nodes])
    sizes = group_sizes(len(nodes), plan.canary, plan.growth)
    with store.transaction(connection):
        campaign = connection.execute(
            "INSERT INTO campaigns (created_s, created_by, version, selection, state, groups, success_threshold,"
            " error_threshold) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                now_s,
                actor,
                release.version,
                json.dumps({"sites": plan.sites, "boards": plan.boards, "held_back": held_back}),
                CampaignState.DRAFT.value,
                len(sizes),
                plan.success_threshold,
                plan.error_threshold,
            ),
        ).lastrowid
        assert campaign is not None  # noqa: S101
        groups = [index for index, size in enumerate(sizes) for _ in range(size)]
        ordered = sorted(nodes, key=lambda node: _turn(campaign, node))
        connection.executemany(
            "INSERT INTO campaign_nodes (campaign, dev_eui, site, group_index, base_version) VALUES (?, ?, ?, ?, ?)",
            [
                (campaign, node["dev_eui"], node["site"], group, node["model_version"])
                for node, group in zip(ordered, groups, strict=True)
            ],
        )
        store.audit(
            connection,
            now_s,
            actor,
            "campaign.create",
            f"campaign {campaign}",
            detail=f"release {release.version} to {len(nodes)} nodes in groups of {', '.join(map(str, sizes))}"
            + (f"; held back: {', '.join(held_back)}" if held_back else ""),
        )
    return campaign


def _turn(campaign: int, node: sqlite3.Row) -> tuple[bool, bytes]:
    """Healthy nodes first, then in an order that is another for each campaign, so that canaries take turns."""
    shuffled = hashlib.blake2b(f"{campaign}:{node['dev_eui']}".encode(), digest_size=8).digest()
    return not node["healthy"], shuffled


def _select(connection: sqlite3.Connection, plan: Plan) -> list[sqlite3.Row]:
    nodes = connection.execute("SELECT * FROM nodes ORDER BY dev_eui").fetchall()
    if plan.sites is not None:
        known = {row["site"] for row in connection.execute("SELECT site FROM sites")}
        if unknown := sorted(set(plan.sites) - known):
            raise CampaignError(f"unknown site {', '.join(unknown)}; known: {', '.join(sorted(known)) or 'none'}")
        nodes = [node for node in nodes if node["site"] in plan.sites]
    if plan.boards is not None:
        names = {name.upper() for name in plan.boards}
        if unknown := sorted(names - {board.name for board in Board}):
            raise CampaignError(f"unknown board {', '.join(unknown)}; known: {', '.join(b.name for b in Board)}")
        nodes = [node for node in nodes if Board(node["board"]).name in names]
    if not nodes:
        raise CampaignError("no node matches the selection")
    return nodes


def _not_held_back(release: Release, plan: Plan, nodes: Sequence[sqlite3.Row]) -> tuple[list[sqlite3.Row], list[str]]:
    """Nodes of sites the release does not hurt, and the sites left out.

    Raises:
        CampaignError: a site that was asked for by name is held back, or no other is left.
    """
    reasons = release.held_back
    if named := sorted(set(plan.sites or ()) & set(reasons)):
        raise CampaignError(f"{named[0]} is held back from release {release.version}: {reasons[named[0]]}")
    held_back = sorted({str(node["site"]) for node in nodes} & set(reasons))
    kept = [node for node in nodes if node["site"] not in reasons]
    if not kept:
        raise CampaignError(f"every selected node is of a site held back from release {release.version}")
    return kept, held_back


def held_back(connection: sqlite3.Connection, campaign: int) -> list[str]:
    """Sites this campaign left out because its release would hurt them."""
    selection = json.loads(_find(connection, campaign)["selection"])
    return list(selection.get("held_back", []))


def _that_need(version: int, nodes: Sequence[sqlite3.Row]) -> list[sqlite3.Row]:
    needing = [node for node in nodes if node["model_version"] < version]
    if not needing:
        raise CampaignError(f"every selected node runs release {version} or a newer one already")
    return needing


def _that_can_apply(artefacts: Iterable[Artefact], version: int, nodes: Sequence[sqlite3.Row]) -> list[sqlite3.Row]:
    kinds = list(artefacts)
    if any(artefact.kind == "full" for artefact in kinds):
        return list(nodes)
    bases = {artefact.base for artefact in kinds}
    able = [node for node in nodes if node["backbone_id"] in bases]
    if not able:
        raise CampaignError(f"no selected node runs the base release {version} applies to")
    return able


def _refuse_taken(connection: sqlite3.Connection, devices: Sequence[str], campaign: int = 0) -> None:
    """Refuse devices another active campaign holds."""
    rows = connection.execute(
        "SELECT n.dev_eui, n.campaign FROM campaign_nodes AS n JOIN campaigns AS c ON c.id = n.campaign"
        " WHERE c.state IN (?, ?, ?) AND c.id <> ?",
        (*ACTIVE, campaign),
    )
    taken = {row["dev_eui"]: row["campaign"] for row in rows}
    if clashes := [device for device in devices if device in taken]:
        raise CampaignError(
            f"node {clashes[0]} is in campaign {taken[clashes[0]]}, which is still active"
            + (f" ({len(clashes)} nodes in all)" if len(clashes) > 1 else "")
        )


def act(connection: sqlite3.Connection, actor: str, campaign: int, action: Action, now_s: int) -> CampaignState:
    """Carry out an operator's action.

    Raises:
        CampaignError: there is no such campaign, or the action is not possible now.
    """
    row = _find(connection, campaign)
    state = next_state(CampaignState(row["state"]), action, approved=row["approved_s"] is not None)
    if action is Action.START:
        devices = connection.execute("SELECT dev_eui FROM campaign_nodes WHERE campaign = ?", (campaign,))
        _refuse_taken(connection, sorted(node["dev_eui"] for node in devices), campaign)
    with store.transaction(connection):
        connection.execute("UPDATE campaigns SET state = ? WHERE id = ?", (state.value, campaign))
        if action is Action.APPROVE:
            connection.execute(
                "UPDATE campaigns SET approved_s = ?, approved_by = ? WHERE id = ?", (now_s, actor, campaign)
            )
        if action is Action.START:
            connection.execute("UPDATE campaigns SET open_group = 0 WHERE id = ?", (campaign,))
        if state in FINAL:
            connection.execute("UPDATE campaigns SET finished_s = ? WHERE id = ?", (now_s, campaign))
        store.audit(connection, now_s, actor, f"campaign.{action.value}", f"campaign {campaign}")
        if action is not Action.APPROVE:
            _assign(connection, campaign)
        if action is Action.RESUME:
            _advance(connection, campaign, now_s)
    return CampaignState(_find(connection, campaign)["state"])


def record_progress(connection: sqlite3.Connection, site: str, progress: Progress, now_s: int) -> None:
    """Take over one node's step, and do what follows from it.

    Raises:
        CampaignError: the report does not belong to a node of this campaign at this site.
    """
    node = connection.execute(
        "SELECT * FROM campaign_nodes WHERE campaign = ? AND dev_eui = ?", (progress.campaign, progress.dev_eui)
    ).fetchone()
    if node is None:
        raise CampaignError(f"node {progress.dev_eui} is not in a campaign {progress.campaign}")
    if node["site"] != site:
        raise CampaignError(f"{site} reports for node {progress.dev_eui} of {node['site']}")
    row = _find(connection, progress.campaign)
    if node["group_index"] > row["open_group"]:
        raise CampaignError(f"the group of node {progress.dev_eui} is not open yet")
    before = UpdateState(node["state"])
    news = advances(before, progress.state)
    if not news and progress.state is not before:
        store.count(connection, "mqtt.progress_late")
        return
    time_s = int(progress.time.timestamp())
    if not 0 <= time_s <= now_s + CLOCK_TOLERANCE_S:
        time_s = now_s
    with store.transaction(connection):
        connection.execute(
            "UPDATE campaign_nodes SET state = ?, detail = ?, downlinks = max(downlinks, ?), updated_s = ?"
            " WHERE campaign = ? AND dev_eui = ?",
            (
                progress.state.value,
                progress.detail,
                min(progress.downlinks, 1_000_000),
                time_s,
                progress.campaign,
                progress.dev_eui,
            ),
        )
        if news and progress.state in (*SUCCEEDED, *FAILED):
            store.audit(
                connection,
                now_s,
                site,
                f"node.{progress.state.value}",
                f"campaign {progress.campaign}",
                detail=f"{progress.dev_eui} {progress.detail}".strip(),
            )
        if news:
            _advance(connection, progress.campaign, now_s)


def _advance(connection: sqlite3.Connection, campaign: int, now_s: int) -> None:
    """Open groups, halt or finish, as the nodes' standing demands."""
    while True:
        row = _find(connection, campaign)
        state = CampaignState(row["state"])
        if state not in (CampaignState.RUNNING, CampaignState.PAUSED):
            return
        judgement, reason = judge(_standing(connection, row), row["success_threshold"], row["error_threshold"])
        if judgement is Judgement.HALT:
            _close(connection, campaign, next_state(state, Action.HALT, approved=True), now_s, reason)
            return
        # A paused campaign goes on, or ends, when it is resumed.
        if judgement is Judgement.WAIT or state is CampaignState.PAUSED:
            return
        if judgement is Judgement.FINISH:
            _close(connection, campaign, next_state(state, Action.FINISH, approved=True), now_s, "")
            return
        opened = row["open_group"] + 1
        connection.execute("UPDATE campaigns SET open_group = ? WHERE id = ?", (opened, campaign))
        detail = f"group {opened + 1} of {row['groups']}"
        store.audit(connection, now_s, "server", "campaign.group_opened", f"campaign {campaign}", detail=detail)
        logger.info("campaign %d: opened %s", campaign, detail)
        _assign(connection, campaign)


def _close(connection: sqlite3.Connection, campaign: int, state: CampaignState, now_s: int, reason: str) -> None:
    finished_s = now_s if state in FINAL else None
    connection.execute(
        "UPDATE campaigns SET state = ?, finished_s = ?, reason = ? WHERE id = ?",
        (state.value, finished_s, reason, campaign),
    )
    store.audit(connection, now_s, "server", f"campaign.{state.value}", f"campaign {campaign}", detail=reason)
    logger.info("campaign %d is %s %s", campaign, state.value, reason)
    if state is not CampaignState.DONE:
        _assign(connection, campaign)


def _standing(connection: sqlite3.Connection, row: sqlite3.Row) -> Standing:
    nodes = connection.execute(
        "SELECT group_index, state FROM campaign_nodes WHERE campaign = ? AND group_index <= ?",
        (row["id"], row["open_group"]),
    ).fetchall()
    succeeded = [node["group_index"] for node in nodes if node["state"] in SUCCEEDED]
    failed = [node["group_index"] for node in nodes if node["state"] in FAILED]
    return Standing(
        opened=len(nodes),
        failed=len(failed),
        group=sum(node["group_index"] == row["open_group"] for node in nodes),
        group_succeeded=succeeded.count(row["open_group"]),
        group_failed=failed.count(row["open_group"]),
        last_group=row["open_group"] == row["groups"] - 1,
        through=len(succeeded) + len(failed),
    )


def _assign(connection: sqlite3.Connection, campaign: int) -> None:
    """Put a new assignment per site with open groups into the outbox."""
    row = _find(connection, campaign)
    if row["open_group"] < 0:
        return
    sequence = row["sequence"] + 1
    connection.execute("UPDATE campaigns SET sequence = ? WHERE id = ?", (sequence, campaign))
    release = releases.find(connection, row["version"])
    artefacts = releases.artefacts(connection, release.version)
    devices: dict[str, list[str]] = {}
    for node in connection.execute(
        "SELECT site, dev_eui FROM campaign_nodes WHERE campaign = ? AND group_index <= ? ORDER BY site, dev_eui",
        (campaign, row["open_group"]),
    ):
        devices.setdefault(node["site"], []).append(node["dev_eui"])
    for site, selected in devices.items():
        message = Assignment(
            campaign=campaign,
            sequence=sequence,
            action=_GATEWAY_ACTION[CampaignState(row["state"])],
            version=release.version,
            model_id=release.model_id,
            artefacts=artefacts,
            devices=selected,
        )
        connection.execute(
            "INSERT INTO assignments (campaign, site, sequence, message, published) VALUES (?, ?, ?, ?, 0)"
            " ON CONFLICT (campaign, site) DO UPDATE SET sequence = excluded.sequence, message = excluded.message,"
            " published = 0",
            (campaign, site, sequence, message.model_dump_json()),
        )


def unpublished(connection: sqlite3.Connection) -> list[sqlite3.Row]:
    """Assignments the broker does not have yet, in the order they were made."""
    return connection.execute(
        "SELECT campaign, site, sequence, message FROM assignments WHERE published = 0 ORDER BY campaign, site"
    ).fetchall()


def mark_published(connection: sqlite3.Connection, assignment: sqlite3.Row) -> None:
    """The broker has this assignment; a newer one made meanwhile stays unpublished."""
    connection.execute(
        "UPDATE assignments SET published = 1 WHERE campaign = ? AND site = ? AND sequence = ?",
        (assignment["campaign"], assignment["site"], assignment["sequence"]),
    )


def republish_active(connection: sqlite3.Connection) -> None:
    """Publish the assignments of active campaigns again: the broker may have lost them."""
    connection.execute(
        "UPDATE assignments SET published = 0 WHERE campaign IN (SELECT id FROM campaigns WHERE state IN (?, ?, ?))",
        ACTIVE,
    )


def overview(connection: sqlite3.Connection, campaign: int | None = None) -> list[dict[str, Any]]:
    """Campaigns with their figures, newest first."""
    rows = connection.execute("SELECT * FROM campaign_overview ORDER BY id DESC").fetchall()
    return [dict(row) for row in rows if campaign is None or row["id"] == campaign]


def _find(connection: sqlite3.Connection, campaign: int) -> sqlite3.Row:
    row = connection.execute("SELECT * FROM campaigns WHERE id = ?", (campaign,)).fetchone()
    if row is None:
        raise CampaignError(f"there is no campaign {campaign}")
    found: sqlite3.Row = row
    return found
