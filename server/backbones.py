"""Which backbone the fleet runs, and so which one rounds ask about.

A refresh's release has a backbone that no node has statistics for until a campaign has brought it there, which is the
operator's to start. Until most nodes run it, rounds go on improving the one they do run.
"""

from __future__ import annotations

import sqlite3

from server import releases
from server.releases import Release


def running_backbone(connection: sqlite3.Connection) -> int:
    """The released backbone that most nodes run; the newest release's where no node has told of one."""
    row = connection.execute(
        "SELECT backbone_id FROM nodes WHERE backbone_id IN (SELECT backbone_id FROM releases)"
        " GROUP BY backbone_id ORDER BY count(*) DESC,"
        " (SELECT max(version) FROM releases AS r WHERE r.backbone_id = nodes.backbone_id) DESC LIMIT 1"
    ).fetchone()
    return releases.find(connection, "latest").backbone_id if row is None else int(row["backbone_id"])


def running_release(connection: sqlite3.Connection) -> Release:
    """The newest release of that backbone that is not withdrawn: what rounds improve, and what a refresh starts from.

    Raises:
        ReleaseError: there is no release yet.
    """
    latest = releases.find(connection, "latest")
    backbone = running_backbone(connection)
    if latest.backbone_id == backbone:
        return latest
    row = connection.execute(
        "SELECT max(version) AS version FROM releases WHERE backbone_id = ?"
        " AND version NOT IN (SELECT version FROM withdrawals)",
        (backbone,),
    ).fetchone()
    return latest if row["version"] is None else releases.find(connection, row["version"])
