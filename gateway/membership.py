"""What the store says of the gateway's place in the federation: how it stands, since when, and with which key."""

from __future__ import annotations

import json
import logging
import sqlite3
from typing import TypedDict

from gateway.clock import Clock
from gateway.diagnosis import Finding, Standing
from gateway.store import Store

log = logging.getLogger(__name__)

STANDING = "supernode"
ADMITTED_KEY = "supernode_key"


class Membership(TypedDict):
    """The row ``supernode`` of ``meta``."""

    standing: str
    words: str
    since_s: int


class Journal:
    """Writes the standing down as it changes; failures are counted each time they are found.

    Called between the consumer's transactions, never within one: both run in one event loop.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._last: Finding | None = None

    def note(self, finding: Finding) -> None:
        """Log, count and keep a finding."""
        failed = finding.standing not in (Standing.STARTING, Standing.CONNECTED)
        if finding != self._last:
            log.log(logging.WARNING if failed else logging.INFO, "federation: %s: %s", finding.standing, finding.words)
        with self._store.transaction():
            if failed:
                self._store.count(f"supernode.{finding.standing}")
            if finding != self._last:
                record = Membership(standing=finding.standing, words=finding.words, since_s=self._clock.now_s())
                self._store.set_meta(STANDING, json.dumps(record, sort_keys=True))
        self._last = finding

    def admitted(self, fingerprint: str) -> None:
        """The server let this key in."""
        if self._store.meta(ADMITTED_KEY) != fingerprint:
            self._store.set_meta(ADMITTED_KEY, fingerprint)

    def was_admitted(self, fingerprint: str) -> bool:
        """Whether the server ever let this key in."""
        return self._store.meta(ADMITTED_KEY) == fingerprint


def read(db: sqlite3.Connection) -> Membership | None:
    """How the gateway stands, from a store that may be another process's; None where it takes no part."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (STANDING,)).fetchone()
    if row is None:
        return None
    record: Membership = json.loads(row["value"])
    return record
