"""Cohorts keep their members, because sums are cumulative and two totals tell their difference."""

import random
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from server.cohorts import plan
from shared_models.masking import Rule

ALL = [f"s{number}" for number in range(12)]


def test_new_sites_are_put_together_at_random_and_nobody_is_left_over():
    groupings = set()
    for seed in range(5):
        made = plan({}, dict.fromkeys(ALL[:11], 0), 3, random.Random(seed))
        assert sorted(len(sites) for sites in made.cohorts.values()) == [3, 4, 4]
        assert frozenset().union(*made.cohorts.values()) == set(ALL[:11])
        assert not made.waiting
        groupings.add(frozenset(made.cohorts.values()))
    assert len(groupings) > 1


def test_a_cohort_that_had_a_total_waits_for_its_members():
    known = {"cohort 1": frozenset("abcd"), "cohort 2": frozenset("efg")}
    made = plan(known, dict.fromkeys("abcefgxy", 0), 3)
    assert made.cohorts == {"cohort 2": frozenset("efg")}
    assert set(made.waiting) == set("abcxy")
    assert made.waiting["a"] == "cohort 1 waits for d: without it the total would tell its sums"
    assert made.waiting["x"] == "2 sites with the same rules wait for a cohort of 3"


def test_a_cohort_goes_on_without_one_where_all_others_accept_that():
    known = {"cohort 1": frozenset("abcd")}
    lenient = int(Rule.ACCEPTS_CHANGES)
    assert plan(known, dict.fromkeys("abc", lenient), 3).cohorts == {"cohort 1": frozenset("abc")}
    assert plan(known, dict.fromkeys("ab", lenient) | {"c": 0}, 3).cohorts == {}
    assert plan(known, dict.fromkeys("ab", lenient), 3).cohorts == {}


def test_new_sites_are_put_together_with_others_of_the_same_rules():
    made = plan({}, dict.fromkeys("abc", 0) | dict.fromkeys("defg", 1) | dict.fromkeys("hi", 3), 3)
    assert set(made.cohorts.values()) == {frozenset("abc"), frozenset("defg")}
    assert set(made.waiting) == set("hi")


def test_new_cohorts_get_names_of_their_own():
    made = plan({"cohort 7": frozenset("abc")}, dict.fromkeys("abcdefg", 0), 3)
    assert set(made.cohorts) == {"cohort 7", "cohort 8"}


@settings(max_examples=60)
@given(st.integers(3, 12), st.lists(st.sets(st.integers(0, 11)), min_size=1, max_size=8), st.integers(0, 99))
def test_no_history_of_totals_tells_the_sums_of_one_or_two_sites(size, presence, seed):
    known, totals = {}, set()
    for number, here in enumerate(presence):
        made = plan(known, {ALL[index]: 0 for index in here}, min(size, 4), random.Random(seed + number))
        known = known | dict(made.cohorts)
        totals |= set(made.cohorts.values())
    matrix = np.array([[site in total for site in ALL] for total in sorted(totals, key=sorted)], float)
    if not len(matrix):
        return
    rank = np.linalg.matrix_rank(matrix)
    for count in (1, 2):
        for few in combinations(range(len(ALL)), count):
            # A combination of totals about these sites alone exists iff leaving them out lowers the rank.
            assert np.linalg.matrix_rank(np.delete(matrix, few, axis=1)) == rank
