"""A campaign sends when its assignment says, and at no other time."""

from __future__ import annotations

import pytest

from gateway.assignments import may_send

DAY_S = 20_000 * 86_400
HOUR_S = 3600


def hours_of(**limits: int) -> list[int]:
    """The full hours of two days at which such an assignment may send."""
    row = dict.fromkeys(("not_before_s", "not_after_s", "hour_start", "hour_end")) | limits
    return [hour for hour in range(48) if may_send(row, DAY_S + hour * HOUR_S)]


@pytest.mark.parametrize(
    ("limits", "hours"),
    [
        ({}, list(range(48))),
        ({"not_before_s": DAY_S + 40 * HOUR_S}, list(range(40, 48))),
        ({"not_after_s": DAY_S + 3 * HOUR_S - 1}, [0, 1, 2]),
        ({"hour_start": 2, "hour_end": 4}, [2, 3, 26, 27]),
        ({"hour_start": 22, "hour_end": 2}, [0, 1, 22, 23, 24, 25, 46, 47]),
        ({"hour_start": 23, "hour_end": 24}, [23, 47]),
        ({"hour_start": 2, "hour_end": 4, "not_before_s": DAY_S + 3 * HOUR_S}, [3, 26, 27]),
    ],
)
def test_hours_span_midnight_and_all_limits_hold_together(limits: dict[str, int], hours: list[int]) -> None:
    assert hours_of(**limits) == hours
