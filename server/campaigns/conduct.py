"""Campaigns in the store: drafted, moved by operators, nodes and time, and written down as they go.

Every change is one transaction that also writes the audit log and the assignments to publish, so that a server killed
at any point goes on where it was. What may happen is decided in :mod:`server.campaigns.machine`.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from datetime import UTC, datetime
from typing import Any

from server import store
from server.campaigns import machine
from server.campaigns.machine import (
    FAILED,
    FINAL,
    SUCCEEDED,
    Action,
    CampaignError,
    Course,
    Node,
    advances,
    assigned,
)
from server.campaigns.outbox import assign
from server.campaigns.plan import Draft, Plan, draft, refuse_taken, refuse_withdrawn
from shared_models.codes import CampaignState, UpdateState
from shared_models.messages import Progress

logger = logging.getLogger(__name__)

SERVER = "server"
"""Who acts where nobody asked."""
CLOCK_TOLERANCE_S = 86_400
"""A report from further in the future than this is dated by the server's own clock."""


def create(connection: sqlite3.Connection, actor: str, plan: Plan, now_s: int) -> int:
    """Draft a campaign for the nodes the plan selects.

    Raises:
        CampaignError: unknown release, site or board; withdrawn; no node selected; nobody can apply it; a node is
            taken.
    """
    return _keep_draft(connection, actor, plan, draft(connection, plan), now_s)


def retry(connection: sqlite3.Connection, actor: str, campaign: int, release: int | None, now_s: int) -> int:
    """Draft a campaign for the nodes that failed in one that has ended or halted.

    A node that rolled back takes no version again that it has run: it needs a newer release.

    Args:
        connection: The server's store.
        actor: Who asks.
        campaign: The one in which they failed.
        release: Another than it carried; the same unless given.
        now_s: The server's clock.

    Raises:
        CampaignError: it is still on its way, no node failed, or as :func:`create` would refuse it.
    """
    row = find(connection, campaign)
    state = CampaignState(row["state"])
    if state not in (*FINAL, CampaignState.HALTED):
        raise CampaignError(f"campaign {campaign} is {state.value}: its nodes may still succeed")
    version = release or row["version"]
    failed = [node for node in nodes_of(connection, campaign) if node["state"] in FAILED]
    if not failed:
        raise CampaignError(f"no node failed in campaign {campaign}")
    if version <= row["version"]:
        failed = [node for node in failed if node["state"] != UpdateState.ROLLED_BACK]
        if not failed:
            raise CampaignError(
                f"every node that failed has run release {row['version']} and gone back; it takes only a newer one"
            )
    earlier = Plan.model_validate(json.loads(row["plan"]))
    plan = earlier.model_copy(
        update={
            "release": version,
            "devices": [node["dev_eui"] for node in failed],
            "not_before": None,
            "not_after": None,
            "automatic": False,
            # The nodes are named; what else they were chosen by may no longer be so.
            **dict.fromkeys(("sites", "boards", "backbones", "versions", "healthy", "minimum_battery_mv")),
        }
    )
    return _keep_draft(connection, actor, plan, draft(connection, plan, sparing=campaign), now_s, retry_of=campaign)


def _keep_draft(
    connection: sqlite3.Connection, actor: str, plan: Plan, drafted: Draft, now_s: int, *, retry_of: int | None = None
) -> int:
    settled = plan.model_copy(update={"release": drafted.release.version})
    with store.transaction(connection):
        campaign = connection.execute(
            "INSERT INTO campaigns (created_s, created_by, version, plan, held_back, retry_of, state, groups)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                now_s,
                actor,
                drafted.release.version,
                store.dumps(settled.model_dump(mode="json", exclude_defaults=True)),
                json.dumps(drafted.held_back),
                retry_of,
                CampaignState.DRAFT.value,
                len(drafted.sizes),
            ),
        ).lastrowid
        assert campaign is not None  # noqa: S101
        connection.executemany(
            "INSERT INTO campaign_nodes (campaign, dev_eui, site, group_index, base_version, backbone_id, was_healthy)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    campaign,
                    node["dev_eui"],
                    node["site"],
                    group,
                    node["model_version"],
                    node["backbone_id"],
                    node["healthy"],
                )
                for node, group in zip(drafted.nodes, drafted.group_of(), strict=True)
            ],
        )
        store.audit(
            connection,
            now_s,
            actor,
            "campaign.create",
            f"campaign {campaign}",
            detail=f"release {drafted.release.version} to {len(drafted.nodes)} nodes"
            f" in groups of {', '.join(map(str, drafted.sizes))}"
            + (f"; those that failed in campaign {retry_of}" if retry_of else "")
            + (f"; held back: {', '.join(drafted.held_back)}" if drafted.held_back else ""),
        )
    return campaign


def act(
    connection: sqlite3.Connection,
    actor: str,
    campaign: int,
    action: Action,
    now_s: int,
    *,
    second_operator: bool = False,
) -> CampaignState:
    """Carry out an operator's action.

    Args:
        connection: The server's store.
        actor: Who asks.
        campaign: Its number.
        action: One of ``OPERATOR_ACTIONS``.
        now_s: The server's clock.
        second_operator: Whoever drafted a campaign may not approve it.

    Raises:
        CampaignError: there is no such campaign, or the action is not possible now.
    """
    row = find(connection, campaign)
    if action is Action.APPROVE and second_operator and _same(actor, row["created_by"]):
        raise CampaignError(f"campaign {campaign} was drafted by {row['created_by']}; another operator must approve it")
    if action is Action.START:
        machine.next_state(CampaignState(row["state"]), action, approved=row["approved_s"] is not None)
        _refuse_start(connection, row, now_s)
    before = course_of(connection, row)
    after = machine.act(before, action)
    with store.transaction(connection):
        if action is Action.APPROVE:
            connection.execute(
                "UPDATE campaigns SET approved_s = ?, approved_by = ? WHERE id = ?", (now_s, actor, campaign)
            )
        if action is Action.START:
            connection.execute("UPDATE campaigns SET started_s = ? WHERE id = ?", (now_s, campaign))
        store.audit(connection, now_s, actor, f"campaign.{action.value}", f"campaign {campaign}")
        keep(connection, row, before, after, now_s)
    return after.state


def _same(actor: str, other: str) -> bool:
    return actor.strip().casefold() == other.strip().casefold()


def _refuse_start(connection: sqlite3.Connection, row: sqlite3.Row, now_s: int) -> None:
    refuse_withdrawn(connection, row["version"])
    plan = Plan.model_validate(json.loads(row["plan"]))
    if plan.not_after is not None and now_s >= plan.not_after.timestamp():
        raise CampaignError(_over(plan.not_after))
    refuse_taken(connection, [node["dev_eui"] for node in nodes_of(connection, row["id"])], row["id"])


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
    row = find(connection, progress.campaign)
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
    runs_it = progress.state in machine.RUNNING_IT
    # A campaign's course turns on how nodes end: what they report on the way there moves no group.
    ends = news and progress.state in (*SUCCEEDED, *FAILED)
    course = course_of(connection, row) if ends else None
    with store.transaction(connection):
        connection.execute(
            "UPDATE campaign_nodes SET state = ?, detail = ?, downlinks = max(downlinks, ?), updated_s = ?,"
            " activated_s = CASE WHEN ? THEN coalesce(activated_s, ?) ELSE activated_s END,"
            " ailment = CASE WHEN ? THEN ailment ELSE '' END WHERE campaign = ? AND dev_eui = ?",
            (
                progress.state.value,
                progress.detail,
                min(progress.downlinks, 1_000_000),
                time_s,
                runs_it,
                time_s,
                runs_it,
                progress.campaign,
                progress.dev_eui,
            ),
        )
        if course is not None:
            store.audit(
                connection,
                now_s,
                site,
                f"node.{progress.state.value}",
                f"campaign {progress.campaign}",
                detail=f"{progress.dev_eui} {progress.detail}".strip(),
            )
            keep(connection, row, course, machine.report(course, kind_of(node), progress.state), now_s)


def review(connection: sqlite3.Connection, now_s: int) -> None:
    """Do what only time brings about: start approved drafts that asked for it, halt campaigns whose time is over."""
    for row in connection.execute("SELECT * FROM campaigns WHERE finished_s IS NULL ORDER BY id").fetchall():
        plan = Plan.model_validate(json.loads(row["plan"]))
        state = CampaignState(row["state"])
        if state is CampaignState.DRAFT:
            due = plan.automatic and plan.not_before is not None and now_s >= plan.not_before.timestamp()
            if due and row["approved_s"] is not None:
                _start(connection, row, now_s)
        elif plan.not_after is not None and now_s >= plan.not_after.timestamp():
            course = course_of(connection, row)
            after = machine.expire(course, _over(plan.not_after))
            if after != course:
                with store.transaction(connection):
                    keep(connection, row, course, after, now_s)


def _start(connection: sqlite3.Connection, row: sqlite3.Row, now_s: int) -> None:
    """Start a draft by itself, or write down, once, why it cannot be."""
    try:
        act(connection, SERVER, row["id"], Action.START, now_s)
    except CampaignError as error:
        reason = f"not started by itself: {error}"
        if row["reason"] == reason:
            return
        with store.transaction(connection):
            connection.execute("UPDATE campaigns SET reason = ? WHERE id = ?", (reason, row["id"]))
            store.audit(
                connection, now_s, SERVER, "campaign.start", f"campaign {row['id']}", "refused", detail=str(error)
            )


def _over(not_after: datetime) -> str:
    return f"its time was over at {not_after.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def find(connection: sqlite3.Connection, campaign: int) -> sqlite3.Row:
    """A campaign's row.

    Raises:
        CampaignError: there is no such campaign.
    """
    row = connection.execute("SELECT * FROM campaigns WHERE id = ?", (campaign,)).fetchone()
    if row is None:
        raise CampaignError(f"there is no campaign {campaign}")
    found: sqlite3.Row = row
    return found


def nodes_of(connection: sqlite3.Connection, campaign: int) -> list[sqlite3.Row]:
    """A campaign's nodes, group by group."""
    return connection.execute(
        "SELECT * FROM campaign_nodes WHERE campaign = ? ORDER BY group_index, dev_eui", (campaign,)
    ).fetchall()


def kind_of(node: sqlite3.Row) -> Node:
    """A row of ``campaign_nodes`` as the state machine sees it."""
    return Node(node["group_index"], UpdateState(node["state"]), ailing=bool(node["ailment"]))


def course_of(connection: sqlite3.Connection, row: sqlite3.Row) -> Course:
    """A campaign as the state machine sees it."""
    plan = Plan.model_validate(json.loads(row["plan"]))
    # A report must not cost more than counting: a campaign may have tens of thousands of nodes.
    kinds = connection.execute(
        "SELECT group_index, state, ailment <> '' AS ailment, count(*) AS nodes FROM campaign_nodes"
        " WHERE campaign = ? GROUP BY 1, 2, 3",
        (row["id"],),
    )
    return Course(
        crowd=machine.crowd({kind_of(kind): kind["nodes"] for kind in kinds}),
        success_threshold=plan.success_threshold,
        error_threshold=plan.error_threshold,
        state=CampaignState(row["state"]),
        approved=row["approved_s"] is not None,
        open_group=row["open_group"],
        reason=row["reason"],
    )


def keep(
    connection: sqlite3.Connection,
    row: sqlite3.Row,
    before: Course,
    after: Course,
    now_s: int,
) -> None:
    """Write down what has become of a campaign, and what the server did by itself; inside the caller's transaction."""
    campaign = row["id"]
    connection.execute(
        "UPDATE campaigns SET state = ?, open_group = ?, reason = ?, finished_s = ? WHERE id = ?",
        (after.state.value, after.open_group, after.reason, _finished_s(row, after, now_s), campaign),
    )
    for group in range(before.open_group + 1, after.open_group + 1):
        connection.execute(
            "UPDATE campaign_nodes SET opened_s = ? WHERE campaign = ? AND group_index = ?", (now_s, campaign, group)
        )
        if group > 0:
            detail = f"group {group + 1} of {row['groups']}"
            store.audit(connection, now_s, SERVER, "campaign.group_opened", f"campaign {campaign}", detail=detail)
            logger.info("campaign %d: opened %s", campaign, detail)
    if after.state is not before.state and after.state in (CampaignState.HALTED, CampaignState.DONE):
        subject, action = f"campaign {campaign}", f"campaign.{after.state.value}"
        store.audit(connection, now_s, SERVER, action, subject, detail=after.reason)
        logger.info("campaign %d is %s %s", campaign, after.state.value, after.reason)
    if assigned(after) != assigned(before):
        assign(connection, row, nodes_of(connection, campaign), after)


def _finished_s(row: sqlite3.Row, after: Course, now_s: int) -> int | None:
    if after.state not in FINAL:
        return None
    return now_s if row["finished_s"] is None else int(row["finished_s"])


def held_back(connection: sqlite3.Connection, campaign: int) -> list[str]:
    """Sites this campaign left out because its release would hurt them."""
    return list(json.loads(find(connection, campaign)["held_back"]))


def overview(connection: sqlite3.Connection, campaign: int | None = None) -> list[dict[str, Any]]:
    """Campaigns with their figures, newest first."""
    rows = connection.execute("SELECT * FROM campaign_overview ORDER BY id DESC").fetchall()
    return [dict(row) for row in rows if campaign is None or row["id"] == campaign]
