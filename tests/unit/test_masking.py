"""Masks cancel exactly or not at all, and nothing wraps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server_cases import shared_truth, sums_of

from shared_models.credibility import IncredibleError, check_sums
from shared_models.masking import (
    ATTEMPT_BYTES,
    MAXIMUM_COHORT,
    WORDS,
    Cohort,
    MaskError,
    Member,
    from_words,
    new_key,
    new_seed,
    pair_masks,
    self_mask,
    to_words,
    unmask,
)
from shared_models.moments import LIMIT, Sums

ATTEMPT = bytes(range(ATTEMPT_BYTES))
SITES = [f"site-{number}" for number in range(9)]
SUMS = sums_of(3, shared_truth())


def keys(count):
    return {site: new_key() for site in SITES[:count]}


def cohort_of(pairs, attempt=ATTEMPT):
    return Cohort.of(7, attempt, [Member(site, public) for site, (_, public) in pairs.items()])


def masked(pairs, cohort, site, words, seed):
    return words + pair_masks(pairs[site][0], site, cohort) + self_mask(seed, cohort)


def anything(draw_seed):
    """Sums of any size that may be added, signs and all."""
    rng = np.random.default_rng(draw_seed)
    zero = Sums.zero()
    parts = [
        rng.integers(-LIMIT + 1, LIMIT, array.shape) for array in (zero.gram, zero.moment, zero.energy, zero.count)
    ]
    return Sums(*parts), int(rng.integers(0, 10_000))


@settings(max_examples=25)
@given(st.integers(3, 9), st.integers(0, 2**32))
def test_the_total_of_a_cohort_is_the_plain_sum_bit_for_bit(count, seed):
    pairs = keys(count)
    cohort = cohort_of(pairs)
    seeds = [new_seed() for _ in pairs]
    parts = [anything(seed + number) for number in range(count)]
    answers = [
        masked(pairs, cohort, site, to_words(*part), own) for site, part, own in zip(pairs, parts, seeds, strict=True)
    ]
    total, contributors = from_words(unmask(answers[::-1], seeds, cohort))
    plain = Sums.zero()
    for part, _ in parts:
        plain = plain.add(part)
    assert total == plain
    assert contributors == sum(number for _, number in parts)


def test_the_largest_sums_of_the_largest_cohort_do_not_wrap():
    assert MAXIMUM_COHORT * LIMIT < 2**63
    largest = Sums(*(np.full(a.shape, LIMIT - 1) for a in (SUMS.gram, SUMS.moment, SUMS.energy, SUMS.count)))
    words = to_words(largest, 1)
    total, _ = from_words(words * np.uint64(MAXIMUM_COHORT))
    assert int(total.gram[0, 0, 0]) == MAXIMUM_COHORT * (LIMIT - 1)
    for value in (LIMIT, -LIMIT, -(2**63)):
        gram = SUMS.gram.copy()
        gram[0, 0, 0] = value
        with pytest.raises(MaskError, match="too large"):
            to_words(replace(SUMS, gram=gram), 1)


def ones(words):
    return sum(int(word).bit_count() for word in words)


def test_one_answer_and_any_total_with_a_mask_left_are_noise():
    pairs = keys(4)
    cohort = cohort_of(pairs)
    seeds = {site: new_seed() for site in pairs}
    answers = {site: masked(pairs, cohort, site, to_words(SUMS, 4), seeds[site]) for site in pairs}
    told = list(seeds.values())
    views = {
        "one answer": answers[SITES[0]],
        "one answer with its seed told": answers[SITES[0]] - self_mask(seeds[SITES[0]], cohort),
        "all answers, one seed missing": unmask(list(answers.values()), told[:-1], cohort),
        "all seeds, one answer missing": unmask(list(answers.values())[:-1], told, cohort),
    }
    bits = 64 * WORDS
    for what, words in views.items():
        assert abs(ones(words) - bits / 2) < 5 * (bits / 4) ** 0.5, what
    assert ones(to_words(SUMS, 4)) < bits / 3, "the test could tell sums from noise"


@pytest.mark.parametrize(
    "lie", ["another attempt", "another key", "one member less", "another noise", "other rules", "another name"]
)
def test_members_shown_different_lists_make_garbage_not_a_total(lie):
    pairs = keys(5)
    honest = cohort_of(pairs)
    members = list(honest.members)
    shown = {
        "another attempt": lambda: cohort_of(pairs, bytes(ATTEMPT_BYTES)),
        "another key": lambda: Cohort.of(7, ATTEMPT, [*members[:-1], Member(members[-1].site, new_key()[1])]),
        "one member less": lambda: Cohort.of(7, ATTEMPT, members[:-1]),
        "another noise": lambda: Cohort.of(7, ATTEMPT, [*members[:-1], replace(members[-1], noise=5)]),
        "other rules": lambda: Cohort.of(7, ATTEMPT, [*members[:-1], replace(members[-1], rules=1)]),
        "another name": lambda: Cohort.of(7, ATTEMPT, [*members[:-1], replace(members[-1], site="x")]),
    }[lie]()
    seeds = {site: new_seed() for site in pairs}
    lists = {site: shown if site == SITES[0] else honest for site in pairs}
    answers = [masked(pairs, lists[site], site, to_words(SUMS, 4), seeds[site]) for site in pairs]
    total = unmask(answers, list(seeds.values()), honest)
    # Even with the right list for the self mask of the one who was lied to, its pair masks stay.
    total = total + self_mask(seeds[SITES[0]], honest) - self_mask(seeds[SITES[0]], shown)
    bits = 64 * WORDS
    assert abs(ones(total) - bits / 2) < 5 * (bits / 4) ** 0.5
    with pytest.raises(IncredibleError):
        check_sums(from_words(total)[0])


def test_a_cohort_that_would_unmask_somebody_is_refused():
    pairs = keys(4)
    members = list(cohort_of(pairs).members)
    with pytest.raises(MaskError, match="3 to 4096 sites, not 2"):
        Cohort.of(7, ATTEMPT, members[:2])
    with pytest.raises(MaskError, match="twice"):
        Cohort.of(7, ATTEMPT, [*members[:2], replace(members[0], public_key=new_key()[1])])
    with pytest.raises(MaskError, match="one key"):
        Cohort.of(7, ATTEMPT, [*members[:2], replace(members[2], public_key=members[0].public_key)])
    small = Cohort.of(7, ATTEMPT, [*members[:2], Member("x", bytes(32))])
    with pytest.raises(MaskError, match="not usable"):
        pair_masks(pairs[SITES[0]][0], SITES[0], small)
    swapped = Cohort.of(7, ATTEMPT, [Member(SITES[0], new_key()[1]), *members[1:]])
    with pytest.raises(MaskError, match="does not hold the key"):
        pair_masks(pairs[SITES[0]][0], SITES[0], swapped)
    for bad in (
        {"site": "../a"},
        {"public_key": b"short"},
        {"noise": -1},
        {"noise": 1 << 63},
        {"rules": 4},
    ):
        with pytest.raises(MaskError):
            Cohort.of(7, ATTEMPT, [*members[:2], replace(members[2], **bad)])
    with pytest.raises(MaskError):
        Cohort.of(7, b"", members)
