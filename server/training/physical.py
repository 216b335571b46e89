"""The backbone that training starts from: eight quantities that tell how a soil goes on drying, made by hand.

A backbone learned from two simulators alone knows those two: heads solved on its units elsewhere made .89 to 1.01 of
the dry-rate average's error on seen fields of the judge, heads on these units .82 to .90 (``docs/research.md``). They
need no more than ReLUs of the features:

* the dry-rate average, for it overshoots and goes back to the mean;
* by how much yesterday's fall of both probes was above it, and below it: drying slows, or has just begun;
* the fall of the shallow probe, from which the crop takes first, and its rise, of the deep one, which is drainage;
* the fall of the deep one over three days, slow and so with little noise;
* the ETc average, the demand;
* water above the shallow probe's upper limit, which drains without a crop.

Training may go on from there, and what it finds is kept where it serves the *other* simulator: see
:func:`error_abroad`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from server.training import heads
from server.training.network import INPUT_SCALE, FloatNetwork, to_image
from server.training.samples import Samples, sums
from shared_models.features import FEATURES
from shared_models.moments import TARGETS, UPTAKE
from shared_models.network import ACTIVATIONS, HIDDEN, INPUTS

_PLACE = {feature.name: place for place, feature in enumerate(FEATURES)}
_ZERO_STEPS = 128
"""What lifts a signed feature above ReLU's zero."""
_UPPER_LIMIT_STEPS = -48
"""The shallow deficit's step at no deficit: (0 − 384) / 2³."""
_STRONGEST = 127 / 32
"""The largest weight, so that int8 per tensor holds 1 and 2 exactly."""
_CEILING_STEPS = 255
"""An activation's steps."""

_FIRST: tuple[tuple[Mapping[str, float], float], ...] = (
    ({"dry rate": 1}, _ZERO_STEPS),
    ({"shallow fall in 1 d": 1, "deep fall in 1 d": 1}, 0),
    ({"shallow fall in 1 d": 2}, 0),
    ({"deep fall in 1 d": -2}, 0),
    ({"deep fall in 3 d": 1}, _ZERO_STEPS),
    ({"ETc average": 1}, _ZERO_STEPS),
    ({"shallow deficit": -_STRONGEST}, _STRONGEST * _UPPER_LIMIT_STEPS),
)
"""Units of the first layer: weights on features in steps, and a constant. The second is both probes' mean in 1e-4."""
_SECOND: tuple[Mapping[int, float], ...] = (
    {0: 1},
    {0: 1, 1: -1},
    {0: -1, 1: 1},
    {2: 1},
    {3: 1},
    {4: 1},
    {5: 1},
    {6: 1},
)
"""Units of the second layer: weights on those of the first."""


def physical_start() -> FloatNetwork:
    """The backbone above under a zero head, one step of a unit being one step of its feature."""
    first, second = np.zeros((INPUTS, HIDDEN), np.float32), np.zeros((HIDDEN, ACTIVATIONS), np.float32)
    offsets = np.zeros(HIDDEN, np.float32)
    for unit, (weights, offset) in enumerate(_FIRST):
        for name, weight in weights.items():
            first[_PLACE[name], unit] = weight
        offsets[unit] = offset * INPUT_SCALE
    for unit, sources in enumerate(_SECOND):
        for source, weight in sources.items():
            second[source, unit] = weight
    ceiling = _CEILING_STEPS * INPUT_SCALE
    return FloatNetwork(
        kernels=(first, second, np.zeros((ACTIVATIONS, TARGETS), np.float32)),
        biases=(offsets, np.zeros(ACTIVATIONS, np.float32), np.zeros(TARGETS, np.float32)),
        ceilings=(ceiling, ceiling),
    )


def with_spare_units(start: FloatNetwork, seed: int) -> FloatNetwork:
    """``start`` with weights drawn for the units of its first layer that it does not use, so that they can learn.

    Nothing comes of them before training gives them a say in the second layer.
    """
    rng = np.random.default_rng([0x7370, seed])
    first = start.kernels[0].copy()
    spare = ~start.kernels[1].any(axis=1)
    first[:, spare] = rng.normal(0, np.sqrt(2 / INPUTS), (INPUTS, int(spare.sum())))
    return replace(start, kernels=(first, *start.kernels[1:]))


def error_abroad(network: FloatNetwork, learn: Samples, judge: Samples) -> float:
    """Squared error over the physics' of heads on this backbone in a world that it has not seen; mean over forecasts.

    As in a fleet, which runs one backbone everywhere and solves for heads where it stands. Uptake does not count: its
    label is mostly the probes' own error, easily foretold, and would let a backbone pass that forecasts worse.

    Args:
        network: the backbone; its own head does not count.
        learn: windows of that world to solve for heads from.
        judge: windows of other fields there.
    """
    image = to_image(network)
    solved = heads.solve(sums(learn, image), heads.population_gram(sums(learn, image)))
    exam = sums(judge, image)
    ratios = [
        exam.sse(target, solved[target]) / float(exam.energy[target])
        for target in range(TARGETS)
        if target != UPTAKE and exam.energy[target]
    ]
    return float(np.mean(ratios)) if ratios else 1.0
