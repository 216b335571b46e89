"""A site starts from its likes where they are alike, and from the fleet where they are not."""

from __future__ import annotations

import numpy as np
import pytest
from server_cases import random_image, shared_truth

from server.gate import Gate
from server.hierarchy import Level, LevelEvidence, alike, heads_of, later
from server.panel import Panel
from shared_models.moments import CLASSES, PHI, TARGETS, Sums
from shared_models.network import quantise_head
from shared_models.ridge import Choice, Subspace

TRUTH = shared_truth()
RUNNING = quantise_head(random_image(), TRUTH)
GATE = Gate(tolerance=0.02, minimum_gain=0.001)


def usual(*, wet: bool) -> np.ndarray:
    """Mean activations of a climate."""
    return np.linspace(30, 130, PHI - 1) if wet else np.linspace(130, 30, PHI - 1)


def site(seed: int, truth: np.ndarray, *, wet: bool, windows: int = 300) -> Sums:
    """A site whose climate shows in its activations."""
    rng = np.random.default_rng(seed)
    base = usual(wet=wet)
    phi = np.clip(np.rint(base + rng.normal(0, 20, (windows, PHI - 1))), 0, 255).astype(np.int64)
    phi = np.concatenate([phi, np.ones((windows, 1), np.int64)], axis=1)
    y = np.clip(np.rint(phi @ truth.T + rng.normal(0, 4, (windows, TARGETS))), -127, 127).astype(np.int64)
    return Sums(np.stack([phi.T @ phi] * CLASSES), y.T @ phi, (y**2).sum(axis=0), np.full(CLASSES, windows, np.int64))


def fleet(group_apart: float, site_apart: float, windows: int = 300, year: int = 0) -> dict[str, Sums]:
    """Twelve sites of two climates: how far apart the climates' slopes and the sites' levels are.

    The slopes turn about each climate's usual activations, so that no single head can follow both.
    """
    sites = {}
    for index in range(12):
        truth = TRUTH.copy()
        wet = bool(index % 2)
        turn = group_apart if wet else -group_apart
        truth[:, :-1] += turn
        truth[:, -1] += site_apart * np.random.default_rng(1000 + index).normal() - turn * usual(wet=wet).sum()
        sites[f"site-{index:02d}"] = site(50 * year + index, truth, wet=wet, windows=windows)
    return sites


def of_level(levels: list[LevelEvidence], level: Level) -> list[LevelEvidence]:
    return [entry for entry in levels if entry.level is level]


def test_sites_fall_into_groups_by_their_activations_in_any_order() -> None:
    sites = fleet(0.0, 0.0)
    label = alike(Panel.of(sites), 2)
    assert len({(index % 2, int(group)) for index, group in enumerate(label)}) == 2
    shuffled = alike(Panel.of(dict(sorted(sites.items(), key=lambda entry: hash(entry[0])))), 2)
    assert np.array_equal(label, shuffled)


def test_likes_buy_something_where_groups_differ() -> None:
    _, evidence = GATE.judge(RUNNING, fleet(0.05, 0.0))
    groups = of_level(evidence.levels, Level.GROUP)
    assert len(groups) == TARGETS
    assert all(entry.groups for entry in groups)
    assert all(entry.against_above.bound < 0.9 for entry in groups)


def test_groups_that_do_not_differ_are_left_alone() -> None:
    _, evidence = GATE.judge(RUNNING, fleet(0.0, 0.0))
    for entry in of_level(evidence.levels, Level.GROUP):
        assert entry.strength_windows is None or entry.against_above.ratio < 1


def test_a_sites_own_head_is_judged_on_what_came_later_only() -> None:
    earlier, since = fleet(0.0, 6.0), fleet(0.0, 6.0, year=1)
    now = {name: earlier[name].add(since[name]) for name in earlier}
    _, evidence = GATE.judge(RUNNING, now, earlier=earlier)
    sites = of_level(evidence.levels, Level.SITE)
    assert sites
    assert all(entry.against_above.bound < 0.95 for entry in sites)
    _, without = GATE.judge(RUNNING, now)
    assert not of_level(without.levels, Level.SITE), "nothing came later, nothing can be said"


def test_a_sites_own_head_is_not_learned_where_sites_do_not_differ() -> None:
    earlier, since = fleet(0.0, 0.0, windows=40), fleet(0.0, 0.0, windows=40, year=1)
    now = {name: earlier[name].add(since[name]) for name in earlier}
    _, evidence = GATE.judge(RUNNING, now, earlier=earlier)
    for entry in of_level(evidence.levels, Level.SITE):
        assert entry.strength_windows is None or entry.against_above.ratio < 1


@pytest.mark.parametrize("change", ["shrunk", "gone", "hardly more"])
def test_sums_that_did_not_grow_are_not_judged(change: str) -> None:
    small, large = site(1, TRUTH, wet=True, windows=50), site(1, TRUTH, wet=True, windows=100)
    now, earlier = {
        "shrunk": ({"a": small}, {"a": large}),
        "gone": ({}, {"a": small}),
        "hardly more": ({"a": large}, {"a": large}),
    }[change]
    assert later(now, earlier) == {}
    assert set(later({"a": large.add(small)}, {"a": small})) == {"a"}


def test_heads_of_all_levels_come_from_everything() -> None:
    panel = Panel.of(fleet(0.05, 0.0))
    choice = Choice(Subspace.FULL, 30.0)
    made = heads_of(panel, 1, TRUTH[1], 2, choice, choice)
    assert made.groups.shape == (2, PHI)
    for index in range(len(panel)):
        sums = Sums(panel.gram[index], panel.moment[index], panel.energy[index], panel.count[index])
        errors = [sums.sse(1, head) for head in (made.fleet, made.groups[made.label[index]], made.sites[index])]
        assert errors == sorted(errors, reverse=True), "closer at each level"
