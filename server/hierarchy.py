"""Heads for those who are alike, and for single sites: each a ridge toward the head of the level above.

    running head → fleet → group → site (→ field, on the farm: :func:`shared_models.ridge.personal`)

With Gaussian residuals and heads that scatter around their parent's, each step is the posterior mean given the parent,
so the chain is empirical Bayes with λ = σ²/τ², the one number that must be learned. It is chosen for each level by
what forecasts best at sites left out (:func:`server.solver.choose_from`, which prefers the parent where the gain is
within noise), and a site's own figures never choose for it.

* **Groups** are sites with similar mean activations, the only thing about climate, crop and soil that a reply says:
  no farm has to tell more. Labels come from no residual, so a site that never taught anything has one too.
* **A site's** own head cannot be judged on the sums it was learned from. It is learned from what the site had sent
  in an earlier round and judged on what came since: statistics are cumulative, so the difference is later windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from server.comparison import ENOUGH, Comparison, compare
from server.panel import Mask, Panel
from server.solver import STRENGTHS_WINDOWS, blocks, choose_from, telling
from shared_models.moments import CLASSES, PHI, TARGET_CLASS, TARGET_NAMES, Sums
from shared_models.ridge import Choice, Subspace, Weights, prior_metric, ridge

GROUPS = (2, 3, 4)
SMALLEST_GROUP = 3
"""Sites; fewer alike have no likes, and keep the fleet's head."""
LATER_WINDOWS = 10
"""Of a class that must have come since an earlier round, on average over a site's classes, to judge by."""
ITERATIONS = 50
STEPS = tuple(Choice(Subspace.FULL, strength) for strength in reversed(STRENGTHS_WINDOWS))


class Level(StrEnum):
    """Whose head."""

    FLEET = "fleet"
    GROUP = "group"
    SITE = "site"


class LevelEvidence(BaseModel):
    """What a level's heads are worth at sites, or in windows, they have not learned from."""

    model_config = ConfigDict(frozen=True)

    target: str
    level: Level
    groups: int | None = None
    """How many groups the sites fall into; None for the other levels."""
    strength_windows: float | None
    """What the level above weighs; None where its head is kept as it is."""
    against_running: Comparison
    against_above: Comparison
    """The level above; the running release for the fleet's."""


@dataclass(frozen=True)
class Heads:
    """One target's heads at every level."""

    fleet: Weights
    """(9,)."""
    label: NDArray[np.int64]
    """(n,): each site's group."""
    groups: Weights
    """(groups, 9)."""
    sites: Weights
    """(n, 9)."""


def alike(panel: Panel, groups: int) -> NDArray[np.int64]:
    """Groups of sites by their mean activations: k-means from the most distant sites, the same in any order.

    Activations are compared by how much they differ between sites.
    """
    means = panel.gram[:, 0, : PHI - 1, -1] / np.maximum(panel.count[:, :1], 1)
    spread = means.std(axis=0)
    points = (means - means.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    chosen = [int((points**2).sum(axis=1).argmin())]
    for _ in range(1, groups):
        distances = ((points[:, None] - points[chosen]) ** 2).sum(axis=2).min(axis=1)
        chosen.append(int(distances.argmax()))
    centres = points[chosen]
    label = np.zeros(len(panel), np.int64)
    for _ in range(ITERATIONS):
        label = ((points[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
        moved = np.stack([points[label == g].mean(axis=0) if (label == g).any() else centres[g] for g in range(groups)])
        if np.array_equal(moved, centres):
            break
        centres = moved
    return label


def step(sums: Sums, target: int, prior: Weights, choice: Choice | None, metric: Weights | None = None) -> Weights:
    """One level down: the head of ``sums``, or the parent's where nothing was chosen or nobody speaks."""
    window_class = TARGET_CLASS[target]
    windows = int(sums.count[window_class])
    if choice is None or windows == 0:
        return prior
    gram, moment = sums.gram[window_class].astype(np.float64), sums.moment[target].astype(np.float64)
    return ridge(gram, moment, float(windows), prior, choice, metric)


def later(now: Mapping[str, Sums], earlier: Mapping[str, Sums]) -> dict[str, Sums]:
    """What each site's nodes have summed since; sites whose sums shrank or hardly grew are left out."""
    grown = {}
    for site, before in earlier.items():
        if site not in now:
            continue
        difference = now[site].subtract(before)
        enough = int(difference.count.sum()) >= LATER_WINDOWS * CLASSES
        if enough and (difference.count >= 0).all() and (difference.energy >= 0).all():
            grown[site] = difference
    return grown


def group_evidence(
    panel: Panel, target: int, running: Weights, folds: Weights
) -> tuple[LevelEvidence, Weights, int | None, Choice | None]:
    """What groups are worth, and every site's group head learned without its block.

    Args:
        panel: Sites that teach.
        target: Row.
        running: The running head's row, (9,).
        folds: The fleet's head without each site's block, (n, 9).

    Returns:
        The evidence, heads (n, 9), and the number of groups and the strength that were chosen, None for no groups.
    """
    parent = panel.own_error(target, folds)
    best: tuple[float, int, Choice, Weights] | None = None
    for groups in GROUPS:
        if len(panel) < groups * SMALLEST_GROUP or len(panel) < ENOUGH:
            break
        heads = _group_heads(panel, target, alike(panel, groups), folds)
        errors = np.stack([panel.own_error(target, of_choice) for of_choice in heads])
        index = _confirmed(parent, errors)
        if index is not None:
            ratio = compare(parent, errors[index]).ratio
            if best is None or ratio < best[0]:
                best = (ratio, groups, STEPS[index], _without_own_vote(parent, errors, heads, folds))
    heads = folds if best is None else best[3]
    error = panel.own_error(target, heads)
    evidence = LevelEvidence(
        target=TARGET_NAMES[target],
        level=Level.GROUP,
        groups=None if best is None else best[1],
        strength_windows=None if best is None else best[2].strength_windows,
        against_running=compare(panel.error(target, running), error),
        against_above=compare(parent, error),
    )
    return evidence, heads, None if best is None else best[1], None if best is None else best[2]


def site_evidence(
    panel: Panel, earlier: Mapping[str, Sums], target: int, running: Weights, parents: Weights
) -> tuple[LevelEvidence | None, Choice | None]:
    """What a site's own head is worth in windows that came after those it was learned from.

    Args:
        panel: Sites that teach.
        earlier: What they had sent in an earlier round.
        target: Row.
        running: The running head's row, (9,).
        parents: The head of the level above, learned without the site's block, (n, 9).
    """
    grown = later({name: _site(panel, i) for i, name in enumerate(panel.names)}, earlier)
    judged = np.array([name in grown for name in panel.names], np.bool_)
    if not judged.any():
        return None, None
    then, since = Panel.of({site: earlier[site] for site in grown}), Panel.of(grown)
    above = parents[judged]
    metric = metric_of(panel, target)
    heads = np.stack(
        [
            np.stack(
                [step(_site(then, i), target, prior, choice, metric) for i, prior in enumerate(above)],
            )
            for choice in STEPS
        ]
    )
    errors = np.stack([since.own_error(target, of_choice) for of_choice in heads])
    parent = since.own_error(target, above)
    index = _confirmed(parent, errors)
    chosen = _without_own_vote(parent, errors, heads, above)
    error = since.own_error(target, chosen)
    evidence = LevelEvidence(
        target=TARGET_NAMES[target],
        level=Level.SITE,
        strength_windows=None if index is None else STEPS[index].strength_windows,
        against_running=compare(since.error(target, running), error),
        against_above=compare(parent, error),
    )
    return evidence, None if index is None else STEPS[index]


def heads_of(
    panel: Panel, target: int, fleet: Weights, groups: int | None, of_group: Choice | None, of_site: Choice | None
) -> Heads:
    """One target's heads at all levels, learned from everything."""
    label = alike(panel, groups) if groups else np.zeros(len(panel), np.int64)
    made = np.stack(
        [step(panel.total(label == g), target, fleet, of_group) if groups else fleet for g in range(groups or 1)]
    )
    metric = metric_of(panel, target)
    sites = [step(_site(panel, i), target, made[label[i]], of_site, metric) for i in range(len(panel))]
    return Heads(fleet, label, made, np.stack(sites) if sites else np.zeros((0, PHI)))


def _group_heads(panel: Panel, target: int, label: NDArray[np.int64], folds: Weights) -> Weights:
    """(choices, n, 9): each site's group head toward the fleet's, both without the site's block."""
    numbers = blocks(panel.names)
    heads = np.repeat(folds[None], len(STEPS), axis=0)
    for group in range(int(label.max()) + 1):
        members = label == group
        if members.sum() < SMALLEST_GROUP:
            continue
        for block in np.unique(numbers[members]):
            judged = members & (numbers == block)
            teaching = panel.total(members & (numbers != block))
            prior = folds[np.flatnonzero(judged)[0]]
            for index, choice in enumerate(STEPS):
                heads[index, judged] = step(teaching, target, prior, choice)
    return heads


def _confirmed(parent: Weights, errors: Weights) -> int | None:
    """The choice that sites agree on; None where its interval does not exclude that the parent's head is as good."""
    index = choose_from(parent, errors)
    return index if index is not None and compare(parent, errors[index]).bound < 1 else None


def _without_own_vote(parent: Weights, errors: Weights, heads: Weights, above: Weights) -> Weights:
    """Every site's head by the choice of all the other sites, (n, 9)."""
    chosen = above.copy()
    for site in range(len(parent)):
        others: Mask = np.arange(len(parent)) != site
        index = _confirmed(parent[others], errors[:, others])
        if index is not None:
            chosen[site] = heads[index, site]
    return chosen


def metric_of(panel: Panel, target: int) -> Weights:
    """What a change of a target's weights means to all of these sites."""
    total, window_class = panel.total(), TARGET_CLASS[target]
    return prior_metric(total.gram[window_class].astype(np.float64), float(total.count[window_class]))


def _site(panel: Panel, index: int) -> Sums:
    return Sums(panel.gram[index], panel.moment[index], panel.energy[index], panel.count[index])


__all__ = [
    "Heads",
    "Level",
    "LevelEvidence",
    "alike",
    "group_evidence",
    "heads_of",
    "later",
    "site_evidence",
    "step",
    "telling",
]
