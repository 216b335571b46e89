"""Taking a release back: it stays in the registry, and no campaign brings it to another node."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from server import releases, store
from server.campaigns.machine import ACTIVE
from server.releases import FACTORY_VERSION, ReleaseError


class Withdrawal(BaseModel):
    """What an operator asks for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    release: Annotated[int, Field(ge=1)]
    reason: Annotated[str, Field(min_length=1, max_length=500, pattern=r"\S")]
    """For everybody who meets the release later."""


def withdraw(connection: sqlite3.Connection, actor: str, arguments: Mapping[str, Any], now_s: int) -> dict[str, Any]:
    """Withdraw a release.

    Nodes that run it keep it until they are brought something newer: they take no older version. What was learned
    from it stands, but is named in the answer, for somebody should look at it.

    Raises:
        ReleaseError: there is no such release, it is the factory model, it is withdrawn already, or a campaign that is
            still active carries it.
    """
    wish = Withdrawal.model_validate(arguments)
    version, reason = wish.release, wish.reason.strip()
    releases.find(connection, version)
    if version == FACTORY_VERSION:
        raise ReleaseError("release 1 is the factory model, which every node carries; it cannot be withdrawn")
    if known := releases.withdrawn(connection, version):
        raise ReleaseError(f"release {version} is withdrawn already: {known}")
    carriers = connection.execute(
        "SELECT id, state FROM campaigns WHERE version = ? AND state IN (?, ?, ?) ORDER BY id", (version, *ACTIVE)
    ).fetchall()
    if carriers:
        listed = ", ".join(f"campaign {row['id']} ({row['state']})" for row in carriers)
        raise ReleaseError(f"{listed} still carries release {version}; abort it first")
    with store.transaction(connection):
        connection.execute(
            "INSERT INTO withdrawals (version, withdrawn_s, actor, reason) VALUES (?, ?, ?, ?)",
            (version, now_s, actor, reason),
        )
        store.audit(connection, now_s, actor, "release.withdrawn", f"release {version}", detail=reason)
    running = connection.execute("SELECT count(*) FROM nodes WHERE model_version = ?", (version,)).fetchone()[0]
    heirs = [row["version"] for row in connection.execute(_HEIRS, (version,))]
    message = f"release {version} is withdrawn"
    if running:
        message += f"; {running} nodes run it and keep it until they are brought a newer one"
    if heirs:
        message += f"; learned from it: {', '.join(map(str, heirs))}"
    return {"version": version, "nodes": running, "learned_from_it": heirs, "message": message}


_HEIRS = """
WITH RECURSIVE heirs (version) AS (
    SELECT version FROM releases WHERE base_version = ?
    UNION SELECT r.version FROM releases AS r JOIN heirs AS h ON r.base_version = h.version)
SELECT version FROM heirs ORDER BY version
"""
