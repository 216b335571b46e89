"""What training learns from: the very numbers a node's statistics would sum, kept window by window."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shared_models.moments import CLASSES, PHI, TARGET_CLASS, TARGETS, Sums
from shared_models.network import INPUTS, ModelImage


@dataclass(frozen=True)
class Samples:
    """Windows of many field-seasons.

    A row is one dawn that opened at least one dry-down window; ``targets`` are residuals in the head's output
    steps and count only where ``mask`` says so.
    """

    features: npt.NDArray[np.int8]
    """(n, 24)."""
    targets: npt.NDArray[np.int16]
    """(n, 4)."""
    mask: npt.NDArray[np.bool_]
    """(n, 4)."""
    season: npt.NDArray[np.int32]
    """(n,): the seed of the case."""
    world: npt.NDArray[np.int8]
    """(n,): index into :data:`server.worlds.field.WORLDS`."""

    def __len__(self) -> int:
        return len(self.features)

    def where(self, chosen: npt.NDArray[np.bool_]) -> Samples:
        """The chosen rows."""
        return Samples(
            self.features[chosen], self.targets[chosen], self.mask[chosen], self.season[chosen], self.world[chosen]
        )

    def energy(self) -> npt.NDArray[np.float64]:
        """Mean squared residual of the physics per target, in output steps squared (4,)."""
        squared = self.targets.astype(np.float64) ** 2 * self.mask
        mean: npt.NDArray[np.float64] = squared.sum(axis=0) / np.maximum(self.mask.sum(axis=0), 1)
        return mean


def empty() -> Samples:
    """No windows."""
    return Samples(
        np.zeros((0, INPUTS), np.int8),
        np.zeros((0, TARGETS), np.int16),
        np.zeros((0, TARGETS), np.bool_),
        np.zeros(0, np.int32),
        np.zeros(0, np.int8),
    )


def concatenate(parts: Iterable[Samples]) -> Samples:
    """All rows of all parts, in their order."""
    collected = [empty(), *parts]
    return Samples(
        np.concatenate([part.features for part in collected]),
        np.concatenate([part.targets for part in collected]),
        np.concatenate([part.mask for part in collected]),
        np.concatenate([part.season for part in collected]),
        np.concatenate([part.world for part in collected]),
    )


def sums(samples: Samples, image: ModelImage) -> Sums:
    """The statistics nodes with this backbone would have sent for these windows, before block coding."""
    activations, _ = image.forward(samples.features)
    phi = image.moments_input(activations)
    targets = samples.targets.astype(np.int64)
    gram = np.zeros((CLASSES, PHI, PHI), np.int64)
    moment = np.zeros((TARGETS, PHI), np.int64)
    energy = np.zeros(TARGETS, np.int64)
    count = np.zeros(CLASSES, np.int64)
    for target, window_class in enumerate(TARGET_CLASS):
        chosen = samples.mask[:, target]
        rows, values = phi[chosen], targets[chosen, target]
        moment[target] = rows.T @ values
        energy[target] = values @ values
        gram[window_class] = rows.T @ rows
        count[window_class] = len(rows)
    return Sums(gram, moment, energy, count)


def per_season(samples: Samples, image: ModelImage) -> list[Sums]:
    """:func:`sums` of each field-season, in order of its seed."""
    return [sums(samples.where(samples.season == season), image) for season in np.unique(samples.season)]


def total(parts: Sequence[Sums]) -> Sums:
    """The sum of sums."""
    result = Sums.zero()
    for part in parts:
        result = result.add(part)
    return result
