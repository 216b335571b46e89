"""Which Noria made something: its version, and a hash of the code that learns, judges, signs and sends."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

import server
import shared_models

_PARTS = {"server": server, "shared_models": shared_models}
_SUFFIXES = {".py", ".sql"}


@cache
def code_version() -> dict[str, str]:
    """Of the installed distribution ``version``, and ``hash``: BLAKE2b-256 over the source files, path by path."""
    whole = hashlib.blake2b(digest_size=32)
    for name, part in _PARTS.items():
        root = Path(next(iter(part.__path__)))
        for path in sorted(path for path in root.rglob("*") if path.suffix in _SUFFIXES):
            content = path.read_bytes()
            whole.update(f"{name}/{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return {"version": metadata.version("noria"), "hash": whole.hexdigest()}
