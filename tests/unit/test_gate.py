"""The gate lets nothing through that did not prove itself where it had not learned."""

from __future__ import annotations

import numpy as np
import pytest
from server_cases import random_image, shared_truth, sums_of

from server.gate import PHYSICS_WATERS, Decision, Gate
from shared_models.moments import TARGETS, Sums
from shared_models.network import head_weights, quantise_head

GATE = Gate(tolerance=0.02, minimum_gain=0.001)
TRUTH = shared_truth()


def test_a_truth_all_sites_share_is_released() -> None:
    running = random_image()
    sites = {f"site-{seed}": sums_of(seed, TRUTH) for seed in range(3)}
    image, evidence = GATE.judge(running, sites)
    assert image is not None
    assert evidence.verdict == "passed"
    assert {target.decision for target in evidence.targets[1:]} == {Decision.UPDATED}
    assert image.backbone_bytes == running.backbone_bytes
    for target in evidence.targets[1:]:
        assert target.total.candidate < target.total.running
        assert target.total.candidate < target.total.physics


def test_the_row_that_moves_water_stays_zero_where_no_closed_loop_spoke_for_it() -> None:
    sites = {f"site-{seed}": sums_of(seed, TRUTH) for seed in range(3)}
    image, evidence = GATE.judge(random_image(), sites)
    assert image is not None
    assert not head_weights(image)[0].any()
    assert evidence.targets[0].decision is Decision.KEPT
    assert evidence.targets[0].reason == PHYSICS_WATERS
    image, evidence = GATE.judge(quantise_head(random_image(), np.full((TARGETS, 9), 0.01)), sites)
    assert image is not None
    assert evidence.targets[0].decision is Decision.UPDATED


def test_the_figures_are_those_of_the_quantised_head_at_the_site_left_out() -> None:
    sites = {"a": sums_of(1, TRUTH), "b": sums_of(2, TRUTH)}
    _, evidence = GATE.judge(random_image(), sites)
    for index, target in enumerate(evidence.targets):
        assert target.sites["a"].physics == sites["a"].energy[index]
        assert target.sites["a"].running == sites["a"].energy[index], "the factory head here is the physics"
        assert target.total.candidate == pytest.approx(sum(site.candidate for site in target.sites.values()))


def test_sites_that_contradict_each_other_release_nothing() -> None:
    image, evidence = GATE.judge(random_image(), {"a": sums_of(1, TRUTH), "b": sums_of(2, -TRUTH)})
    assert image is None
    assert evidence.verdict == "refused"
    assert evidence.reason == "no target passed"
    assert {target.decision for target in evidence.targets} == {Decision.KEPT}


def test_a_gain_at_two_sites_does_not_buy_harm_at_a_third() -> None:
    sites = {"a": sums_of(1, TRUTH, 3000), "b": sums_of(2, TRUTH, 3000), "c": sums_of(3, -TRUTH, 60)}
    image, evidence = GATE.judge(random_image(), sites)
    for target in evidence.targets:
        if target.decision is Decision.UPDATED:
            assert all(site.candidate <= 1.02 * site.running for site in target.sites.values())
        else:
            reasons = ("hurts c", "no update", "no better", PHYSICS_WATERS)
            assert any(reason in target.reason for reason in reasons)
    assert image is None or all(target.decision is not Decision.KEPT or target.reason for target in evidence.targets)


def test_only_the_target_that_passes_changes() -> None:
    running = quantise_head(random_image(), np.full((TARGETS, 9), 0.01))
    one = head_weights(running).copy()
    one[1] = TRUTH[1]
    other = one.copy()
    other[1] = TRUTH[1]
    sites = {f"site-{seed}": sums_of(seed, one, 2000) for seed in range(3)}
    image, evidence = GATE.judge(running, sites)
    assert image is not None
    assert evidence.targets[1].decision is Decision.UPDATED
    kept = [index for index, target in enumerate(evidence.targets) if target.decision is Decision.KEPT]
    assert kept
    for index in kept:
        before, after = head_weights(running)[index], head_weights(image)[index]
        assert all(site.sse(index, after) <= 1.02 * site.sse(index, before) for site in sites.values())


def test_a_running_row_worse_than_the_physics_goes_back_to_the_physics() -> None:
    bad = np.zeros((TARGETS, 9))
    bad[0] = 0.2
    running = quantise_head(random_image(), bad)
    rng_truth = np.zeros((TARGETS, 9))
    # Where residuals are noise, the best head is none.
    sites = {"a": sums_of(1, rng_truth, 200), "b": sums_of(2, rng_truth, 200)}
    image, evidence = GATE.judge(running, sites)
    assert image is not None
    assert evidence.targets[0].decision in (Decision.ZEROED, Decision.UPDATED)
    after = head_weights(image)[0]
    assert sum(site.sse(0, after) for site in sites.values()) < 1.05 * sum(site.energy[0] for site in sites.values())


def test_a_candidate_that_quantises_to_the_running_release_is_not_released() -> None:
    running = quantise_head(random_image(), TRUTH)
    sites = {f"site-{seed}": sums_of(seed, head_weights(running), 400, noise=0.0) for seed in range(3)}
    image, evidence = GATE.judge(running, sites)
    assert image is None or image.head_bytes != running.head_bytes
    assert evidence.verdict == ("passed" if image else "refused")


def test_sites_without_windows_do_no_harm() -> None:
    image, evidence = GATE.judge(random_image(), {"a": sums_of(1, TRUTH), "b": sums_of(2, TRUTH), "c": Sums.zero()})
    assert image is not None
    assert evidence.targets[0].sites["c"].candidate == 0


def test_the_judgement_does_not_depend_on_the_order_of_sites() -> None:
    sites = {name: sums_of(seed, TRUTH) for seed, name in enumerate("abc")}
    image, evidence = GATE.judge(random_image(), sites)
    again, evidence_again = GATE.judge(random_image(), dict(reversed(sites.items())))
    assert image is not None
    assert again is not None
    assert image.pack() == again.pack()
    assert evidence == evidence_again


def test_absurd_sums_refuse_rather_than_fail() -> None:
    """A head no int8 row can hold falls back to the running release."""
    sums = sums_of(1, TRUTH)
    wild = Sums(sums.gram, sums.moment * 100_000, sums.energy, sums.count)
    image, evidence = GATE.judge(random_image(), {"a": wild, "b": wild})
    assert evidence.verdict in ("passed", "refused")
    assert image is None or evidence.verdict == "passed"
