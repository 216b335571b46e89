"""A large teacher for the small network: wide networks, several per simulator, averaged.

Each member learned in one simulator alone. Where they agree, the residual is one that travels; where they differ,
their mean is what can be said without knowing which simulator a field resembles. The small network learns from
labels and from this mean (Hinton et al. 2015), which is also there for windows that a label lacks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from server.training.network import OUTPUT_LIMIT, Float32, FloatNetwork, Lessons, Recipe, Schedule, train_backbone
from server.training.samples import Samples

TEACHER = Recipe(hidden=64, activations=32)
MEMBERS = 2
"""Per world."""


@dataclass(frozen=True)
class Teacher:
    """The ensemble."""

    members: tuple[FloatNetwork, ...]

    def predict(self, features: npt.NDArray[np.int8]) -> Float32:
        """The members' mean in output steps (n, 4), each within the output's range."""
        outputs = np.array([member.predict(features) for member in self.members])
        mean: Float32 = np.clip(outputs, -OUTPUT_LIMIT, OUTPUT_LIMIT).mean(axis=0).astype(np.float32)
        return mean


def teacher_schedule(schedule: Schedule) -> Schedule:
    """As long as the float phase of the student; a teacher is never rounded."""
    return replace(schedule, quantised_epochs=0, restarts=1)


def teacher_epochs(schedule: Schedule, worlds: int) -> int:
    """Of all members, with windows of so many worlds."""
    return worlds * MEMBERS * teacher_schedule(schedule).epochs


def teach(
    training: Samples, validation: Samples, schedule: Schedule, seed: int, on_epoch: Callable[[str], None]
) -> Teacher:
    """Train :data:`MEMBERS` wide networks in each world; deterministic by ``seed``.

    Args:
        training: windows of one or several worlds.
        validation: windows of other seasons; a member is chosen on those of its own world.
        schedule: the student's.
        seed: of initialisers and batches.
        on_epoch: called after each epoch with a line of progress.
    """
    members = []
    for world in np.unique(training.world):
        own = training.where(training.world == world)
        judge = validation.where(validation.world == world)
        for member in range(MEMBERS):
            number = seed + 100_000 * (int(world) + 1) + 10_000 * member
            trained = train_backbone(
                Lessons(own), judge if len(judge) else own, teacher_schedule(schedule), number, on_epoch, TEACHER
            )
            members.append(trained.network)
    return Teacher(tuple(members))
