"""When heads have stopped helping: rounds with enough windows, decided one after the other, and none released.

Everything is read off the store: rounds of the running backbone, newest first, until one that released; and the
refreshes that were asked for, so that one is not made again before as many further rounds have been refused.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from server import commands
from server.backbones import running_backbone
from server.config import RefreshSection

ACTOR = "schedule"


@dataclass(frozen=True)
class Need:
    """What a refresh would go on from."""

    round: int
    """The newest whose sums the gate judged."""
    refused: int
    """Rounds in a row, since the last release or refresh, that the gate refused with enough windows."""


def need(connection: sqlite3.Connection, refresh: RefreshSection, backbone: int) -> Need | None:
    """What is known of a backbone; None where no round has asked for it and been judged."""
    asked = connection.execute(
        "SELECT max(finished_s) AS at FROM commands WHERE action = ? AND finished_s IS NOT NULL", (commands.REFRESH,)
    ).fetchone()["at"]
    newest, refused, counting = None, 0, True
    rows = connection.execute(
        "SELECT id, state, windows, evidence, finished_s FROM rounds WHERE backbone_id = ? AND state IN"
        " ('released', 'refused') ORDER BY id DESC",
        (backbone,),
    )
    for row in rows:
        judged = bool(json.loads(row["evidence"]).get("targets"))
        if newest is None and judged:
            newest = row["id"]
        counting = counting and row["state"] == "refused" and (asked is None or row["finished_s"] > asked)
        if counting and judged and row["windows"] >= refresh.minimum_windows:
            refused += 1
        if newest is not None and not counting:
            break
    return None if newest is None else Need(newest, refused)


def ask_if_due(connection: sqlite3.Connection, refresh: RefreshSection, now_s: int) -> int | None:
    """Ask for a refresh where heads have stopped helping; at most one at a time.

    Returns:
        The id of the command, where one was written.
    """
    if refresh.after_rounds is None or _in_progress(connection):
        return None
    backbone = running_backbone(connection)
    found = None if backbone is None else need(connection, refresh, backbone)
    if found is None or found.refused < refresh.after_rounds:
        return None
    return commands.submit(connection, ACTOR, commands.REFRESH, {}, now_s)


def _in_progress(connection: sqlite3.Connection) -> bool:
    row = connection.execute(
        "SELECT 1 FROM commands WHERE action = ? AND state IN ('pending', 'running')", (commands.REFRESH,)
    ).fetchone()
    return row is not None
