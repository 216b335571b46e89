"""How much of the air a site's downlinks may take: a budget per hour, held fairly between its nodes.

The gateway's antenna has a duty cycle, and a network server that is asked for more drops what does not fit, or delays
it past the node's receive window. What went out in the last hour and what waits at the network server count. A node
that had to wait goes ahead of those that did not: the last half of the budget is kept for such.
"""

from __future__ import annotations

from gateway.clock import Clock
from gateway.config import DownlinkSection
from gateway.store import Store
from shared_models.airtime import DUTY_WINDOW_S, MAX_PAYLOAD, RX2_DATA_RATE, airtime_s, downlink_budget_s


class Duty:
    """The site's budget; every method runs inside the caller's transaction."""

    def __init__(self, store: Store, clock: Clock, limits: DownlinkSection) -> None:
        self._store = store
        self._clock = clock
        self._limits = limits
        given = limits.airtime_s_per_hour
        self.budget_s = downlink_budget_s(limits.window) if given is None else given

    def airtime_s(self, data_rate: int | None, payload_bytes: int) -> float:
        """What one downlink takes; the slowest where the data rate is unknown."""
        known = self._limits.window == "rx1" and data_rate is not None and data_rate < len(MAX_PAYLOAD)
        return airtime_s(data_rate if known and data_rate is not None else RX2_DATA_RATE, payload_bytes)

    def has_room(self, needed_s: float, *, waited: bool) -> bool:
        """Whether a downlink of an update may be handed to the network server now.

        Args:
            needed_s: Its airtime.
            waited: Its node had to wait before.
        """
        waiting = self._store.one("SELECT count(*) AS n FROM in_flight")
        if waiting is not None and waiting["n"] >= self._limits.queued:
            return False
        used_s = self._used_s()
        if used_s == 0:
            return True  # A budget below one frame would stop every update for good.
        reserved = not waited and self._anyone_waits()
        return used_s + needed_s <= (self.budget_s / 2 if reserved else self.budget_s)

    def _used_s(self) -> float:
        since_s = self._clock.now_s() - DUTY_WINDOW_S
        row = self._store.one(
            """SELECT (SELECT coalesce(sum(airtime_s), 0) FROM airtime WHERE sent_s > ?) +
            (SELECT coalesce(sum(airtime_s), 0) FROM in_flight WHERE queued_s > ?) AS used""",
            (since_s, since_s),
        )
        return 0.0 if row is None else float(row["used"])

    def _anyone_waits(self) -> bool:
        since_s = self._clock.now_s() - DUTY_WINDOW_S
        return self._store.one("SELECT 1 FROM updates WHERE held_s > ? LIMIT 1", (since_s,)) is not None

    def sent(self, taken_s: float) -> None:
        """A downlink went out."""
        now_s = self._clock.now_s()
        self._store.execute("INSERT INTO airtime VALUES (?, ?)", (now_s, taken_s))
        self._store.execute("DELETE FROM airtime WHERE sent_s <= ?", (now_s - DUTY_WINDOW_S,))
        self._store.count("downlink_airtime_ms", round(1000 * taken_s))
