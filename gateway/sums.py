"""A farm's sums: the newest complete snapshot of each node, added up exactly.

Snapshots are cumulative per node, backbone and season, so a lost one is made good by the next, and one that
arrives twice or late changes nothing. The sum is over integers: any order gives the same bits.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from gateway.store import PATIENCE_S, StoreError, reading
from shared_models.moments import MomentsError, Snapshot, Sums, add_up


class NotEnough(RuntimeError):  # noqa: N818 - a verdict
    """Too few nodes or windows stand behind the sums to let them leave the farm (invariant I7)."""


@dataclass(frozen=True)
class FarmSums:
    """What one farm knows about one backbone."""

    site: str
    backbone_id: int
    sums: Sums
    contributors: int
    """Nodes with at least one window."""
    windows: int
    """Windows of all classes."""
    minimum_contributors: int
    minimum_windows: int

    def released(self) -> FarmSums:
        """These sums, if they may leave the farm.

        Raises:
            NotEnough: too few contributors or windows; the text says how many there are and must be.
        """
        if self.contributors < self.minimum_contributors:
            raise NotEnough(f"{self.contributors} contributing nodes, at least {self.minimum_contributors} are needed")
        if self.windows < self.minimum_windows:
            raise NotEnough(f"{self.windows} windows, at least {self.minimum_windows} are needed")
        return self


def load_sums(store_path: Path, backbone_id: int, patience_s: float = PATIENCE_S) -> FarmSums:
    """Add up a backbone's snapshots from the store of a gateway that may be running.

    Args:
        store_path: The gateway's store.
        backbone_id: Whose activations the sums are about.
        patience_s: How long to wait where another program has locked the store.

    Raises:
        StoreError: there is no store, it stays locked, or it is damaged; nothing is changed either way.
    """
    with reading(store_path, patience_s) as db:
        return farm_sums(db, backbone_id)


def node_sums(db: sqlite3.Connection, backbone_id: int) -> dict[str, Sums]:
    """What each node added to a backbone's sums, over all its seasons."""
    nodes: dict[str, Sums] = {}
    for row in db.execute(
        "SELECT dev_eui, payload FROM snapshots WHERE backbone_id = ? ORDER BY dev_eui, season", (backbone_id,)
    ):
        nodes[row["dev_eui"]] = nodes.get(row["dev_eui"], Sums.zero()).add(Snapshot.decode(row["payload"]))
    return nodes


def farm_sums(db: sqlite3.Connection, backbone_id: int) -> FarmSums:
    """Add up a backbone's snapshots; one statement, so one consistent view, in constant memory.

    Raises:
        StoreError: it holds what no gateway has written.
    """
    (found,) = db.execute("PRAGMA quick_check('snapshots')").fetchone()
    if found != "ok":
        raise StoreError(f"the store is damaged: {found:.100}")
    facts = {row["key"]: row["value"] for row in db.execute("SELECT key, value FROM meta")}
    nodes = _Contributors()
    rows = db.execute(
        "SELECT dev_eui, windows, payload FROM snapshots WHERE backbone_id = ? ORDER BY dev_eui, season", (backbone_id,)
    )
    try:
        sums = add_up(nodes.note(row) for row in rows)
        windows = int(sums.count.sum())
        if windows != nodes.windows:
            raise StoreError(f"the store is damaged: it says {nodes.windows} windows, its snapshots hold {windows}")
        return FarmSums(
            site=facts["site"],
            backbone_id=backbone_id,
            sums=sums,
            contributors=nodes.count,
            windows=windows,
            minimum_contributors=int(facts["minimum_contributors"]),
            minimum_windows=int(facts["minimum_windows"]),
        )
    except (MomentsError, KeyError, ValueError) as error:
        raise StoreError(f"the store is damaged: {error}") from error


class _Contributors:
    """Counts the nodes and windows behind rows that come sorted by node, keeping one of them."""

    def __init__(self) -> None:
        self.count = 0
        self.windows = 0
        self._newest: str | None = None

    def note(self, row: sqlite3.Row) -> bytes:
        """Take account of a row and hand its snapshot on.

        Raises:
            MomentsError: SQLite checks types when it writes; what a damaged page holds may be anything.
        """
        if not isinstance(row["payload"], bytes) or type(row["windows"]) is not int:
            raise MomentsError("a row is not a snapshot")
        if row["windows"] and row["dev_eui"] != self._newest:
            self.count += 1
            self._newest = row["dev_eui"]
        self.windows += row["windows"]
        payload: bytes = row["payload"]
        return payload


def backbones(db: sqlite3.Connection) -> list[int]:
    """Every backbone this farm has snapshots of."""
    return [row["backbone_id"] for row in db.execute("SELECT DISTINCT backbone_id FROM snapshots ORDER BY backbone_id")]
