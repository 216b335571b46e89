"""When the server asks for a round by itself: at its due time, with enough to learn from, one at a time.

Due times lie on a grid of ``every_hours`` from the epoch (shifted to ``from_hour``), so no delay makes them drift.
What is due is kept in the store and moved on in the transaction that writes the round's command. A server
killed at any point therefore neither skips a due time nor repeats one, and one that was down for a week catches
up with a single round. A round that failed comes due again after a pause that doubles with every failure in a row,
but never later than the next point of the grid.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from server import commands, store
from server.backbones import running_backbone
from server.config import FederationSection, RoundsSection

ACTOR = "schedule"
HOUR_S = 3600
DAY_S = 24 * HOUR_S
SILENT_S = 2 * DAY_S
"""A site not heard of for so long is not counted on; gateways speak every minute."""

DUE = "rounds_due_s"
FAILURES = "rounds_failures"
COMMAND = "rounds_command"
WAITS_FOR = "rounds_wait_for"


@dataclass(frozen=True)
class Participation:
    """What a round held now could count on, as far as heartbeats can tell."""

    sites: int
    """Sites heard of lately that may release their sums."""
    new_windows: int
    """Their dry-down windows that no decided round has seen."""


@dataclass(frozen=True)
class Plan:
    """The schedule as people see it."""

    every_hours: float | None
    due_s: int | None
    """When the next round is due, Unix seconds UTC; None where rounds are only held when asked for."""
    failures: int
    """Scheduled rounds that failed in a row."""
    waits_for: str
    """Why no round has begun although it is due, or when it comes again after a failure; in words."""

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "every_hours": self.every_hours,
            "next_due_s": self.due_s,
            "failures": self.failures,
            "waits_for": self.waits_for,
        }


class Scheduler:
    """Decides, step by step, whether a round is to begin. All it knows is in the store.

    Args:
        connection: The server's store.
        rounds: When rounds are held.
        federation: What a round needs to decide anything.
    """

    def __init__(self, connection: sqlite3.Connection, rounds: RoundsSection, federation: FederationSection) -> None:
        self._connection = connection
        self._rounds = rounds
        self._federation = federation

    def step(self, now_s: int) -> int | None:
        """Account for the scheduled round that has ended, and ask for the one that is due.

        Args:
            now_s: The server's clock.

        Returns:
            The id of the command that asks for the round, where one has become due.
        """
        if self._rounds.every_hours is None:
            return None
        with store.transaction(self._connection):
            self._account(now_s)
            due_s = self._due_s(now_s)
            waits_for = self._obstacle(due_s, now_s)
            command = None
            if waits_for is None:
                command = commands.submit(self._connection, ACTOR, commands.IMPROVE, {}, now_s)
                self._set(COMMAND, str(command))
                due_s, waits_for = self._grid_after(now_s), ""
            self._set(DUE, str(due_s))
            self._set(WAITS_FOR, waits_for)
            return command

    def plan(self) -> Plan:
        """What is written down about the next round."""
        return plan(self._connection, self._rounds)

    def _account(self, now_s: int) -> None:
        """Learn what became of the round asked for last; once."""
        number = self._get(COMMAND)
        if not number:
            return
        row = self._connection.execute("SELECT * FROM commands WHERE id = ?", (int(number),)).fetchone()
        if row is not None and row["state"] in ("pending", "running"):
            return
        self._set(COMMAND, "")
        if row is not None and self._was_useful(row):
            self._set(FAILURES, "0")
            return
        failures = int(self._get(FAILURES) or 0) + 1
        self._set(FAILURES, str(failures))
        self._set(DUE, str(min(self._due_s(now_s), now_s + self._pause_s(failures))))

    def _was_useful(self, row: sqlite3.Row) -> bool:
        """Whether enough sites answered to decide something; a gate that says no has decided."""
        sites = json.loads(row["result"]).get("sites", [])
        return row["state"] == "done" and len(sites) >= self._federation.minimum_sites

    def _pause_s(self, failures: int) -> int:
        """After this many failures in a row, before the next try."""
        return min(round(60 * self._rounds.retry_minutes) << min(failures - 1, 20), self._every_s)

    @property
    def _every_s(self) -> int:
        return max(1, round(HOUR_S * (self._rounds.every_hours or 0)))

    def _due_s(self, now_s: int) -> int:
        """When the next round is due: at once where none ever was, and never beyond the grid's next point.

        The bound also holds after ``every_hours`` was shortened and after a clock that had run ahead was put right.
        """
        known = self._get(DUE)
        return min(int(known), self._grid_after(now_s)) if known else now_s

    def _grid_after(self, now_s: int) -> int:
        start_s = self._rounds.from_hour * HOUR_S
        return start_s + ((now_s - start_s) // self._every_s + 1) * self._every_s

    def _obstacle(self, due_s: int, now_s: int) -> str | None:
        """Why no round begins now, in words; None where one may."""
        failures = int(self._get(FAILURES) or 0)
        if due_s > now_s:
            return f"failed {failures} times in a row; the pause before the next try" if failures else ""
        if not self._in_window(now_s):
            return f"the hours of rounds, {self._rounds.from_hour:02d} to {self._rounds.until_hour:02d} UTC"
        busy = self._connection.execute(
            "SELECT 1 FROM commands WHERE action = ? AND state IN ('pending', 'running')", (commands.IMPROVE,)
        ).fetchone()
        if busy is not None:
            return "the end of the round in progress"
        if self._federation.privacy.masking or self._federation.privacy.accept_noise:
            return None  # Farms that mask or add noise do not tell what they know; a round will.
        found = participation(self._connection, self._federation, now_s)
        if missing := self._federation.too_few(found.sites):
            return f"sites that may release sums: {missing}"
        if found.new_windows < self._rounds.minimum_new_windows:
            return (
                f"dry-down windows no round has seen: {found.new_windows},"
                f" at least {self._rounds.minimum_new_windows} are needed"
            )
        return None

    def _in_window(self, now_s: int) -> bool:
        hour, start, end = now_s // HOUR_S % 24, self._rounds.from_hour, self._rounds.until_hour
        return start <= hour < end if start < end else hour >= start or hour < end

    def _get(self, key: str) -> str | None:
        return store.get_meta(self._connection, key)

    def _set(self, key: str, value: str) -> None:
        if self._get(key) != value:
            store.set_meta(self._connection, key, value)


def plan(connection: sqlite3.Connection, rounds: RoundsSection) -> Plan:
    """The schedule as the running server last wrote it down; reads only."""
    due = store.get_meta(connection, DUE)
    scheduled = rounds.every_hours is not None
    return Plan(
        every_hours=rounds.every_hours,
        due_s=int(due) if due and scheduled else None,
        failures=int(store.get_meta(connection, FAILURES) or 0),
        waits_for=(store.get_meta(connection, WAITS_FOR) or "") if scheduled else "somebody to ask for one",
    )


def participation(connection: sqlite3.Connection, federation: FederationSection, now_s: int) -> Participation:
    """Which sites would answer a round about the backbone that the fleet runs, and with how much that is new.

    New is what a site's heartbeat counts beyond its share in the last decided round about that backbone.
    """
    row = connection.execute(
        """
        WITH decided AS (
            SELECT max(id) AS id FROM rounds
            WHERE state IN ('released', 'refused') AND accepted >= :minimum_sites
              AND backbone_id = :backbone
        )
        SELECT count(*) AS sites,
               coalesce(sum(max(0, k.windows - coalesce(s.windows, 0))), 0) AS new_windows
        FROM knowledge AS k JOIN sites USING (site)
        LEFT JOIN site_sums AS s ON s.site = k.site AND s.round = (SELECT id FROM decided)
        WHERE k.backbone_id = :backbone AND sites.last_status_s > :heard_since
          AND k.contributors >= :minimum_contributors AND k.windows >= :minimum_windows
        """,
        {
            "backbone": running_backbone(connection),
            "minimum_sites": federation.minimum_sites,
            "minimum_contributors": federation.minimum_contributors,
            "minimum_windows": federation.minimum_windows,
            "heard_since": now_s - SILENT_S,
        },
    ).fetchone()
    return Participation(row["sites"], row["new_windows"])
