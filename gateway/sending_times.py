"""When a campaign may send: not before, not after, and in which hours of the day, as its assignment says."""

from __future__ import annotations

import sqlite3

from gateway.clock import DAY_S
from shared_models.messages import Assignment

HOUR_S = 3600


def as_row(assignment: Assignment) -> tuple[int | None, int | None, int | None, int | None]:
    """The last four columns of ``assignments``; None where nothing is said."""
    before, after, hours = assignment.not_before, assignment.not_after, assignment.hours
    return (
        None if before is None else int(before.timestamp()),
        None if after is None else int(after.timestamp()),
        None if hours is None else hours.start,
        None if hours is None else hours.end,
    )


def may_send(row: sqlite3.Row, now_s: int) -> bool:
    """Whether something may be sent now for the campaign in ``row``."""
    if row["not_before_s"] is not None and now_s < row["not_before_s"]:
        return False
    if row["not_after_s"] is not None and now_s >= row["not_after_s"]:
        return False
    if row["from_hour"] is None:
        return True
    begin_s, end_s, time_s = int(row["from_hour"]) * HOUR_S, int(row["until_hour"]) * HOUR_S, now_s % DAY_S
    return begin_s <= time_s < end_s if begin_s < end_s else time_s >= begin_s or time_s < end_s
