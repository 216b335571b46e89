"""Every finished run, kept under what determines it: an interrupted evaluation goes on, a repeated one is at once done.

A run's key is a hash of everything that its result depends on, the sources of judge and controllers among it. When
something of that changes, the key does, and the old row is simply never found again.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    key TEXT PRIMARY KEY,
    described TEXT NOT NULL,  -- the JSON that was hashed, for people
    result TEXT NOT NULL,     -- JSON, one object per season
    state BLOB,               -- the node's record at the end
    snapshot BLOB             -- its statistics, as they go on the air
) STRICT, WITHOUT ROWID;
"""


class LedgerError(RuntimeError):
    """A file that is no ledger of ours; the text says what to do."""


@contextmanager
def ledger(path: Path, *, fresh: bool = False) -> Iterator[sqlite3.Connection]:
    """The store of finished runs.

    Args:
        path: the SQLite file; its folder is made.
        fresh: begin with an empty one.

    Raises:
        LedgerError: the file is something else, or of another version.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if fresh:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            found = connection.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise LedgerError(f"{path} is not a ledger of runs ({error}); remove it or use --fresh") from error
        if found not in (0, SCHEMA_VERSION):
            raise LedgerError(f"{path} is of version {found}; use --fresh to begin anew")
        connection.execute(_SCHEMA)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        yield connection
    finally:
        connection.close()


def key_of(determinants: Mapping[str, Any]) -> tuple[str, str]:
    """Key and description of a run."""
    described = json.dumps(determinants, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(described.encode(), digest_size=16).hexdigest(), described


@cache
def sources(*paths: str) -> str:
    """Digest of source files and folders (Python, C and data), relative to the repository's root."""
    hashed = hashlib.blake2b(digest_size=8)
    for path in _files(paths):
        hashed.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return hashed.hexdigest()


def _files(paths: Iterable[str]) -> Iterator[Path]:
    for name in paths:
        path = ROOT / name
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (each for each in found if each.is_file() and "__pycache__" not in each.parts)


@cache
def judge() -> str:
    """Digest of the world that judges: the field, its climates, and AquaCrop."""
    return f"{sources('nodes/field', 'nodes/scenario.py')}/{version('aquacrop')}"


@cache
def core() -> str:
    """Name of the library that the node's core was built into, which holds its digest; builds it.

    Raises:
        nodes.firmware.host.build.HostBuildError: it cannot be built.
    """
    from nodes.firmware.host.build import build

    return f"{build().stem}/{sources('nodes/hostcore.py', 'shared_models/settings.py')}"
