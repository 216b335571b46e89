"""Heads in closed form: right, shrunk, and never worse for lack of data."""

from __future__ import annotations

import numpy as np
import pytest
from server_cases import shared_truth, sums_of

from server.panel import Panel
from server.solver import CHOICES, choose, left_out_errors
from server.strategy import total_of
from shared_models.moments import PHI, TARGETS, Sums
from shared_models.ridge import Choice, Subspace, solve

TRUTH = shared_truth()
PRIOR = np.zeros(PHI)


def test_much_data_and_little_prior_find_the_truth() -> None:
    sums = sums_of(1, TRUTH, windows=20_000)
    for target in range(TARGETS):
        weights = solve(sums, target, PRIOR, Choice(Subspace.FULL, 10.0))
        assert sums.sse(target, weights) < 1.05 * sums.sse(target, TRUTH[target])


def test_a_strong_prior_stays_where_it_is() -> None:
    sums = sums_of(2, TRUTH, windows=50)
    prior = np.linspace(-0.02, 0.02, PHI)
    moved = np.abs(solve(sums, 0, prior, Choice(Subspace.FULL, 1e9)) - prior)
    free = np.abs(solve(sums, 0, prior, Choice(Subspace.FULL, 1.0)) - prior)
    assert moved.max() < 1e-4 * free.max()


def test_the_fit_improves_monotonically_as_the_prior_weakens() -> None:
    sums = sums_of(3, TRUTH)
    errors = [sums.sse(1, solve(sums, 1, PRIOR, Choice(Subspace.FULL, strength))) for strength in (1e4, 1e3, 1e2, 10)]
    assert errors == sorted(errors, reverse=True)


def test_the_level_subspace_moves_only_the_constant() -> None:
    sums = sums_of(4, TRUTH)
    prior = np.linspace(0.0, 0.02, PHI)
    weights = solve(sums, 2, prior, Choice(Subspace.LEVEL, 10.0))
    assert np.array_equal(weights[:-1], prior[:-1])
    assert weights[-1] != prior[-1]


def test_the_scale_subspace_keeps_the_direction_of_the_prior() -> None:
    sums = sums_of(4, 3 * TRUTH, windows=3000)
    weights = solve(sums, 1, TRUTH[1], Choice(Subspace.SCALE, 10.0))
    factors = weights[:-1] / TRUTH[1][:-1]
    assert factors == pytest.approx(np.full(PHI - 1, factors[0]))
    assert factors[0] == pytest.approx(3, rel=0.1)
    level = solve(sums, 1, PRIOR, Choice(Subspace.LEVEL, 10.0))
    assert np.array_equal(solve(sums, 1, PRIOR, Choice(Subspace.SCALE, 10.0)), level), "nothing to scale"


def test_no_data_leaves_the_prior() -> None:
    prior = np.linspace(-1, 1, PHI)
    for choice in CHOICES:
        assert np.array_equal(solve(Sums.zero(), 0, prior, choice), prior)


def test_an_activation_nobody_excited_keeps_its_weight() -> None:
    sums = sums_of(5, TRUTH)
    gram, moment = sums.gram.copy(), sums.moment.copy()
    gram[:, 3, :] = gram[:, :, 3] = 0
    moment[:, 3] = 0
    prior = np.full(PHI, 0.01)
    weights = solve(Sums(gram, moment, sums.energy, sums.count), 0, prior, Choice(Subspace.FULL, 10.0))
    assert weights[3] == pytest.approx(0.01)
    assert np.isfinite(weights).all()


def test_sums_rounded_to_slightly_indefinite_still_solve() -> None:
    sums = sums_of(6, TRUTH)
    scale = np.sqrt(np.diag(sums.gram[0]))
    unit = sums.gram[0] / np.outer(scale, scale)
    values, vectors = np.linalg.eigh(unit)
    unit += np.outer(vectors[:, 0], vectors[:, 0]) * (-0.05 - values[0])
    gram = sums.gram.copy()
    gram[0] = np.rint((unit + unit.T) / 2 * np.outer(scale, scale))
    assert np.linalg.eigvalsh(gram[0].astype(float))[0] < 0
    weights = solve(Sums(gram, sums.moment, sums.energy, sums.count), 0, PRIOR, Choice(Subspace.FULL, 10.0))
    assert np.isfinite(weights).all()
    assert np.abs(weights).max() < 10


def test_leaving_out_really_leaves_out() -> None:
    sites = [sums_of(seed, TRUTH) for seed in (10, 11, 12)]
    choice = Choice(Subspace.FULL, 30.0)
    by_hand = sum(
        held_out.sse(0, solve(total_of([site for site in sites if site is not held_out]), 0, PRIOR, choice))
        for held_out in sites
    )
    panel = Panel.of({f"site-{index}": site for index, site in enumerate(sites)})
    assert left_out_errors(panel, 0, PRIOR, [choice]).sum() == pytest.approx(by_hand)


def test_a_shared_truth_is_chosen_and_noise_is_not() -> None:
    sites = [sums_of(seed, TRUTH) for seed in (20, 21, 22)]
    assert choose(sites, 0, PRIOR) is not None
    opposite = [sums_of(30, TRUTH), sums_of(31, -TRUTH)]
    assert choose(opposite, 0, PRIOR) is None


def test_one_telling_site_is_not_enough() -> None:
    assert choose([sums_of(40, TRUTH), Sums.zero()], 0, PRIOR) is None


def test_the_sum_does_not_depend_on_the_order() -> None:
    sites = [sums_of(seed, TRUTH) for seed in range(5)]
    assert total_of(sites) == total_of(reversed(sites))
