"""The arithmetic both ends share: pooled or federated, in any order, the same bits; and a field's own head."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server_cases import shared_truth, sums_of

from server.panel import Panel
from server.solver import CHOICES
from server.strategy import total_of
from shared_models.moments import PHI, TARGET_CLASS, TARGETS, Snapshot, Sums
from shared_models.ridge import Choice, Subspace, personal, prior_metric, ridge, solve

TRUTH = shared_truth()
PRIOR = np.linspace(-0.02, 0.02, PHI)


def snapshots() -> list[Snapshot]:
    """Of twelve nodes, rounded for the air."""
    exact = [sums_of(seed, TRUTH, windows=60) for seed in range(12)]
    coded = [Snapshot(node.gram, node.moment, node.energy, node.count).encode() for node in exact]
    return [Snapshot.decode(data) for data in coded]


NODES = snapshots()


@settings(max_examples=60)
@given(
    order=st.permutations(range(len(NODES))),
    cuts=st.sets(st.integers(1, len(NODES) - 1), max_size=6),
    choice=st.sampled_from(CHOICES),
    target=st.integers(0, TARGETS - 1),
)
def test_the_federated_head_is_the_pooled_head_bit_for_bit_however_nodes_fall_into_sites_and_replies_into_an_order(
    order: list[int], cuts: set[int], choice: Choice, target: int
) -> None:
    pooled = solve(total_of(NODES), target, PRIOR, choice)
    edges = [0, *sorted(cuts), len(NODES)]
    sites = [total_of(NODES[i] for i in order[a:b]) for a, b in pairwise(edges)]
    assert np.array_equal(solve(total_of(sites), target, PRIOR, choice), pooled)
    panel = Panel.of({f"site-{order[index]}": site for index, site in enumerate(sites)})
    assert np.array_equal(solve(panel.total(), target, PRIOR, choice), pooled)


@pytest.mark.parametrize("subspace", Subspace)
def test_many_heads_at_once_are_the_same_as_one_by_one(subspace: Subspace) -> None:
    choice = Choice(subspace, 100.0)
    for target in range(TARGETS):
        window_class = TARGET_CLASS[target]
        together = ridge(
            np.array([node.gram[window_class] for node in NODES], np.float64),
            np.array([node.moment[target] for node in NODES], np.float64),
            np.array([node.windows(target) for node in NODES], np.float64),
            PRIOR,
            choice,
        )
        for node, row in zip(NODES, together, strict=True):
            assert row == pytest.approx(solve(node, target, PRIOR, choice), rel=1e-9, abs=1e-12)


def test_the_step_minimises_what_it_says() -> None:
    """SSE, the rounding's share and the prior's pull: no other head near has less of their sum."""
    sums, choice = total_of(NODES), Choice(Subspace.FULL, 300.0)
    gram = sums.gram[0].astype(float)
    metric = prior_metric(gram, float(sums.count[0]))
    best = solve(sums, 1, PRIOR, choice)

    def loss(weights: np.ndarray) -> float:
        step = weights - PRIOR
        pull = choice.strength_windows * metric + PHI * 2.0**-11 * np.diag(np.diag(gram))
        return sums.sse(1, weights) + float(step @ pull @ step)

    rng = np.random.default_rng(1)
    for _ in range(50):
        assert loss(best + rng.normal(0, 1e-3, PHI)) > loss(best)


def test_a_field_of_its_own_kind_gets_a_better_head_from_its_own_snapshot() -> None:
    own_truth = TRUTH.copy()
    own_truth[:, -1] += 8.0
    last, this = sums_of(50, own_truth, 200), sums_of(51, own_truth, 200)
    site = total_of([*NODES, last])
    head = np.stack([solve(site, target, PRIOR, Choice(Subspace.FULL, 30.0)) for target in range(TARGETS)])
    own = personal(last, site, head)
    assert np.array_equal(own[0], head[0]), "the row that moves water is not a field's to change"
    for target in range(1, TARGETS):
        assert this.sse(target, own[target]) < 0.9 * this.sse(target, head[target])


def test_a_field_that_has_nothing_to_say_has_its_sites_head() -> None:
    head = np.tile(PRIOR, (TARGETS, 1))
    assert np.array_equal(personal(Sums.zero(), total_of(NODES), head), head)


def test_a_few_windows_move_a_field_but_little() -> None:
    head = np.stack([solve(total_of(NODES), target, PRIOR, Choice(Subspace.FULL, 30.0)) for target in range(TARGETS)])
    site = total_of(NODES)
    little, much = sums_of(60, -TRUTH, 6), sums_of(61, -TRUTH, 600)
    for target in range(1, TARGETS):
        metric = prior_metric(site.gram[TARGET_CLASS[target]].astype(float), site.windows(target))
        steps = [personal(own, site, head)[target] - head[target] for own in (little, much)]
        lengths = [float(step @ metric @ step) for step in steps]
        assert lengths[0] < 0.1 * lengths[1]
