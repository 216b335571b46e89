"""What the fleet's sums say about its windows, and how certain that is.

A moment is a mean over the windows of one class: of an activation, of its square, of a label, of its square. Sites
are drawn from farms there might be, so a moment is as certain as sites agree on it: the variance of a ratio of sums
over clusters (Cochran 1977, eq. 6.13). Noise on the sums makes groups of sites disagree, and so is in it. Cohorts and
noisy groups count as one site, for nothing else of them is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared_models.moments import CLASSES, PARTS, PHI, TARGET_CLASS, Sums

Floats = NDArray[np.float64]
LEAST_SITES = 2
"""One site's sums do not say how far another's are from them."""


@dataclass(frozen=True, eq=False)
class Moment:
    """Means over the windows of one class."""

    window_class: int
    unit: int | None
    """Which activation; None for a label."""
    target: int | None
    """Which target's label; None for an activation."""
    squared: bool
    mean: float
    variance: float
    """Of the mean, from how much sites differ."""


def moments_of(sites: Sequence[Sums], targets: Sequence[int]) -> list[Moment]:
    """Every moment that the sums hold and weights of windows can follow.

    Args:
        sites: Sums by site; classes without a window are left out.
        targets: Those whose labels count.

    Raises:
        ValueError: fewer than :data:`LEAST_SITES`.
    """
    if len(sites) < LEAST_SITES:
        raise ValueError(f"{len(sites)} sites say nothing about how sites differ; {LEAST_SITES} are needed")
    counts = np.array([site.count for site in sites], np.float64)
    found = []
    for window_class in range(CLASSES):
        if counts[:, window_class].sum() <= 0:
            continue
        for unit in range(PHI - 1):
            for squared in (False, True):
                sums = [site.gram[window_class, unit, unit if squared else PHI - 1] for site in sites]
                found.append(Moment(window_class, unit, None, squared, *_ratio(sums, counts[:, window_class])))
    for target in targets:
        of_class = counts[:, TARGET_CLASS[target]]
        if of_class.sum() <= 0:
            continue
        for squared in (False, True):
            sums = [site.energy[target] if squared else site.moment[target, PHI - 1] for site in sites]
            found.append(Moment(TARGET_CLASS[target], None, target, squared, *_ratio(sums, of_class)))
    return found


def digest(sites: Mapping[str, Sums]) -> str:
    """BLAKE2b-256 over the names and sums of sites, hex: what a refresh learned from, without telling it."""
    hashed = hashlib.blake2b(digest_size=32)
    for name in sorted(sites):
        hashed.update(name.encode() + b"\0")
        for part, _ in PARTS:
            hashed.update(np.ascontiguousarray(getattr(sites[name], part)).astype("<i8").tobytes())
    return hashed.hexdigest()


def _ratio(sums: Sequence[np.int64], counts: Floats) -> tuple[float, float]:
    """Σs/Σn and its variance over sites."""
    values = np.array(sums, np.float64)
    mean = float(values.sum() / counts.sum())
    off = values - mean * counts
    sites = len(values)
    return mean, float((off @ off) / counts.sum() ** 2 * sites / (sites - 1))
