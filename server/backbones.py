"""Which backbone the fleet runs, and so which one rounds ask about.

A refresh's release has a backbone that no node has statistics for until a campaign has brought it there, which is the
operator's to start. Until most nodes run it, rounds go on improving the one they do run.
"""

from __future__ import annotations

import sqlite3

from server import releases
from server.releases import Release


def running_backbone(connection: sqlite3.Connection) -> int | None:
    """The released backbone that most nodes run; the newest where no node has told of one, None without a release."""
    row = connection.execute(
        """
        SELECT r.backbone_id, max(r.version) AS newest,
               (SELECT count(*) FROM nodes AS n WHERE n.backbone_id = r.backbone_id) AS nodes
        FROM models_on_offer AS r
        GROUP BY r.backbone_id ORDER BY nodes DESC, newest DESC LIMIT 1
        """
    ).fetchone()
    return None if row is None else int(row["backbone_id"])


def running_release(connection: sqlite3.Connection) -> Release:
    """The newest release of that backbone that is not withdrawn: what rounds improve, and what a refresh starts from.

    Raises:
        ReleaseError: there is no release yet.
    """
    row = connection.execute(
        "SELECT max(version) AS version FROM models_on_offer WHERE backbone_id = ?", (running_backbone(connection),)
    ).fetchone()
    return releases.find(connection, "latest" if row["version"] is None else row["version"])
