"""Nodes that fell ill after their update: what heartbeats say of those that run a campaign's release.

A release can pass every check of its node and still do harm that shows later: a node that no longer reports, or whose
gateway finds it unhealthy. Only nodes that were healthy when the campaign was drafted count, and only once they run
the release: what was broken before is not the update's doing. A gateway that is silent says nothing about its nodes.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from server import store
from server.campaigns import machine
from server.campaigns.conduct import SERVER, course_of, keep, kind_of
from server.campaigns.machine import MOVING, RUNNING_IT
from server.campaigns.plan import Plan

COMPLAINTS = 2
"""Reports of a node in a row that must find it unhealthy: one may be chance."""
DAY_S = 86_400


@dataclass(frozen=True)
class Health:
    """How one node that runs the release has been since."""

    complaints: int
    complained_s: int | None
    """When the node was heard for the newest complaint: the same report is not counted twice."""
    ailment: str


def watch(connection: sqlite3.Connection, site: str, now_s: int) -> None:
    """Learn from the newest heartbeat of a site, and halt what has become too much.

    Args:
        connection: The server's store, the heartbeat already in it.
        site: Whose heartbeat.
        now_s: The server's clock.
    """
    campaigns = connection.execute("SELECT * FROM campaigns WHERE state IN (?, ?) ORDER BY id", MOVING).fetchall()
    for row in campaigns:
        plan = Plan.model_validate(json.loads(row["plan"]))
        if plan.halt_on_unhealthy:
            _watch(connection, row, site, round(plan.silent_days * DAY_S), now_s)


def _watch(connection: sqlite3.Connection, row: sqlite3.Row, site: str, silent_s: int, now_s: int) -> None:
    seen = connection.execute(
        "SELECT c.dev_eui, c.group_index, c.state, c.activated_s, c.complaints, c.complained_s, c.ailment, n.healthy,"
        " n.last_seen_s, s.last_status_s"
        " FROM campaign_nodes AS c JOIN nodes AS n USING (dev_eui, site) JOIN sites AS s USING (site)"
        " WHERE c.campaign = ? AND site = ? AND c.was_healthy AND c.state IN (?, ?) ORDER BY c.dev_eui",
        (row["id"], site, *RUNNING_IT),
    ).fetchall()
    changed = [(entry, health) for entry in seen if (health := examine(entry, silent_s)) is not None]
    if not changed:
        return
    before = course_of(connection, row)
    heard = [(kind_of(entry), bool(health.ailment)) for entry, health in changed]
    with store.transaction(connection):
        for entry, health in changed:
            connection.execute(
                "UPDATE campaign_nodes SET complaints = ?, complained_s = ?, ailment = ?"
                " WHERE campaign = ? AND dev_eui = ?",
                (health.complaints, health.complained_s, health.ailment, row["id"], entry["dev_eui"]),
            )
            if bool(health.ailment) != bool(entry["ailment"]):
                action = "node.ailing" if health.ailment else "node.well"
                detail = f"{entry['dev_eui']} {health.ailment}".strip()
                store.audit(connection, now_s, SERVER, action, f"campaign {row['id']}", detail=detail)
        keep(connection, row, before, machine.observe(before, heard), now_s)


def examine(seen: sqlite3.Row, silent_s: int) -> Health | None:
    """What a heartbeat says of a node that runs the release; None where that is nothing new."""
    before = Health(seen["complaints"], seen["complained_s"], seen["ailment"])
    complaints, complained_s = before.complaints, before.complained_s
    if seen["healthy"]:
        complaints, complained_s = 0, None
    elif seen["last_seen_s"] > max(seen["activated_s"], complained_s or 0):
        complaints, complained_s = complaints + 1, seen["last_seen_s"]
    ailment = ""
    if complaints >= COMPLAINTS:
        ailment = "unhealthy since it runs the release"
    if seen["last_status_s"] - max(seen["last_seen_s"], seen["activated_s"]) > silent_s:
        ailment = f"not heard for {silent_s / DAY_S:g} days since it runs the release"
    after = Health(complaints, complained_s, ailment)
    return None if after == before else after
