"""Ways to train the small network, so that the factory and the compression study train by the same code."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from server.training.climates import CLIMATES, climate_group
from server.training.distillation import teach, teacher_epochs
from server.training.network import PLAIN, Lessons, Recipe, Schedule, Trained, prune, train_backbone
from server.training.physical import physical_start, with_spare_units
from server.training.samples import Samples
from server.worlds.field import WORLDS, sample_case
from shared_models.network import HIDDEN

OnEpoch = Callable[[str], None]

RETRAINING_SHARE = 0.5
"""Of the float epochs, and of the learning rate, after units were pruned."""


@dataclass(frozen=True)
class Method:
    """One way."""

    name: str
    recipe: Recipe = PLAIN
    rounded: bool = True
    """False: never quantised, as long a training all in floats."""
    taught: bool = False
    """From a teacher's outputs as well as from labels."""
    physical: bool = False
    """It goes on from the hand-made units of :mod:`server.training.physical` instead of drawn weights."""
    trained: bool = True
    """False: those units as they are."""

    @property
    def is_pruned(self) -> bool:
        """Trained with all units first, then again with those that matter."""
        return self.recipe.hidden < HIDDEN

    def train(
        self, training: Samples, validation: Samples, schedule: Schedule, seed: int, on_epoch: OnEpoch
    ) -> Trained:
        """Train; deterministic by ``seed``.

        Args:
            training: windows to learn from.
            validation: windows of other seasons.
            schedule: of the plain network; the others derive theirs from it.
            seed: of initialisers and batches.
            on_epoch: called after each epoch with a line of progress.
        """
        if not self.trained:
            return Trained(physical_start(), math.nan, ())
        if not self.rounded:
            schedule = replace(
                schedule, float_epochs=schedule.float_epochs + schedule.quantised_epochs, quantised_epochs=0
            )
        hints = None
        if self.taught:
            hints = teach(training, validation, schedule, seed, on_epoch).predict(training.features)
        groups = np.unique(groups_of(training), return_inverse=True)[1] if self.recipe.group_rate else None
        lessons = Lessons(training, hints, groups)
        if not self.is_pruned:
            start = with_spare_units(physical_start(), seed) if self.physical else None
            return train_backbone(lessons, validation, schedule, seed, on_epoch, self.recipe, start)
        full = replace(self.recipe, hidden=HIDDEN)
        large = train_backbone(lessons, validation, schedule, seed, on_epoch, full)
        small = prune(large.network, training.features, self.recipe.hidden)
        return train_backbone(lessons, validation, _again(schedule), seed, on_epoch, self.recipe, small)

    def epochs(self, schedule: Schedule, worlds: int) -> int:
        """How often ``on_epoch`` is called, with windows of so many worlds."""
        if not self.trained:
            return 0
        again = _again(schedule).epochs if self.is_pruned else 0
        return schedule.epochs + again + (teacher_epochs(schedule, worlds) if self.taught else 0)


def groups_of(samples: Samples) -> npt.NDArray[np.int64]:
    """(n,): the world and climate group each window belongs to, numbered."""
    seasons, rows = np.unique(samples.season, return_inverse=True)
    climates = np.array([CLIMATES.index(climate_group(sample_case(int(season)).climate)) for season in seasons])
    result: npt.NDArray[np.int64] = len(CLIMATES) * samples.world.astype(np.int64) + climates[rows]
    return result


def group_names() -> list[str]:
    """Of the numbers of :func:`groups_of`."""
    return [f"{world}, {climate}" for world in WORLDS for climate in CLIMATES]


def _again(schedule: Schedule) -> Schedule:
    return replace(
        schedule,
        float_epochs=round(RETRAINING_SHARE * schedule.float_epochs),
        learning_rate=RETRAINING_SHARE * schedule.learning_rate,
        restarts=1,
    )


PLAIN_METHOD = Method("plain, 8-bit weights")
HAND_MADE = Method("hand-made units", physical=True, trained=False)
ADOPTED = Method("from hand-made units", physical=True)
"""What the factory trains by; why is in ``docs/model.md``."""
