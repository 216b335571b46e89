"""What time it is for a gateway: the system's, or in a demo the conductor's."""

from __future__ import annotations

import time
from typing import Literal

DAY_S = 86_400
DAWN_S = 6 * 3600
"""A day runs from 06:00 local to 06:00 local."""


class Clock:
    """Unix seconds UTC; simulated time never runs backwards and stands still between messages."""

    def __init__(self, kind: Literal["system", "simulated"], start_s: int = 0) -> None:
        self.simulated = kind == "simulated"
        self._latest_s = start_s

    def now_s(self) -> int:
        """The present."""
        return self._latest_s if self.simulated else int(time.time())

    def advance(self, time_s: int) -> None:
        """Simulated time has reached ``time_s`` at the least."""
        self._latest_s = max(self._latest_s, time_s)


def dawn_before(time_s: int, utc_offset_min: int) -> int:
    """When the dawn-to-dawn day of ``time_s`` began, Unix seconds UTC."""
    shift_s = utc_offset_min * 60 - DAWN_S
    return (time_s + shift_s) // DAY_S * DAY_S - shift_s
