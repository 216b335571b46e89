"""What simulated windows can teach a fleet that has a head already.

A simulator has an opinion of its own about the head; the fleet's sums have settled that question in the field. So the
simulated labels are moved onto the running head: y' = y + (w_fleet − w_simulator)·φ, w_simulator being the head that
fits this simulator's weighted windows best. Now the running head is the best there is on the running units, in every
simulator, and what is left to explain is what no head on these units can say. That, and nothing else, is what a
refresh learns, and what its gate judges: a simulator's level or size of residual cannot pass for a better backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.refresh.grid import Floats, Grid, Integers, split
from server.training.samples import Samples

FIT = 1e-4
"""Ridge of a simulator's own head, of the diagonal: units that hardly fire have none."""


@dataclass(frozen=True, eq=False)
class Lessons:
    """Windows of one simulator under the fleet's weights."""

    world: int
    features: Floats
    """(n, 24)."""
    labels: Floats
    """(n, T), moved onto the running head."""
    weights: Floats
    """(n, T), adding up to 1 in each target."""
    season: NDArray[np.int32]
    """Which field a window belongs to."""
    running: Floats
    """Mean squared error of the running model (T,)."""
    physics: Floats
    """Of a zero head (T,)."""

    def sums(self, phi: Floats) -> tuple[Floats, Floats]:
        """Mean φφᵀ (T, 9, 9) and φy (T, 9)."""
        grams = np.stack([(phi * column[:, None]).T @ phi for column in self.weights.T])
        return grams, np.einsum("nt,ni->ti", self.weights * self.labels, phi)

    def errors(self, phi: Floats, heads: Floats) -> Floats:
        """Mean squared errors of heads (T, 9), (T,)."""
        off = self.labels - phi @ heads.T
        result: Floats = (self.weights * off**2).sum(axis=0)
        return result


def lessons_of(samples: Samples, weights: Floats, grid: Grid, targets: Sequence[int], world: int) -> Lessons:
    """From one simulator's windows and their weights (n,).

    Raises:
        ValueError: a target has no window.
    """
    features = samples.features.astype(np.float64)
    phi, heads = grid.phi(grid.numbers, features), grid.head_rows(grid.numbers)[list(targets)]
    labels = samples.targets[:, list(targets)].astype(np.float64)
    columns = samples.mask[:, list(targets)] * weights[:, None]
    if not (columns.sum(axis=0) > 0).all():
        raise ValueError("simulated fields have no window of some target")
    columns = columns / columns.sum(axis=0)
    for place in range(len(targets)):
        gram = (phi * columns[:, place, None]).T @ phi
        own = np.linalg.solve(
            gram + FIT * np.diag(np.maximum(np.diag(gram), 1e-9)), phi.T @ (columns[:, place] * labels[:, place])
        )
        labels[:, place] += phi @ (heads[place] - own)
    off = labels - phi @ heads.T
    return Lessons(
        world,
        features,
        labels,
        columns,
        samples.season,
        running=(columns * off**2).sum(axis=0),
        physics=(columns * labels**2).sum(axis=0),
    )


@dataclass(frozen=True, eq=False)
class Objective:
    """What a row of numbers is worth, over simulators."""

    grid: Grid
    parts: Sequence[Lessons]
    targets: Sequence[int]

    def solve(self, numbers: Integers) -> tuple[Floats, float]:
        """The head that suits a row's backbone, and the error with it; units that did not change keep their weights.

        Returns:
            Heads (4, 9), and the squared error over the running model's: mean over targets, worst over simulators.
        """
        units = self.changed_units(numbers)
        if not units:
            return self.grid.head_rows(self.grid.numbers), self.error(self.grid.numbers)
        changed = [*units, -1]
        phis = [self.grid.phi(numbers, part.features) for part in self.parts]
        sums = [part.sums(phi) for part, phi in zip(self.parts, phis, strict=True)]
        heads = self.grid.head_rows(self.grid.numbers)
        for place, target in enumerate(self.targets):
            scale = [part.running[place] for part in self.parts]
            gram = np.sum([g[place] / s for (g, _), s in zip(sums, scale, strict=True)], axis=0)
            moment = np.sum([m[place] / s for (_, m), s in zip(sums, scale, strict=True)], axis=0)
            row = heads[target]
            part = gram[np.ix_(changed, changed)]
            system = part + RIDGE * (0.5 * part + 0.5 * np.diag(np.diag(part))) + 1e-12 * np.eye(len(changed))
            row[changed] += np.linalg.solve(system, (moment - gram @ row)[changed])
        return heads, self._worst(phis, heads[list(self.targets)])

    def error(self, numbers: Integers) -> float:
        """The squared error of a row with its own head over the running model's."""
        heads = self.grid.head_rows(numbers)[list(self.targets)]
        return self._worst([self.grid.phi(numbers, part.features) for part in self.parts], heads)

    def changed_units(self, numbers: Integers) -> list[int]:
        """Units below the head that are not what they were."""
        off = [part != old for part, old in zip(_backbone(numbers), _backbone(self.grid.numbers), strict=True)]
        moved = off[0].any(axis=1) | off[1]
        heard = (_backbone(numbers)[2] != 0) & moved[None, :]
        return [int(unit) for unit in np.flatnonzero(off[2].any(axis=1) | off[3] | heard.any(axis=1))]

    def _worst(self, phis: Sequence[Floats], heads: Floats) -> float:
        return max(
            float((part.errors(phi, heads) / part.running).mean()) for part, phi in zip(self.parts, phis, strict=True)
        )


RIDGE = 0.05
"""What the running head weighs where a unit has changed, of what the windows do: they are simulated."""


def _backbone(numbers: Integers) -> list[NDArray[np.generic]]:
    return split(numbers)[:4]
