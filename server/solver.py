"""How far the fleet's sums may move a head, chosen by leaving sites out, from sums alone.

The step itself is a ridge toward the running head (:mod:`shared_models.ridge`). Its strength λ and the subspace (only
the constant; the constant and the size of the running row; everything) are those whose heads forecast best at
sites they have not learned from. Noise is not to choose: of all choices that are within a standard error of the best
one, across sites, and keep 98 % of its gain, the one that moves the head least is taken, and none where staying is as
good.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.comparison import ENOUGH, trimmed_mean, votes
from server.panel import Mask, Panel
from shared_models.moments import TARGET_CLASS, Sums
from shared_models.ridge import Choice, Subspace, Weights, ridge

STRENGTHS_WINDOWS = (10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0)
CHOICES = tuple(Choice(subspace, strength) for subspace in Subspace for strength in reversed(STRENGTHS_WINDOWS))
"""From the one that moves a head least to the one that moves it most."""
KEPT_GAIN = 0.98
"""What caution keeps at least of the best choice's gain."""
BLOCKS = 20
"""Sites are left out one by one up to this many, beyond it in as many blocks."""


def blocks(names: Sequence[str]) -> NDArray[np.int64]:
    """Per site the number of the block it is left out with, by a hash of its name; one block each for few sites."""
    order = sorted(range(len(names)), key=lambda site: hashlib.blake2b(names[site].encode(), digest_size=8).digest())
    numbers = np.zeros(len(names), np.int64)
    numbers[order] = np.arange(len(names)) % BLOCKS
    return numbers


def left_out_heads(
    panel: Panel, numbers: NDArray[np.int64], target: int, prior: Weights, choices: Sequence[Choice]
) -> Weights:
    """Heads (choices, blocks, 9) learned from all sites but those of each block."""
    members = numbers[None, :] == np.arange(int(numbers.max(initial=-1)) + 1)[:, None]
    window_class = TARGET_CLASS[target]
    # Sums without a block are exact: integers are subtracted from integers.
    gram, moment, count = panel.gram[:, window_class], panel.moment[:, target], panel.count[:, window_class]
    parts = [
        (
            gram.sum(axis=0) - gram[part].sum(axis=0),
            moment.sum(axis=0) - moment[part].sum(axis=0),
            count.sum() - count[part].sum(),
        )
        for part in members
    ]
    grams, moments, counts = (np.array([part[i] for part in parts], np.float64) for i in range(3))
    return np.stack([ridge(grams, moments, counts, prior, choice) for choice in choices])


def left_out_errors(panel: Panel, target: int, prior: Weights, choices: Sequence[Choice]) -> Weights:
    """Squared error (choices, n) at every site of heads learned without its block."""
    numbers = blocks(panel.names)
    heads = left_out_heads(panel, numbers, target, prior, choices)
    return np.stack([panel.own_error(target, of_choice[numbers]) for of_choice in heads])


def telling(panel: Panel, target: int) -> Mask:
    """Sites with windows of the target's class; the others say nothing."""
    chosen: Mask = panel.windows(target) > 0
    return chosen


def can_choose(panel: Panel, target: int) -> bool:
    """Whether one site with windows of the target's class can be left out and another remains."""
    return int(telling(panel, target).sum()) >= 2


def choose_from(before: Weights, after: Weights) -> int | None:
    """The first choice that is as good as the best; None where staying is at least as good.

    Args:
        before: Errors (n,) of staying.
        after: Errors (choices, n), from the choice that moves least to the one that moves most.
    """
    heard = before > 0
    before, after = before[heard], after[:, heard]
    if len(before) < ENOUGH:
        totals = after.sum(axis=1)
        best = int(totals.argmin()) if totals.size else 0
        return best if totals.size and totals[best] < before.sum() else None
    cast = votes(before, after)
    means, _ = trimmed_mean(cast)
    best = int(means.argmin())
    if means[best] >= 0:
        return None
    behind, error = trimmed_mean(cast - cast[best])
    near = np.flatnonzero((behind <= error) & (means <= KEPT_GAIN * means[best]))
    return int(near[0]) if len(near) else best


def choose(sites: Sequence[Sums] | Panel, target: int, prior: Weights) -> Choice | None:
    """The choice for sums of several sites; None where leaving the prior alone is as good.

    Sites without a window of the target's class say nothing and do not count; two that do are needed.
    """
    panel = sites if isinstance(sites, Panel) else Panel.of({f"{i:06d}": part for i, part in enumerate(sites)})
    panel = panel.where(telling(panel, target))
    if len(panel) < 2:
        return None
    before = panel.error(target, prior)
    index = choose_from(before, left_out_errors(panel, target, prior, CHOICES))
    return None if index is None else CHOICES[index]
