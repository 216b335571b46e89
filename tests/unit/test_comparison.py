"""Sites vote on a head; a fifth of them cannot turn the vote, and few of them are no sample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.comparison import ENOUGH, compare, student_95


@pytest.mark.parametrize(
    ("degrees", "value"), [(2, 2.919986), (5, 2.015048), (10, 1.812461), (30, 1.697261), (200, 1.652508)]
)
def test_students_quantile_is_that_of_the_tables(degrees: int, value: float) -> None:
    assert student_95(degrees) == pytest.approx(value, abs=5e-4)


def test_few_sites_are_added_up_and_get_no_interval() -> None:
    seen = compare(np.array([100.0, 10.0]), np.array([90.0, 12.0]))
    assert (seen.ratio, seen.low, seen.high) == (pytest.approx(102 / 110), None, None)
    assert seen.bound == seen.ratio


def test_no_sites_say_that_nothing_changes() -> None:
    assert compare(np.zeros(3), np.zeros(3)).ratio == 1.0


@given(
    honest=st.lists(st.floats(-0.05, 0.05), min_size=8, max_size=40),
    lie=st.floats(-50, 50),
)
def test_a_fifth_of_liars_moves_the_vote_no_further_than_honest_sites_lie(honest: list[float], lie: float) -> None:
    liars = len(honest) // 4
    after = np.exp(np.array([*honest, *[lie] * liars]))
    seen = compare(np.ones(len(after)), after)
    assert np.exp(min(honest)) - 1e-9 <= seen.ratio <= np.exp(max(honest)) + 1e-9


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    for sites in (ENOUGH, 12, 60):
        votes = rng.normal(-0.02, 0.03, (1500, sites))
        outside = [
            (seen.low > np.exp(-0.02), seen.high < np.exp(-0.02))
            for seen in (compare(np.ones(sites), np.exp(row)) for row in votes)
        ]
        assert np.mean(outside, axis=0) == pytest.approx([0.05, 0.05], abs=0.025)


def test_how_many_windows_a_site_claims_gives_it_no_more_votes() -> None:
    before = np.array([1.0, 1.0, 1.0, 1.0, 1e9])
    assert compare(before, before * np.array([0.9, 0.9, 0.9, 0.9, 3.0])).ratio == pytest.approx(0.9)
