"""Whether errors fell across sites, so that a minority of sites cannot say otherwise.

Sites vote: each counts by the logarithm of its error after over its error before, whatever windows it claims. From
:data:`ENOUGH` sites on the fifth at either end is cut off and the rest averaged; the interval is Tukey and McLaughlin's
(1963) for a trimmed mean, the winsorised deviation over (1 − 2γ)√n with n − 2g − 1 degrees of freedom, which is
what a jackknife over sites would say. Fewer sites are no sample of anything: then errors are added up and no
interval is given.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Floats = NDArray[np.float64]

ENOUGH = 5
"""Sites below which nothing is said about sites that have not been asked, and no fifth of them can be outvoted."""
TRIMMED = 0.2
"""Share cut off at either end: so many liars move an average by no more than honest sites differ."""
EXTREME = 3.0
"""|log ratio| beyond which a site's vote is the same."""
_STUDENT_95 = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833)
_NORMAL_95 = 1.6448536


class Comparison(BaseModel):
    """Error after over error before, across sites."""

    model_config = ConfigDict(frozen=True)

    sites: int
    """That have windows."""
    ratio: float
    """Below 1: less error after."""
    low: float | None
    high: float | None
    """90 % interval, so that each bound alone is passed by mistake once in twenty; None for few sites."""

    @property
    def bound(self) -> float:
        """What the ratio is at most; for few sites the ratio itself."""
        return self.ratio if self.high is None else self.high


def compare(before: Floats, after: Floats) -> Comparison:
    """Compare errors (n,) site by site; sites whose error before is not positive say nothing."""
    telling = before > 0
    before, after = before[telling], after[telling]
    if len(before) < ENOUGH:
        ratio = float(after.sum() / before.sum()) if len(before) else 1.0
        return Comparison(sites=len(before), ratio=ratio, low=None, high=None)
    mean, error = trimmed_mean(votes(before, after))
    half = student_95(len(before) - 2 * _cut(len(before)) - 1) * float(error)
    return Comparison(
        sites=len(before),
        ratio=math.exp(float(mean)),
        low=math.exp(float(mean) - half),
        high=math.exp(float(mean) + half),
    )


def votes(before: Floats, after: Floats) -> Floats:
    """The bounded logarithm of after over before, elementwise; ``before`` is positive."""
    clipped: Floats = np.clip(np.log(np.maximum(after / before, math.exp(-EXTREME))), -EXTREME, EXTREME)
    return clipped


def trimmed_mean(values: Floats) -> tuple[Floats, Floats]:
    """Trimmed mean and its standard error over the last axis."""
    count = values.shape[-1]
    cut = _cut(count)
    ordered = np.sort(values, axis=-1)
    kept = ordered[..., cut : count - cut]
    winsorised = np.clip(ordered, kept[..., :1], kept[..., -1:])
    error = winsorised.std(axis=-1, ddof=1) * math.sqrt(count) / kept.shape[-1]
    return kept.mean(axis=-1), error


def student_95(degrees: int) -> float:
    """The one-sided 95 % quantile of Student's t (Abramowitz and Stegun 26.7.5 from ten degrees on)."""
    if degrees < 1:
        return math.inf
    if degrees < 10:
        return _STUDENT_95[degrees - 1]
    z, v = _NORMAL_95, degrees
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )


def _cut(count: int) -> int:
    return math.floor(TRIMMED * count + 1e-9)
