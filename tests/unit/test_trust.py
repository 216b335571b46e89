"""A fifth of the gateways may lie: what they send must not spoil what the others run."""

from __future__ import annotations

import numpy as np
import pytest
from server_cases import random_image, shared_truth, sums_of

from benchmarks import poisoning
from benchmarks.attacks import ATTACKS
from server.gate import Gate
from server.panel import Panel
from server.trust import examine, out_of_scale, twins
from shared_models.moments import PHI, TARGETS, Sums
from shared_models.network import quantise_head

TRUTH = shared_truth()
TARGETS_LEARNED = range(1, TARGETS)
GATE = Gate(tolerance=0.02, minimum_gain=0.001)
NO_HEAD = np.zeros((TARGETS, PHI))


def honest(count: int, windows: int = 200) -> dict[str, Sums]:
    """Sites of one truth, and each with a little of its own."""
    sites = {}
    for seed in range(count):
        own = TRUTH.copy()
        own[:, -1] += 0.5 * np.random.default_rng(900 + seed).normal()
        sites[f"site-{seed:02d}"] = sums_of(seed, own, windows)
    return sites


def times(sums: Sums, factor: int) -> Sums:
    return Sums(factor * sums.gram, factor * sums.moment, factor * sums.energy, factor * sums.count)


def flipped(sums: Sums) -> Sums:
    return Sums(sums.gram, -sums.moment, sums.energy, sums.count)


@pytest.mark.parametrize("attack", ATTACKS)
def test_two_liars_among_ten_farms_cost_little_those_who_get_the_release(attack: str) -> None:
    """Farms of the training worlds; the next year decides. The physics runs, so there is a release to spoil."""
    line = poisoning.run("physics", farms=10, liars=0.2, seed=2, attack=attack)
    assert line["released_without_liars"]
    # Who lies by no more than farms differ cannot be told from a farm that differs (docs/security.md).
    assert line["worse_where_released"] <= (0.05 if attack.startswith("a little is enough") else 0.02)
    assert line["worst_farm"] <= 1.02, "and no farm runs what is worse than what it had"


def test_without_liars_caution_costs_little() -> None:
    line = poisoning.run("physics", farms=30, liars=0.0, seed=0, attack="none")
    assert line["released"]
    assert line["set_aside_honest"] <= 6, "a fifth at the most"
    assert line["error"] <= 1.02 * line["heads"]["plain sum"]


def test_the_plain_sum_would_have_been_spoilt() -> None:
    lines = [poisoning.run("physics", 10, 0.2, 2, attack) for attack in ("flipped and scaled", "leverage")]
    for line in lines:
        assert line["heads"]["plain sum"] > 1.2 * line["error_without_liars"]


def test_the_same_sums_under_two_names_are_one_voice() -> None:
    sites = honest(8)
    sites["zz-copy"], sites["zz-thrice"] = sites["site-03"], times(sites["site-03"], 3)
    found = twins(Panel.of(sites))
    names = Panel.of(sites).names
    assert [(names[site], names[other]) for site, other in found] == [
        ("zz-copy", "site-03"),
        ("zz-thrice", "site-03"),
    ]
    image, evidence = GATE.judge(random_image(), sites)
    without, _ = GATE.judge(random_image(), honest(8))
    assert set(evidence.set_aside) == {"zz-copy", "zz-thrice"}
    assert image is not None
    assert without is not None
    assert image.pack() == without.pack()


def test_two_small_farms_that_are_alike_are_not_twins() -> None:
    sites = {f"site-{seed}": sums_of(seed, TRUTH, 40) for seed in range(12)}
    assert twins(Panel.of(sites)) == []


def test_what_no_weather_explains_is_set_aside() -> None:
    sites = honest(10)
    loud = sites["site-00"]
    sites["site-00"] = Sums(loud.gram, 4 * loud.moment, 16 * loud.energy, loud.count)
    panel = Panel.of(sites)
    assert [panel.names[site] for site, _ in out_of_scale(panel)] == ["site-00"]
    assert "times the median" in examine(panel, NO_HEAD, TARGETS_LEARNED).set_aside["site-00"]


def test_a_thousand_times_the_windows_weigh_three_times_the_median() -> None:
    sites = honest(9)
    sites["site-09"] = times(flipped(sums_of(99, TRUTH)), 1000)
    panel = Panel.of(sites).capped(3.0)
    assert panel.count[9, 0] == 3 * 200
    assert panel.gram[9, 0, -1, -1] == panel.count[9, 0]
    assert np.array_equal(panel.gram[:9], Panel.of(sites).gram[:9])


def test_who_makes_the_others_worse_is_set_aside_and_says_so() -> None:
    sites = honest(10)
    sites["site-02"], sites["site-07"] = flipped(sites["site-02"]), flipped(sites["site-07"])
    trust = examine(Panel.of(sites), NO_HEAD, TARGETS_LEARNED)
    assert set(trust.set_aside) == {"site-02", "site-07"}
    assert all("the other sites' squared error" in reason for reason in trust.set_aside.values())


def test_no_more_than_a_fifth_is_set_aside_for_its_influence() -> None:
    sites = {name: sums if index % 2 else flipped(sums) for index, (name, sums) in enumerate(honest(10).items())}
    assert len(examine(Panel.of(sites), NO_HEAD, TARGETS_LEARNED).set_aside) <= 2


def test_few_sites_have_no_fifth() -> None:
    sites = {"a": sums_of(1, TRUTH), "b": sums_of(2, TRUTH), "c": flipped(sums_of(3, TRUTH)), "d": sums_of(4, TRUTH)}
    assert examine(Panel.of(sites), NO_HEAD, TARGETS_LEARNED).set_aside == {}


def test_liars_cannot_veto_for_ever() -> None:
    """They claim that every head hurts them; at most they are held back themselves."""
    running = quantise_head(random_image(), 0.2 * TRUTH)
    sites = honest(10)
    for name in ("site-04", "site-05"):
        sites[name] = flipped(sites[name])
    image, evidence = GATE.judge(running, sites)
    assert image is not None
    assert set(evidence.held_back) <= {"site-04", "site-05"}
    assert {target.decision for target in evidence.targets[1:]} == {"updated"}


def test_sites_without_a_window_are_no_twins_and_do_no_harm() -> None:
    sites = honest(8) | {"empty-1": Sums.zero(), "empty-2": Sums.zero()}
    image, evidence = GATE.judge(random_image(), sites)
    assert image is not None
    assert not {"empty-1", "empty-2"} & set(evidence.set_aside)
