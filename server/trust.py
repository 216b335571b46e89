"""Whose sums a head is learned from: a plausible lie must not steer the fleet.

Each site's sums have been found possible (:func:`server.strategy.check_sums`). Whether they are *true* nobody can see;
but a lie has to fit among the others or be outweighed by them:

* **Twins.** The same sums per window under two names are one voice: the first name keeps it.
* **Scale.** Residuals or activations per window beyond several times the median site's are no weather.
* **Weight.** A site's windows count at most as a multiple of the median site's (:meth:`Panel.capped`).
* **Influence.** With a head learned from all, and one learned from all but one site, every other site has a smaller or
  a larger error. A site whose presence makes the others' forecasts worse (trimmed mean over them) is set aside,
  worst first, up to a fifth of all. The threshold is what all those together may cost at most: :data:`COST`.

What is set aside neither teaches nor votes, in this round; nothing is remembered. Fewer than five sites have no
fifth: then only twins and scale are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from server.comparison import ENOUGH, TRIMMED, trimmed_mean, votes
from server.panel import Mask, Panel
from server.solver import blocks
from shared_models.moments import PHI, TARGET_CLASS
from shared_models.ridge import Choice, Subspace, Weights, ridge

COST = 0.01
"""Share by which the sites that could be liars may worsen the others' squared error together."""
INFLUENCE = Choice(Subspace.FULL, 100.0)
"""How freely the heads move whose errors are compared."""
TWIN = 0.01
"""Relative distance of two sites' sums per window below which they are one."""
MOST_TIMES = 8.0
"""Over the median site's squared residual or activation per window."""
STEPS = 8
"""Rounds of influence in which the allowance is used up."""


@dataclass(frozen=True)
class Trust:
    """Who teaches and votes."""

    trusted: Mask
    """(n,), in the panel's order."""
    set_aside: dict[str, str]
    """Why, by site."""


def examine(panel: Panel, prior: Weights, targets: Sequence[int]) -> Trust:
    """Look for sites that should not teach.

    Args:
        panel: All sites, windows capped.
        prior: The running head (4, 9).
        targets: Those a head is learned for.
    """
    trusted = np.ones(len(panel), np.bool_)
    reasons: dict[str, str] = {}

    def set_aside(site: int, reason: str) -> None:
        trusted[site] = False
        reasons[panel.names[site]] = reason

    for site, other in twins(panel):
        set_aside(site, f"the same sums per window as {panel.names[other]}")
    for site, what in out_of_scale(panel):
        if trusted[site]:
            set_aside(site, what)
    allowance = math.floor(TRIMMED * len(panel) + 1e-9) - len(reasons)
    if trusted.sum() >= ENOUGH:
        for site, harm in harmful(panel, prior, targets, trusted, allowance):
            set_aside(site, f"with it the other sites' squared error is {harm:.2%} larger")
    return Trust(trusted, dict(sorted(reasons.items())))


def twins(panel: Panel) -> list[tuple[int, int]]:
    """Sites whose sums per window are another's, with that other."""
    marks = _marks(panel)
    lengths = np.sqrt((marks**2).sum(axis=1))
    found = []
    kept: list[int] = []
    for site in range(len(panel)):
        if not panel.count[site, 0]:
            continue
        distances = np.sqrt(((marks[kept] - marks[site]) ** 2).sum(axis=1))
        near = np.flatnonzero(distances <= TWIN * lengths[site])
        if len(near):
            found.append((site, kept[int(near[0])]))
        else:
            kept.append(site)
    return found


def _marks(panel: Panel) -> Weights:
    """Sums per window, each entry relative to the fleet's size of it, (n, …)."""
    count = np.maximum(panel.count, 1).astype(np.float64)
    classes = np.array(TARGET_CLASS)
    gram = panel.gram / count[:, :, None, None]
    moment = panel.moment / count[:, classes, None]
    energy = panel.energy / count[:, classes]
    phi = np.sqrt(np.maximum(np.median(np.diagonal(gram, axis1=2, axis2=3), axis=0), 1.0))
    rms = np.sqrt(np.maximum(np.median(energy, axis=0), 1.0))
    gram = gram / (phi[:, :, None] * phi[:, None, :])
    moment = moment / (phi[classes] * rms[:, None])
    energy = energy / rms**2
    n = len(panel)
    return np.concatenate([gram.reshape(n, -1), moment.reshape(n, -1), energy.reshape(n, -1)], axis=1)


def out_of_scale(panel: Panel) -> list[tuple[int, str]]:
    """Sites whose residuals or activations per window are beyond what sites differ by."""
    if len(panel) < ENOUGH:
        return []
    count = np.maximum(panel.count, 1).astype(np.float64)
    residual = (panel.energy / count[:, np.array(TARGET_CLASS)]).max(axis=1)
    activation = np.trace(panel.gram[:, :, : PHI - 1, : PHI - 1], axis1=2, axis2=3) / count
    found = []
    for values, what in ((residual, "squared residual"), (activation.max(axis=1), "squared activation")):
        middle = float(np.median(values))
        found += [
            (int(site), f"its {what} per window is {values[site] / max(middle, 1e-9):.0f} times the median site's")
            for site in np.flatnonzero(values > MOST_TIMES * middle)
        ]
    return found


def harmful(
    panel: Panel, prior: Weights, targets: Sequence[int], trusted: Mask, allowance: int
) -> list[tuple[int, float]]:
    """At most ``allowance`` sites whose presence worsens the others, with by how much, worst first."""
    least = COST / (TRIMMED * len(panel))
    present = trusted.copy()
    found: list[tuple[int, float]] = []
    step = max(1, math.ceil(allowance / STEPS))
    while len(found) < allowance and present.sum() > ENOUGH:
        harm = np.where(present, influence(panel, prior, targets, present), -np.inf)
        worst = [int(site) for site in np.argsort(-harm, kind="stable")[: min(step, allowance - len(found))]]
        worst = [site for site in worst if harm[site] > least]
        if not worst:
            break
        for site in worst:
            present[site] = False
            found.append((site, float(harm[site])))
    return found


def influence(panel: Panel, prior: Weights, targets: Sequence[int], present: Mask) -> Weights:
    """By how much each site's presence changes the others' log error, the worst over targets, (n,)."""
    worst = np.full(len(panel), -np.inf)
    for target in targets:
        window_class = TARGET_CLASS[target]
        heard = present & (panel.windows(target) > 0)
        if heard.sum() <= 2:
            continue
        part = panel.where(heard)
        numbers = blocks(part.names)
        change = np.empty((len(part), len(part)))
        tiny = 1e-9 * np.maximum(part.windows(target), 1)
        for block in np.unique(numbers):
            judges = numbers == block
            total = part.total(~judges)
            left = part.where(~judges)
            gram, moment, count = total.gram[window_class], total.moment[target], total.count[window_class]
            with_all = ridge(gram.astype(float), moment.astype(float), float(count), prior[target], INFLUENCE)
            without = ridge(
                (gram - left.gram[:, window_class]).astype(float),
                (moment - left.moment[:, target]).astype(float),
                (count - left.windows(target)).astype(float),
                prior[target],
                INFLUENCE,
            )
            judging = part.where(judges)
            here = np.maximum(judging.error(target, with_all), tiny[judges])
            change[np.ix_(~judges, judges)] = votes(np.maximum(judging.error(target, without), tiny[judges]), here)
            change[np.ix_(judges, judges)] = np.nan
        mean = np.array([float(trimmed_mean(row[np.isfinite(row)])[0]) for row in change])
        worst[heard] = np.maximum(worst[heard], mean)
    return worst
