"""The tests that run the firmware on the host reach all but little of ``core/``."""

from __future__ import annotations

from benchmarks.coverage import MUST_PERCENT, measure


def test_at_least_95_of_100_lines_of_the_core_are_reached() -> None:
    counted = measure()
    missed = {name: file["lines_missed"] for name, file in counted["files"].items() if file["lines_missed"]}
    assert counted["lines"] > 1500
    assert counted["lines_percent"] >= MUST_PERCENT, missed
