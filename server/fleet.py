"""The fleet as its gateways report it: which node runs what. Heartbeats are untrusted until checked here."""

from __future__ import annotations

import logging
import sqlite3

from server import store
from shared_models.messages import NodeStatus, SiteStatus

logger = logging.getLogger(__name__)

MOVED_AFTER_S = 7 * 86_400
"""A node belongs to the site that reported it first until that site has not heard it for this long."""
MAX_COUNTERS = 200
MAX_COUNTER_NAME = 64
MAX_TIME_S = 0xFFFFFFFF


class StatusError(ValueError):
    """A heartbeat that contradicts its topic or its own bounds; the text says why."""


def record_status(connection: sqlite3.Connection, site: str, status: SiteStatus) -> None:
    """Take over a gateway's heartbeat: its counters, and its nodes in place of those it reported before.

    An older heartbeat than the newest known changes nothing.

    Args:
        connection: The server's store.
        site: The site its topic names.
        status: The message.

    Raises:
        StatusError: it speaks for another site, or its counters or time are out of bounds.
    """
    if status.site != site:
        raise StatusError(f"a heartbeat of {status.site} on the topic of {site}")
    if len(status.counters) > MAX_COUNTERS or any(
        len(name) > MAX_COUNTER_NAME or not 0 <= value < 2**63 for name, value in status.counters.items()
    ):
        raise StatusError("its counters are out of bounds")
    time_s = int(status.time.timestamp())
    if not 0 <= time_s <= MAX_TIME_S:
        raise StatusError(f"its time {status.time} is out of bounds")
    with store.transaction(connection):
        row = connection.execute("SELECT last_status_s FROM sites WHERE site = ?", (site,)).fetchone()
        if row is not None and row["last_status_s"] > time_s:
            return
        connection.execute(
            "INSERT INTO sites (site, last_status_s, counters) VALUES (?, ?, ?) ON CONFLICT (site) DO UPDATE"
            " SET last_status_s = excluded.last_status_s, counters = excluded.counters",
            (site, time_s, store.dumps(status.counters)),
        )
        connection.execute("DELETE FROM knowledge WHERE site = ?", (site,))
        connection.executemany(
            "INSERT OR REPLACE INTO knowledge (site, backbone_id, contributors, windows) VALUES (?, ?, ?, ?)",
            [(site, entry.backbone_id, entry.contributors, entry.windows) for entry in status.knowledge],
        )
        reported = {node.dev_eui for node in status.nodes}
        known = connection.execute("SELECT dev_eui FROM nodes WHERE site = ?", (site,))
        gone = [(row["dev_eui"],) for row in known.fetchall() if row["dev_eui"] not in reported]
        connection.executemany("DELETE FROM nodes WHERE dev_eui = ?", gone)
        for node in status.nodes:
            _record_node(connection, site, time_s, node)


def _record_node(connection: sqlite3.Connection, site: str, time_s: int, node: NodeStatus) -> None:
    row = connection.execute("SELECT site, last_seen_s FROM nodes WHERE dev_eui = ?", (node.dev_eui,)).fetchone()
    if row is not None and row["site"] != site and row["last_seen_s"] + MOVED_AFTER_S > time_s:
        logger.warning("%s claims node %s, which %s heard lately: ignored", site, node.dev_eui, row["site"])
        store.count(connection, "mqtt.foreign_nodes")
        return
    last_seen_s = max(0, min(int(node.last_seen.timestamp()), time_s))
    connection.execute(
        "INSERT INTO nodes (dev_eui, site, board, model_version, backbone_id, battery_mv, last_seen_s, healthy,"
        " data_rate) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (dev_eui) DO UPDATE SET site = excluded.site,"
        " board = excluded.board, model_version = excluded.model_version, backbone_id = excluded.backbone_id,"
        " battery_mv = excluded.battery_mv, last_seen_s = excluded.last_seen_s, healthy = excluded.healthy,"
        " data_rate = excluded.data_rate",
        (
            node.dev_eui,
            site,
            int(node.board),
            node.model_version,
            node.backbone_id,
            node.battery_mv,
            last_seen_s,
            int(node.healthy),
            node.data_rate,
        ),
    )
