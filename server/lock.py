"""A lock between processes that the kernel lets go of when its holder ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

POLL_S = 0.02


class LockedError(RuntimeError):
    """Another process holds the lock."""


@contextlib.contextmanager
def hold(path: Path, patience_s: float) -> Iterator[None]:
    """Hold the lock ``path`` while the context lasts.

    Args:
        path: A file made for nothing else.
        patience_s: How long to wait for it.

    Raises:
        LockedError: it is held for longer than that.
    """
    deadline = time.monotonic() + patience_s
    with path.open("a", encoding="ascii") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LockedError(f"{path.name} is held by another process") from None
                time.sleep(POLL_S)
        yield


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock now; looking takes it for a moment, so a holder needs some patience."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
