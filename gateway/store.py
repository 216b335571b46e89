"""The gateway's SQLite store: one writer, one transaction per message, everything on disk before an acknowledgement.

``schema.sql`` says what is in it; this module opens it and holds the operations that every part needs.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal, Self

from gateway.config import GatewaySettings

SCHEMA_VERSION = 3
PATIENCE_S = 30.0
"""How long a statement waits for another connection's lock."""

SAVED_S = 10.0
"""Long after a broker has saved what it acknowledged. Mosquitto does both in one turn of its loop."""

BrokerName = Literal["network", "server"]


class StoreError(RuntimeError):
    """A store that this gateway must not use; the text says why."""


@dataclass(frozen=True)
class Outgoing:
    """A committed message that waits for its broker."""

    outgoing_id: int
    broker: BrokerName
    topic: str
    payload: bytes
    retain: bool


class Store:
    """The one connection that writes. Not thread-safe: it belongs to the service's consumer."""

    def __init__(self, path: Path) -> None:
        """Open or create the store at ``path``.

        Raises:
            StoreError: the file is not a gateway's store, or one of another schema version.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._create(path)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise StoreError(f"{path}: not a usable store: {error}") from error
        except StoreError:
            self._db.close()
            raise

    def _create(self, path: Path) -> None:
        made = self.one("SELECT 1 FROM sqlite_schema WHERE name = 'meta'") is not None
        found = self.meta("schema") if made else None
        if found not in {None, str(SCHEMA_VERSION)}:
            raise StoreError(f"{path}: schema {found}, this gateway needs {SCHEMA_VERSION}")
        self._db.executescript(resources.files("gateway").joinpath("schema.sql").read_text(encoding="utf-8"))
        self.set_meta("schema", str(SCHEMA_VERSION))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; nothing is pending outside a transaction."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is on disk together, or not at all."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> sqlite3.Cursor:
        """Run one statement."""
        return self._db.execute(sql, parameters)

    def one(self, sql: str, parameters: Sequence[object] = ()) -> sqlite3.Row | None:
        """The first row, or None."""
        row: sqlite3.Row | None = self._db.execute(sql, parameters).fetchone()
        return row

    def all(self, sql: str, parameters: Sequence[object] = ()) -> list[sqlite3.Row]:
        """Every row."""
        return self._db.execute(sql, parameters).fetchall()

    def meta(self, key: str) -> str | None:
        """A fact about the store."""
        row = self.one("SELECT value FROM meta WHERE key = ?", (key,))
        return None if row is None else str(row["value"])

    def set_meta(self, key: str, value: str) -> None:
        """Record a fact about the store."""
        self.execute(
            """INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value
            WHERE value != excluded.value""",
            (key, value),
        )

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        self.execute(
            "INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            (name, by),
        )

    def counters(self) -> dict[str, int]:
        """All counters, by name."""
        return {row["name"]: row["value"] for row in self.all("SELECT name, value FROM counters ORDER BY name")}

    def send(self, broker: BrokerName, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Put a message into the outbox: published after this transaction, and after any crash."""
        self.execute(
            "INSERT INTO outbox (broker, topic, payload, retain) VALUES (?, ?, ?, ?)",
            (broker, topic, payload, int(retain)),
        )

    def outgoing(self, broker: BrokerName, limit: int) -> list[Outgoing]:
        """The oldest messages that wait for ``broker``."""
        rows = self.all(
            "SELECT id, broker, topic, payload, retain FROM outbox WHERE broker = ? ORDER BY id LIMIT ?",
            (broker, limit),
        )
        return [Outgoing(r["id"], r["broker"], r["topic"], r["payload"], bool(r["retain"])) for r in rows]

    def sent(self, messages: Sequence[Outgoing], now_s: float) -> None:
        """The broker has acknowledged these messages; the next tock will say if others must act.

        Args:
            messages: what went.
            now_s: real time, Unix seconds.
        """
        with self.transaction():
            self.execute("DELETE FROM published WHERE published_s < ?", (now_s - SAVED_S,))
            for message in messages:
                self.execute(
                    """INSERT INTO published SELECT id, broker, topic, payload, retain, ? FROM outbox WHERE id = ?
                    ON CONFLICT (id) DO UPDATE SET published_s = excluded.published_s""",
                    (now_s, message.outgoing_id),
                )
                self.execute("DELETE FROM outbox WHERE id = ?", (message.outgoing_id,))
            if any(not message.retain for message in messages):
                self.set_meta("busy", "1")

    def recall(self, broker: BrokerName, lost_s: float) -> None:
        """Put back into the outbox what a broker had acknowledged shortly before its connection broke.

        Args:
            broker: whose connection.
            lost_s: when it broke, real time in Unix seconds.
        """
        with self.transaction():
            self.execute(
                """INSERT OR IGNORE INTO outbox SELECT id, broker, topic, payload, retain FROM published
                WHERE broker = ? AND published_s >= ?""",
                (broker, lost_s - SAVED_S),
            )
            self.execute("DELETE FROM published WHERE broker = ?", (broker,))

    def configure(self, settings: GatewaySettings) -> None:
        """Bring the allow-list and the store's facts in line with the configuration.

        Raises:
            StoreError: the store belongs to another site.
        """
        with self.transaction():
            owner = self.meta("site")
            if owner is not None and owner != settings.site:
                raise StoreError(f"{settings.store}: belongs to site {owner}, not {settings.site}")
            self.set_meta("site", settings.site)
            self.set_meta("utc_offset_min", str(settings.utc_offset_min))
            self.set_meta("minimum_contributors", str(settings.privacy.minimum_contributors))
            self.set_meta("minimum_windows", str(settings.privacy.minimum_windows))
            self.set_meta("privacy", settings.privacy.model_dump_json())
            self.execute("UPDATE devices SET listed = 0")
            for node in settings.nodes:
                self.execute(
                    """INSERT INTO devices (dev_eui, name, crop, board, area_ha) VALUES (?, ?, ?, ?, ?)
                    ON CONFLICT (dev_eui) DO UPDATE SET name = excluded.name, crop = excluded.crop,
                    board = excluded.board, area_ha = excluded.area_ha, listed = 1""",
                    (node.dev_eui, node.name, node.crop, node.board, node.area_ha),
                )


def open_read_only(path: Path, patience_s: float = PATIENCE_S) -> sqlite3.Connection:
    """A connection for readers beside the running gateway.

    Args:
        path: The store.
        patience_s: How long each statement waits for a lock.

    Raises:
        StoreError: there is no store at ``path``.
    """
    if not path.is_file():
        raise StoreError(f"{path}: no store; has the gateway run yet?")
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=patience_s)
    db.row_factory = sqlite3.Row
    return db


@contextmanager
def reading(path: Path, patience_s: float = PATIENCE_S) -> Iterator[sqlite3.Connection]:
    """Such a connection while the context lasts, what SQLite finds wrong said in words.

    Raises:
        StoreError: there is no store at ``path``, it stays locked, or it is damaged.
    """
    with closing(open_read_only(path, patience_s)) as db:
        try:
            yield db
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # damaged texts are not always UTF-8
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise StoreError(f"the store stayed locked for {patience_s:g} s") from error
            raise StoreError(f"the store is damaged or cannot be read: {error}") from error


def ask(path: Path, *, created_s: int, actor: str, action: str, arguments: Mapping[str, object]) -> int:
    """Insert a command for the gateway that owns the store, running or not; the command's id.

    Raises:
        StoreError: there is no store at ``path``, or it cannot be written.
    """
    if not path.is_file():
        raise StoreError(f"{path}: no store; has the gateway run yet?")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=PATIENCE_S)) as db, db:
            cursor = db.execute(
                "INSERT INTO commands (created_s, actor, action, arguments) VALUES (?, ?, ?, ?)",
                (created_s, actor, action, json.dumps(arguments, sort_keys=True)),
            )
            return int(cursor.lastrowid or 0)
    except sqlite3.Error as error:
        raise StoreError(f"{path}: nothing was asked: {error}") from error
