"""The nearest sums that could have been measured, for totals with noise in them.

Noise makes a Gram matrix indefinite and leaves b and Σy² contradicting it. What comes after the noise costs no privacy:
negative eigenvalues are cut off (the nearest positive semidefinite matrix in Frobenius norm, N. Higham 1988), b is
projected onto the range that is left, and Σy² is raised to what Cauchy and Schwarz demand. Cutting off lifts A on
average, so project totals of many sites, never the sites.
"""

from __future__ import annotations

import numpy as np

from shared_models.credibility import MAX_COUNT
from shared_models.moments import CLASSES, PHI, TARGET_CLASS, TARGETS, Sums

FLOOR = 1e-9
"""Eigenvalues below this share of the largest count as none."""


def project(noisy: Sums) -> Sums:
    """Integer sums that are positive semidefinite within rounding, with the counts that their A says."""
    gram = np.zeros((CLASSES, PHI, PHI), np.int64)
    moment = np.zeros((TARGETS, PHI), np.int64)
    energy = np.zeros(TARGETS, np.int64)
    for k in range(CLASSES):
        matrix = noisy.gram[k].astype(np.float64)
        # Scaled so that the constant, thousands of times smaller than a squared activation, is not lost in rounding.
        scale = np.sqrt(np.maximum(np.abs(np.diag(matrix)), 1.0))
        values, vectors = np.linalg.eigh(matrix / np.outer(scale, scale))
        values = np.maximum(values, 0.0)
        kept = values > FLOOR * max(float(values[-1]), FLOOR)
        gram[k] = _rounded((vectors * values) @ vectors.T * np.outer(scale, scale))
        basis = vectors[:, kept]
        for target in (target for target in range(TARGETS) if TARGET_CLASS[target] == k):
            inside = basis.T @ (noisy.moment[target] / scale)
            moment[target] = _rounded(basis @ inside * scale)
            least = float(inside @ (inside / values[kept]))
            energy[target] = _rounded(np.ceil(np.array(max(float(noisy.energy[target]), least, 0.0))))
    count = np.clip(gram[:, -1, -1], 0, MAX_COUNT - 1)
    # Every window of 48 h ends one of 24 h; a larger diagonal leaves a matrix positive semidefinite.
    count[0] = count.max()
    gram[:, -1, -1] = count
    return Sums(gram, moment, energy, count)


def _rounded(values: np.ndarray) -> np.ndarray:
    """Whole numbers; symmetric where ``values`` are, for rounding treats equal numbers equally."""
    whole = np.rint(np.clip(values, -(2.0**62), 2.0**62)).astype(np.int64)
    symmetric: np.ndarray = np.minimum(whole, whole.T)
    return symmetric
