"""What gateways are told: one assignment per campaign and site, kept until the broker has it."""

from __future__ import annotations

import json
import sqlite3

from server import releases
from server.campaigns.machine import ACTIVE, Course, assigned
from server.campaigns.plan import Plan
from server.releases import Recipient
from shared_models.messages import Assignment


def assign(connection: sqlite3.Connection, campaign: sqlite3.Row, nodes: list[sqlite3.Row], course: Course) -> None:
    """Put a new assignment per site with open groups into the outbox; inside the caller's transaction.

    Args:
        connection: The server's store.
        campaign: The row of ``campaigns``.
        nodes: All its rows of ``campaign_nodes``.
        course: How it stands.
    """
    told = assigned(course)
    if told is None:
        return
    action, open_group = told
    sequence = campaign["sequence"] + 1
    connection.execute("UPDATE campaigns SET sequence = ? WHERE id = ?", (sequence, campaign["id"]))
    release = releases.find(connection, campaign["version"])
    plan = Plan.model_validate(json.loads(campaign["plan"]))
    recipients: dict[str, list[Recipient]] = {}
    selected: dict[str, list[str]] = {}
    for node in nodes:
        recipient = Recipient(node["dev_eui"], node["base_version"], node["backbone_id"])
        recipients.setdefault(node["site"], []).append(recipient)
        if node["group_index"] <= open_group:
            selected.setdefault(node["site"], []).append(node["dev_eui"])
    for site, devices in sorted(selected.items()):
        message = Assignment(
            campaign=campaign["id"],
            sequence=sequence,
            action=action,
            version=release.version,
            model_id=release.model_id,
            # A gateway keeps the containers of the first assignment: those for the site's later groups are among them.
            artefacts=releases.artefacts(connection, release.version, recipients[site]),
            devices=sorted(devices),
            not_before=plan.not_before,
            not_after=plan.not_after,
            hours=plan.hours,
        )
        connection.execute(
            "INSERT INTO assignments (campaign, site, sequence, message, published) VALUES (?, ?, ?, ?, 0)"
            " ON CONFLICT (campaign, site) DO UPDATE SET sequence = excluded.sequence, message = excluded.message,"
            " published = 0",
            (campaign["id"], site, sequence, message.model_dump_json()),
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
