"""Sums that some set of windows can have produced, whatever the weather; all others are refused.

A server asks this of every reply, and a gateway of its own sums before it hides them under masks, because nobody can
ask it of them afterwards.
"""

from __future__ import annotations

import numpy as np

from shared_models.moments import PHI, ROUNDING, TARGET_CLASS, TARGET_LIMITS, TARGET_NAMES, Sums

MAX_COUNT = 1 << 31
"""Windows of a class at one site: some 200,000 nodes for 20 years."""
MAX_PHI = 255


class IncredibleError(ValueError):
    """Sums that nothing can have measured; the text says why."""


def check_sums(sums: Sums) -> None:
    """Refuse numbers that no set of windows can have produced.

    Raises:
        IncredibleError: naming the property that does not hold.
    """
    if not np.array_equal(sums.gram, sums.gram.transpose(0, 2, 1)):
        raise IncredibleError("gram is not symmetric")
    if np.any(sums.count < 0) or np.any(sums.count >= MAX_COUNT) or np.any(sums.count[1:] > sums.count[0]):
        raise IncredibleError(f"impossible counts {sums.count.tolist()}")
    if not np.array_equal(sums.gram[:, -1, -1], sums.count):
        raise IncredibleError("the constant's sum is not the count")
    if np.any(sums.gram < 0) or np.any(sums.energy < 0):
        raise IncredibleError("a sum of squares or of non-negative activations is negative")
    # Rounding of the codes may lift a sum by 1.6 % of itself, small ones by one per window.
    room = 1.02 * sums.count + 1
    classes = np.array(TARGET_CLASS)
    if np.any(np.diagonal(sums.gram, axis1=1, axis2=2) > room[:, None] * MAX_PHI**2):
        raise IncredibleError("activations are too large for the count")
    if np.any(sums.energy > room[classes] * (np.array(TARGET_LIMITS) + 1) ** 2):
        raise IncredibleError("residuals are too large for the count")
    for target, name in enumerate(TARGET_NAMES):
        _check_consistency(sums, target, name)


def _check_consistency(sums: Sums, target: int, name: str) -> None:
    """Refuse second moments of (φ, y) that are not positive semidefinite within the rounding of the snapshots."""
    joint = np.empty((PHI + 1, PHI + 1))
    joint[:PHI, :PHI] = sums.gram[TARGET_CLASS[target]]
    joint[PHI, :PHI] = joint[:PHI, PHI] = sums.moment[target]
    joint[PHI, PHI] = sums.energy[target]
    diagonal = np.diag(joint)
    scale = 1 / np.sqrt(np.maximum(diagonal, 1.0))
    unit = joint * np.outer(scale, scale)
    smallest = float(np.linalg.eigvalsh(unit)[0])
    if not smallest >= -ROUNDING[TARGET_CLASS[target]]:
        raise IncredibleError(f"sums of {name} contradict one another (eigenvalue {smallest:.3g})")
