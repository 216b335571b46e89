"""The only door to the stores: opened read-only, with a time limit, and with one way to ask for something.

The gateway's and the server's SQLite files belong to running services. This module never creates, migrates
or locks them for long; what it writes are rows of their ``commands`` tables, which those services carry out.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

BUSY_TIMEOUT_S = 2.0
QUERY_LIMIT_S = 5.0
_INSTRUCTIONS_BETWEEN_CHECKS = 20_000


class StoreUnavailableError(Exception):
    """A store that cannot be read now; the text says why in words for people."""


@dataclass(frozen=True, slots=True)
class CommandStatus:
    """Where something that was asked for stands."""

    state: str
    message: str

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in {"done", "refused", "failed"}


@contextmanager
def reading(store: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection in one transaction, so that everything read belongs together.

    Raises:
        StoreUnavailableError: the store is missing, empty, damaged, of another version, busy or too slow.
    """
    if not store.is_file():
        raise StoreUnavailableError(f"There is no data yet: {store.name} does not exist. Has its service been started?")
    deadline = time.monotonic() + QUERY_LIMIT_S
    try:
        with closing(sqlite3.connect(_uri(store, "ro"), uri=True, timeout=BUSY_TIMEOUT_S)) as connection:
            connection.row_factory = sqlite3.Row
            connection.set_progress_handler(lambda: time.monotonic() > deadline, _INSTRUCTIONS_BETWEEN_CHECKS)
            connection.execute("PRAGMA query_only = 1")
            connection.execute("BEGIN")
            yield connection
    except sqlite3.Error as error:
        raise StoreUnavailableError(_explain(store, error)) from error


def ask(store: Path, *, created_s: int, actor: str, action: str, arguments: Mapping[str, object]) -> int:
    """Insert a command for the service that owns ``store`` and return its id.

    Raises:
        StoreUnavailableError: the command was not stored; nothing will happen.
    """
    if not store.is_file():
        raise StoreUnavailableError(f"Nothing was changed: {store.name} does not exist. Has its service been started?")
    text = json.dumps(arguments, sort_keys=True)
    try:
        with closing(sqlite3.connect(_uri(store, "rw"), uri=True, timeout=BUSY_TIMEOUT_S)) as connection, connection:
            cursor = connection.execute(
                "INSERT INTO commands (created_s, actor, action, arguments) VALUES (?, ?, ?, ?)",
                (created_s, actor[:80], action, text),
            )
            return int(cursor.lastrowid or 0)
    except sqlite3.Error as error:
        raise StoreUnavailableError(f"Nothing was changed. {_explain(store, error)}") from error


def command_status(store: Path, command_id: int) -> CommandStatus:
    """How far a command has come; ``result`` may be JSON with a message (server) or plain words (gateway)."""
    with reading(store) as connection:
        row = connection.execute("SELECT state, result FROM commands WHERE id = ?", (command_id,)).fetchone()
    if row is None:
        raise StoreUnavailableError(f"Command {command_id} is no longer in {store.name}.")
    return CommandStatus(str(row["state"]), message_of(str(row["result"])))


def command_result(store: Path, command_id: int) -> dict[str, object]:
    """All that a finished command of the server answered."""
    with reading(store) as connection:
        row = connection.execute("SELECT result FROM commands WHERE id = ?", (command_id,)).fetchone()
    return {} if row is None else json_object(row["result"])


def message_of(result: str) -> str:
    """The line for people in a command's result."""
    content = json_object(result)
    return str(content.get("message", "")) if content or result.strip() in {"", "{}"} else result


def json_object(text: object) -> dict[str, object]:
    """A JSON column as a dictionary; empty where it is not an object."""
    try:
        value = json.loads(str(text))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def meta(connection: sqlite3.Connection) -> dict[str, str]:
    """The store's facts about itself."""
    rows = connection.execute("SELECT key, value FROM meta LIMIT 100")
    return {str(row["key"]): str(row["value"]) for row in rows}


def meta_int(facts: Mapping[str, str], key: str, default: int = 0) -> int:
    """One whole number among the facts."""
    try:
        return int(facts[key])
    except (KeyError, ValueError):
        return default


def counters(connection: sqlite3.Connection) -> dict[str, int]:
    """What was taken and refused, by name."""
    rows = connection.execute("SELECT name, value FROM counters ORDER BY name LIMIT 500")
    return {str(row["name"]): int(row["value"]) for row in rows}


def _uri(store: Path, mode: str) -> str:
    return f"file:{quote(str(store.absolute()))}?mode={mode}"


def _explain(store: Path, error: sqlite3.Error) -> str:
    text = str(error)
    if "no such table" in text or "no such column" in text or "no such view" in text:
        return f"{store.name} is empty or of another version ({text})."
    if "locked" in text or "busy" in text:
        return f"{store.name} is busy; this page tries again by itself."
    if "interrupted" in text:
        return f"Reading {store.name} took longer than {QUERY_LIMIT_S:.0f} seconds."
    return f"{store.name} cannot be read: {text}."
