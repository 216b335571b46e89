"""The server's SQLite store: opening it, and the few statements every part shares."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Literal

SCHEMA_VERSION = 3
BUSY_TIMEOUT_S = 10.0
AUDIT_HEAD = "audit_head"

Outcome = Literal["done", "refused", "failed"]


class StoreError(RuntimeError):
    """The store is missing or of another version."""


def schema() -> str:
    """The statements that make an empty store."""
    return resources.files("server").joinpath("schema.sql").read_text(encoding="utf-8")


def create(path: Path) -> None:
    """Create an empty store; an existing one of this version is left as it is.

    Raises:
        StoreError: the file holds a store of another version.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE;\n{schema()}\nCOMMIT;")
        elif version != SCHEMA_VERSION:
            raise StoreError(_other_version(path, version))
    finally:
        connection.close()


def _other_version(path: Path, version: int) -> str:
    return (
        f"{path}: store version {version}, this server reads version {SCHEMA_VERSION}; put the old store aside and"
        " make a new one with: noria server init"
    )


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open a store for this process. Statements commit at once unless inside :func:`transaction`.

    Raises:
        StoreError: there is no store at ``path``, or it is of another version.
    """
    if not path.is_file():
        raise StoreError(f"{path}: no store; create it with: noria server init")
    mode = "ro" if read_only else "rw"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA_VERSION:
        connection.close()
        raise StoreError(_other_version(path, version))
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; a transaction inside another joins it."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def dumps(value: Mapping[str, Any]) -> str:
    """JSON as the store keeps it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def count(connection: sqlite3.Connection, name: str, by: int = 1) -> None:
    """Add to a counter."""
    connection.execute(
        "INSERT INTO counters (name, value) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        (name, by),
    )


def get_meta(connection: sqlite3.Connection, key: str) -> str | None:
    """A small fact about the store, or None."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row["value"])


def set_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
    """Remember a small fact about the store."""
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )


def audit(
    connection: sqlite3.Connection,
    time_s: int,
    actor: str,
    action: str,
    subject: str,
    outcome: Outcome = "done",
    detail: str = "",
) -> None:
    """Write down who did what, linked to everything written down before."""
    with transaction(connection):
        newest = connection.execute("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1").fetchone()
        number, before = (1, "") if newest is None else (newest["id"] + 1, newest["hash"])
        content = (number, time_s, actor, action, subject, outcome, detail)
        link = chained(before, content)
        connection.execute(
            "INSERT INTO audit (id, time_s, actor, action, subject, outcome, detail, hash)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*content, link),
        )
        set_meta(connection, AUDIT_HEAD, f"{number} {link}")


def chained(before: str, content: Sequence[int | str]) -> str:
    """The hash of an audit row, which follows from its content and the hash of the row before."""
    text = json.dumps([before, *content], ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode("ascii"), digest_size=32).hexdigest()
