"""The audit log read back: who did what, and whether anybody touched the record of it.

Every row carries a hash over its content and the hash of the row before (:func:`server.store.chained`). Whoever
changes, removes or inserts a row breaks the chain there, unless they write every later row anew as well. Against that
helps a head (number and hash of a row) that was written down where they cannot reach: the chain must still lead to it.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from server import store

_COLUMNS = ("id", "time_s", "actor", "action", "subject", "outcome", "detail")


class HeadError(ValueError):
    """A text that is not a head."""


@dataclass(frozen=True)
class Head:
    """A row of the log and its hash: all that is needed to recognise everything up to it."""

    id: int
    hash: str

    def __str__(self) -> str:
        return f"{self.id}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """From the form it is printed in.

        Raises:
            HeadError: not of that form.
        """
        found = re.fullmatch(r"([1-9][0-9]{0,17}):([0-9a-f]{64})", text.strip())
        if found is None:
            raise HeadError(f"{text:.100}: a head is a row's number and hash, as in 12:3f…, printed by --verify")
        return cls(int(found[1]), found[2])


@dataclass(frozen=True)
class Verification:
    """What became of checking the chain."""

    rows: int
    head: Head | None
    problems: tuple[str, ...]
    """In words, each naming a row; empty where nothing was touched."""


def verify(connection: sqlite3.Connection, known: Head | None = None) -> Verification:
    """Check every row against the one before.

    Args:
        connection: The server's store.
        known: A head from an earlier check; the log must still lead to it.
    """
    problems: list[str] = []
    rows, expected, before = 0, 1, ""
    head: Head | None = None
    recognised = known is None
    for row in _rows(connection):
        if row["id"] != expected:
            problems.append(_gap(expected, row["id"] - 1))
        if row["hash"] != store.chained(before, [row[name] for name in _COLUMNS]):
            problems.append(f"row {row['id']} is not what was written after the row before it")
        head = Head(row["id"], row["hash"])
        recognised = recognised or head == known
        rows, expected, before = rows + 1, row["id"] + 1, row["hash"]
    written = store.get_meta(connection, store.AUDIT_HEAD)
    if (written or "") != (f"{head.id} {head.hash}" if head else ""):
        problems.append(f"the log ends with {head or 'nothing'}, but {written or 'nothing'} was written last")
    if not recognised and known is not None:
        problems.append(f"row {known.id} is not the one that was known by its hash")
    return Verification(rows, head, tuple(problems))


def _rows(connection: sqlite3.Connection) -> Iterator[sqlite3.Row]:
    yield from connection.execute(f"SELECT {', '.join(_COLUMNS)}, hash FROM audit ORDER BY id")  # noqa: S608


def _gap(first: int, last: int) -> str:
    return f"row {first} is missing" if first >= last else f"rows {first} to {last} are missing"
