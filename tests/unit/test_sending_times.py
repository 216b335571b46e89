"""A campaign sends when its assignment says, and at no other time."""

from __future__ import annotations

import datetime as dt

import pytest

from gateway.sending_times import as_row, may_send
from shared_models.messages import Assignment, SendingHours

DAY = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)


def hours_of(**schedule: object) -> list[int]:
    """The hours of two days in which such an assignment may send."""
    message = Assignment(
        campaign=1, sequence=1, action="run", version=2, model_id=3, artefacts=[], devices=[], **schedule
    )
    names = ("not_before_s", "not_after_s", "from_hour", "until_hour")
    row = dict(zip(names, as_row(message), strict=True))
    times = (int((DAY + dt.timedelta(hours=hour)).timestamp()) for hour in range(48))
    return [hour for hour, time_s in enumerate(times) if may_send(row, time_s)]


@pytest.mark.parametrize(
    ("schedule", "hours"),
    [
        ({}, list(range(48))),
        ({"not_before": DAY + dt.timedelta(hours=40)}, list(range(40, 48))),
        ({"not_after": DAY + dt.timedelta(hours=3)}, [0, 1, 2]),
        ({"hours": SendingHours(start=2, end=4)}, [2, 3, 26, 27]),
        ({"hours": SendingHours(start=22, end=2)}, [0, 1, 22, 23, 24, 25, 46, 47]),
        ({"hours": SendingHours(start=23, end=24)}, [23, 47]),
        ({"hours": SendingHours(start=2, end=4), "not_before": DAY + dt.timedelta(hours=3)}, [3, 26, 27]),
    ],
)
def test_hours_span_midnight_and_all_limits_hold_together(schedule: dict[str, object], hours: list[int]) -> None:
    assert hours_of(**schedule) == hours
