"""Refusing bad input: one clear log line, one counter, and on with the next."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class Refused(ValueError):  # noqa: N818 - a verdict, not a fault of ours
    """Input that is not taken. ``reason`` names its counter, the text says what was wrong."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class RefusalLog:
    """At most one line a minute for each reason, so that a flood of bad input cannot fill the disk."""

    def __init__(self, interval_s: float = 60.0, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._monotonic = monotonic
        self._quiet_until: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def write(self, refused: Refused, topic: str) -> None:
        """Log one refusal, or remember that it went unsaid. Reasons are a fixed, small set."""
        now = self._monotonic()
        if now < self._quiet_until.get(refused.reason, 0.0):
            self._unsaid[refused.reason] = self._unsaid.get(refused.reason, 0) + 1
            return
        self._quiet_until[refused.reason] = now + self._interval_s
        unsaid = self._unsaid.pop(refused.reason, 0)
        more = f" ({unsaid} more since the last line)" if unsaid else ""
        log.warning("refused %s on %.120r: %.200s%s", refused.reason, topic, refused, more)
