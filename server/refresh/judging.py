"""The refresh's gate: simulated fields that nothing was learned from, in both simulators, under the fleet's weights.

There are no field statistics for a new backbone, so this is all that can be asked before a campaign. It asks that

* what was learned in one simulator serves the *other*, both ways round;
* what is to be released, learned in both, serves both;
* each time against the running model, whose head is the fleet's, and against the physics: by the minimum gain on
  average over targets, beyond chance when fields are resampled, and with no target the worse.

The labels are those of :mod:`server.refresh.lessons`: on the running units the running head cannot be beaten there,
so a gain is the new units'. What this cannot know is whether the simulators' common opinion about those units is
true. The canary group and every node's own probation are the field test.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from server.refresh.grid import Floats, Grid, Integers
from server.refresh.lessons import Lessons
from server.worlds.field import WORLDS
from shared_models.moments import TARGET_NAMES

RESAMPLES = 2000
CONFIDENCE = 0.95
"""Of each bound by itself."""


class Crossing(BaseModel):
    """What a change is worth in one simulator's held-out fields."""

    model_config = ConfigDict(frozen=True)

    learned_in: list[str]
    judged_in: str
    fields: float
    """Effective number under the fleet's weights."""
    targets: dict[str, float]
    """Squared error over the running model's."""
    against_running: float
    """The same, mean over targets."""
    running_bound: float
    """What that is at most, with 95 % confidence, fields resampled."""
    against_physics: float
    physics_bound: float


def judge(
    grid: Grid, numbers: Integers, exam: Lessons, targets: Sequence[int], learned_in: Sequence[int], seed: int
) -> Crossing:
    """Score a row on held-out windows of one simulator."""
    phi = grid.phi(numbers, exam.features)
    outputs = np.clip(phi @ grid.head_rows(numbers)[list(targets)].T, -128, 127)
    before = grid.phi(grid.numbers, exam.features) @ grid.head_rows(grid.numbers)[list(targets)].T
    candidate = exam.weights * (exam.labels - outputs) ** 2
    running = exam.weights * (exam.labels - np.clip(before, -128, 127)) ** 2
    physics = exam.weights * exam.labels**2
    fields = np.unique(exam.season, return_inverse=True)[1]
    parts = [_by_field(errors, fields) for errors in (candidate, running, physics)]
    share = np.bincount(fields, exam.weights.mean(axis=1))
    rng = np.random.default_rng([0x726A, seed])
    picks = rng.multinomial(len(share), np.full(len(share), 1 / len(share)), RESAMPLES)
    drawn = [picks @ part for part in parts]
    return Crossing(
        learned_in=[WORLDS[world] for world in learned_in],
        judged_in=WORLDS[exam.world],
        fields=float(share.sum() ** 2 / (share @ share)),
        targets={
            TARGET_NAMES[target]: float(parts[0][:, place].sum() / parts[1][:, place].sum())
            for place, target in enumerate(targets)
        },
        against_running=_ratio(parts[0].sum(axis=0), parts[1].sum(axis=0)),
        running_bound=float(np.quantile(_ratios(drawn[0], drawn[1]), CONFIDENCE)),
        against_physics=_ratio(parts[0].sum(axis=0), parts[2].sum(axis=0)),
        physics_bound=float(np.quantile(_ratios(drawn[0], drawn[2]), CONFIDENCE)),
    )


def objection(crossing: Crossing, minimum_gain: float) -> str:
    """Why a crossing does not do, or an empty text."""
    where = f"learned in {' and '.join(crossing.learned_in)}, in {crossing.judged_in}"
    for rival, ratio, bound in (
        ("the running release", crossing.against_running, crossing.running_bound),
        ("the physics", crossing.against_physics, crossing.physics_bound),
    ):
        if ratio > 1 - minimum_gain:
            return f"{where}: no better than {rival} ({ratio:.3f} of its squared error)"
        if bound >= 1:
            return f"{where}: not certainly better than {rival} ({ratio:.3f} of its squared error, up to {bound:.3f})"
    worst = max(crossing.targets, key=lambda name: crossing.targets[name])
    if crossing.targets[worst] > 1:
        return f"{where}: {worst} has {crossing.targets[worst]:.3f} of the squared error it had"
    return ""


def _by_field(errors: Floats, fields: np.ndarray) -> Floats:
    return np.stack([np.bincount(fields, column) for column in errors.T], axis=1)


def _ratio(after: Floats, before: Floats) -> float:
    return float((after / before).mean())


def _ratios(after: Floats, before: Floats) -> Floats:
    result: Floats = (after / np.maximum(before, 1e-12)).mean(axis=1)
    return result
