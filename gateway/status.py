"""The heartbeat: inventory and health of a site's nodes, how much they have learned; never their readings."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.clock import DAY_S, Clock
from gateway.config import Privacy
from gateway.store import Store
from shared_models.codes import Board, Mode
from shared_models.messages import Knowledge, NodeStatus, SiteStatus, status_topic

SILENT_S = 2 * DAY_S
"""A node not heard for so long is not healthy; telemetry is daily."""
MAX_BACKBONES = 16
"""The newest ones a heartbeat speaks of."""
_TRUSTED_MODES = (Mode.MODEL, Mode.PHYSICS, Mode.COMMISSIONING)


def site_status(store: Store, clock: Clock, site: str) -> SiteStatus:
    """What the server is told; nodes that have not reported yet are left out."""
    now_s = clock.now_s()
    nodes = [
        NodeStatus(
            dev_eui=row["dev_eui"],
            board=Board[row["board"].upper()],
            model_version=row["model_version"],
            backbone_id=row["backbone_id"],
            battery_mv=row["battery_mv"],
            last_seen=datetime.fromtimestamp(row["last_seen_s"], UTC),
            data_rate=row["data_rate"],
            healthy=row["faults"] == 0 and row["mode"] in _TRUSTED_MODES and now_s - row["last_seen_s"] < SILENT_S,
        )
        for row in store.all("SELECT * FROM devices WHERE listed = 1 AND reported_s IS NOT NULL ORDER BY dev_eui")
    ]
    counters = store.counters()
    if clock.simulated:
        # How soon real processes find each other is not the season's doing; two runs must send the same.
        counters = {name: value for name, value in counters.items() if not name.startswith("supernode.")}
    rules = Privacy.model_validate_json(store.meta("privacy") or "{}")
    # A farm that masks or adds noise does not say how much it knows.
    knowledge = [] if rules.masking_required or rules.noise else _knowledge(store)
    return SiteStatus(
        site=site,
        time=datetime.fromtimestamp(now_s, UTC),
        nodes=nodes,
        counters=counters,
        knowledge=knowledge,
    )


def _knowledge(store: Store) -> list[Knowledge]:
    rows = store.all(
        """SELECT backbone_id, count(DISTINCT CASE WHEN windows > 0 THEN dev_eui END) AS contributors,
        sum(windows) AS windows FROM snapshots GROUP BY backbone_id ORDER BY max(received_s) DESC LIMIT ?""",
        (MAX_BACKBONES,),
    )
    return [
        Knowledge(backbone_id=row["backbone_id"], contributors=row["contributors"], windows=row["windows"])
        for row in rows
    ]


def send_status(store: Store, clock: Clock, site: str, *, only_changes: bool) -> None:
    """Put the heartbeat into the outbox, inside the caller's transaction."""
    status = site_status(store, clock, site)
    facts = status.model_dump_json(exclude={"time"})
    if only_changes and store.meta("status") == facts:
        return
    store.set_meta("status", facts)
    store.send("server", status_topic(site), status.model_dump_json().encode(), retain=True)
