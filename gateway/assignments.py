"""What the server has assigned to this site: which artefacts, for which nodes, and when."""

from __future__ import annotations

import base64
import sqlite3

from gateway import sending_times
from gateway.clock import Clock
from gateway.refusal import Refused
from gateway.store import Store
from shared_models.messages import Assignment


def keep(store: Store, clock: Clock, assignment: Assignment) -> bool:
    """Store an assignment; False for one that is not newer than what is known.

    Raises:
        Refused: an artefact is not base64.
    """
    known = store.one("SELECT sequence FROM assignments WHERE campaign = ?", (assignment.campaign,))
    if known is not None and known["sequence"] >= assignment.sequence:
        return False
    store.execute(
        """INSERT INTO assignments (campaign, sequence, action, version, model_id, received_s, keys, not_before_s,
        not_after_s, from_hour, until_hour) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (campaign) DO UPDATE SET sequence = excluded.sequence, action = excluded.action,
        received_s = excluded.received_s, not_before_s = excluded.not_before_s, not_after_s = excluded.not_after_s,
        from_hour = excluded.from_hour, until_hour = excluded.until_hour""",
        (
            assignment.campaign,
            assignment.sequence,
            assignment.action,
            assignment.version,
            assignment.model_id,
            clock.now_s(),
            int(any(artefact.kind == "keys" for artefact in assignment.artefacts)),
            *sending_times.as_row(assignment),
        ),
    )
    if store.one("SELECT 1 FROM artefacts WHERE campaign = ?", (assignment.campaign,)) is None:
        _keep_artefacts(store, assignment)
    return True


def _keep_artefacts(store: Store, assignment: Assignment) -> None:
    for position, artefact in enumerate(assignment.artefacts):
        try:
            container = base64.b64decode(artefact.container, validate=True)
        except ValueError as error:
            raise Refused("assignment", f"campaign {assignment.campaign}: artefact is not base64") from error
        store.execute(
            "INSERT INTO artefacts VALUES (?, ?, ?, ?, ?, ?)",
            (assignment.campaign, position, artefact.kind, artefact.base, artefact.device, container),
        )


def smallest(store: Store, campaign: int, dev_eui: str) -> sqlite3.Row | None:
    """The smallest artefact this node can apply as it last reported: position, kind, container."""
    return store.one(
        """SELECT a.position, a.kind, a.container FROM artefacts a JOIN devices d ON d.dev_eui = ?
        WHERE a.campaign = ? AND (a.device IS NULL OR a.device = d.dev_eui)
        AND (a.kind IN ('full', 'keys') OR (a.kind = 'head' AND a.base = d.backbone_id)
             OR (a.kind IN ('delta', 'personal') AND a.base = d.model_version))
        ORDER BY length(a.container), a.position LIMIT 1""",
        (dev_eui, campaign),
    )
