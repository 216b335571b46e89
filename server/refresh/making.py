"""One refresh from sums to verdict: weigh simulated windows, retrain, keep what pays, judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from server.code_version import code_version
from server.refresh import fleet, judging, screening, selection, tilting
from server.refresh.grid import Floats, Grid, Integers
from server.refresh.judging import Crossing
from server.refresh.lessons import Lessons, Objective, lessons_of
from server.refresh.retraining import retrain
from server.refresh.windows import JUDGING, TRAINING, WindowStore
from server.training.factory import Progress
from server.training.samples import Samples
from server.worlds.field import WORLDS
from shared_models import container
from shared_models.moments import TARGET_CLASS, TARGETS, UPTAKE, Sums
from shared_models.network import ModelImage


@dataclass(frozen=True)
class Configuration:
    """How much of everything."""

    name: str
    training_fields: int
    judging_fields: int
    epochs: int
    batch: int
    new_units: int
    """Units of the first layer that may come to life."""
    looked_at: int
    """Changed numbers that are weighed against their bytes one by one."""
    years: int = 2
    days: int | None = None


FULL = Configuration("full", 400, 150, 100, 1024, 4, 48)
SMALL = Configuration("small", 24, 16, 4, 512, 1, 16, years=1, days=50)
CONFIGURATIONS = {configuration.name: configuration for configuration in (FULL, SMALL)}

PRICE = 4e-4
"""Share of the squared error that a byte on the air must take off: the three dozen bytes that a signed frame has room
for are worth taking when they bring one and a half per cent. In the training worlds a fourth of that price fills twice
the bytes for as much again (``docs/research.md``)."""


@dataclass(frozen=True)
class Terms:
    """What a refresh must keep to."""

    minimum_gain: float
    """Share of the squared error it must take off in every crossing."""
    least_fields: float
    """Effective number of simulated fields below which the fleet is not like anything simulated."""
    payload_bytes: int
    """The most the update may have besides header and signature."""
    seed: int
    processes: int


class Matched(BaseModel):
    """How the weights of one simulator's windows came out."""

    model_config = ConfigDict(frozen=True)

    world: str
    training_fields: float
    """Effective number, of those that had windows."""
    judging_fields: float
    windows: float
    """Effective number of the training windows."""
    missed_before: float
    """Root mean square over moments, in standard deviations of a simulated window, with equal weights."""
    missed_after: float


class Evidence(BaseModel):
    """Everything behind a refresh, or behind its refusal."""

    model_config = ConfigDict(frozen=True)

    verdict: Literal["passed", "refused"]
    reason: str
    configuration: str
    seed: int
    code: str
    """Of the sources that simulated, trained and judged, see :mod:`server.code_version`."""
    sums: str
    """BLAKE2b-256 of the fleet's sums."""
    windows: list[int]
    """Of the fleet, by class."""
    matched: list[Matched]
    changed_numbers: int = 0
    payload_bytes: int = 0
    gain_in_training: float = 0.0
    """Share of the squared error that the windows learned from say it takes off in the worse simulator."""
    crossings: list[Crossing] = []


@dataclass(frozen=True)
class Made:
    """A candidate, whatever the gate says of it, and the evidence."""

    candidate: ModelImage | None
    """None where nothing was worth its bytes, or it did not come to that."""
    evidence: Evidence

    @property
    def image(self) -> ModelImage | None:
        """What may be released."""
        return self.candidate if self.evidence.verdict == "passed" else None


def make(
    running: ModelImage,
    sites: Mapping[str, Sums],
    configuration: Configuration,
    terms: Terms,
    folder: Path,
    progress: Progress,
) -> Made:
    """Carry out a refresh; the result depends on everything but ``folder``, ``progress`` and the processes.

    Args:
        running: The running release's model, whose head the fleet's sums could not improve.
        sites: Those sums.
        configuration: How much of everything.
        terms: What it must keep to.
        folder: Where simulated windows are kept.
        progress: Where to tell how far it is.
    """
    grid = Grid(running)
    total = sum((part.count for part in sites.values()), np.zeros(3, np.int64))
    targets = [target for target in range(TARGETS) if target != UPTAKE and total[TARGET_CLASS[target]] > 0]

    def refused(reason: str, matched: Sequence[Matched] = ()) -> Made:
        return Made(None, _evidence("refused", reason, sites, configuration, terms, matched=list(matched)))

    if not targets:
        return refused("the fleet has no dry-down windows yet")
    try:
        moments = fleet.moments_of([sites[name] for name in sorted(sites)], targets)
    except ValueError as error:
        return refused(str(error))
    windows = WindowStore(folder, running, terms.seed, configuration.years, configuration.days)
    judging_windows = windows.windows(JUDGING, configuration.judging_fields, terms.processes, progress)
    training_windows = windows.windows(TRAINING, configuration.training_fields, terms.processes, progress)
    learn: list[Lessons] = []
    exams: list[Lessons] = []
    matched: list[Matched] = []
    for world in range(len(WORLDS)):
        own, held = (part.where(part.world == world) for part in (training_windows, judging_windows))
        if not len(own) or not len(held):
            return refused(f"the simulated fields of {WORLDS[world]} have no window", matched)
        weighed = _weigh(own, held, running, moments, WORLDS[world])
        matched.append(weighed.matched)
        try:
            drawn = _drawn(weighed.own, terms.seed)
            learn.append(lessons_of(own.where(drawn > 0), drawn[drawn > 0] / DRAWN, grid, targets, world))
            exams.append(lessons_of(held, weighed.held, grid, targets, world))
        except ValueError as error:
            return refused(f"{WORLDS[world]}: {error}", matched)
    thin = [entry for entry in matched if min(entry.training_fields, entry.judging_fields) < terms.least_fields]
    if thin:
        few = ", ".join(f"{min(entry.training_fields, entry.judging_fields):.0f} of {entry.world}" for entry in thin)
        return refused(
            f"too few simulated fields are like the fleet's: {few}, {terms.least_fields:.0f} are needed", matched
        )
    numbers = _learn(grid, learn, targets, configuration, terms, progress)
    gain = 1 - Objective(grid, learn, targets).error(numbers)
    if (numbers == grid.numbers).all():
        return refused("no change of the backbone is worth its bytes", matched)
    crossings = [judging.judge(grid, numbers, exam, targets, range(len(learn)), terms.seed) for exam in exams]
    for part in learn:
        alone = _learn(grid, [part], targets, configuration, terms, progress)
        crossings += [
            judging.judge(grid, alone, exam, targets, [part.world], terms.seed)
            for exam in exams
            if exam.world != part.world
        ]
    objections = [text for crossing in crossings if (text := judging.objection(crossing, terms.minimum_gain))]
    reason = objections[0] if objections else "better than the running release in both simulators, learned in either"
    return Made(
        grid.image(numbers),
        _evidence(
            "refused" if objections else "passed",
            reason,
            sites,
            configuration,
            terms,
            matched=matched,
            changed_numbers=int((numbers != grid.numbers).sum()),
            payload_bytes=payload_of(grid)(numbers),
            gain_in_training=gain,
            crossings=crossings,
        ),
    )


def payload_of(grid: Grid) -> Callable[[Integers], int]:
    """Bytes of an update's payload that makes the running model a row."""

    def size(numbers: Integers) -> int:
        return len(container.build_delta(grid.image(numbers), grid.base, 1).payload)

    return size


def _learn(
    grid: Grid,
    parts: Sequence[Lessons],
    targets: Sequence[int],
    configuration: Configuration,
    terms: Terms,
    progress: Progress,
) -> Integers:
    """The row that the windows of some simulators teach."""
    objective = Objective(grid, parts, targets)
    names = " and ".join(WORLDS[part.world] for part in parts)
    progress.stage(f"units, {names}", 1)
    found = screening.begin(objective, configuration.new_units, LEAST_GAIN)
    start = selection.with_heads(objective, found, objective.solve(found)[0])
    progress.stage(f"TensorFlow, {names}", configuration.epochs)
    trained = retrain(
        grid, parts, targets, start, configuration.epochs, configuration.batch, terms.seed, progress.advance
    )
    progress.stage(f"bytes, {names}", 1)
    size = payload_of(grid)
    rows = [
        selection.select(objective, row, size, PRICE, terms.payload_bytes, configuration.looked_at)
        for row in (found, trained)
    ]
    return min(rows, key=lambda row: objective.error(row) + PRICE * size(row))


LEAST_GAIN = 0.001
"""Of the squared error that a new unit must promise, to be given to TensorFlow."""


@dataclass(frozen=True, eq=False)
class _Weighed:
    own: Floats
    held: Floats
    matched: Matched


def _drawn(weights: Floats, seed: int) -> Integers:
    """How often each window is drawn when :data:`DRAWN` are drawn by their weights, evenly spaced (n,).

    Few windows carry most of the weight; the many others would cost nearly all of the time.
    """
    rng = np.random.default_rng([0x7264, seed])
    marks = (np.arange(DRAWN) + rng.random()) / DRAWN
    ends = np.cumsum(weights)
    return np.bincount(np.searchsorted(ends / ends[-1], marks), minlength=len(weights))


DRAWN = 4000
"""Windows of each simulator to learn from; the judging ones are not thinned out."""


def _weigh(own: Samples, held: Samples, running: ModelImage, moments: Sequence[fleet.Moment], world: str) -> _Weighed:
    """The fleet's weights of one simulator's windows; held-out ones get theirs from the same tilting."""
    scales = tilting.spread(own, running, moments)
    contributed = tilting.contributions(own, running, moments, scales)
    multipliers = tilting.tilt(contributed, tilting.slack_of(moments, scales))
    weights = tilting.weights_of(contributed, multipliers)
    judged = tilting.weights_of(tilting.contributions(held, running, moments, scales), multipliers)
    equal = np.full(len(own), 1 / len(own))
    return _Weighed(
        weights,
        judged,
        Matched(
            world=world,
            training_fields=tilting.effective(weights, own.season),
            judging_fields=tilting.effective(judged, held.season),
            windows=tilting.effective(weights, np.arange(len(own))),
            missed_before=tilting.missed(contributed, equal),
            missed_after=tilting.missed(contributed, weights),
        ),
    )


def _evidence(
    verdict: Literal["passed", "refused"],
    reason: str,
    sites: Mapping[str, Sums],
    configuration: Configuration,
    terms: Terms,
    **figures: Any,  # noqa: ANN401  fields of Evidence
) -> Evidence:
    counts = sum((part.count for part in sites.values()), np.zeros(3, np.int64))
    return Evidence(
        verdict=verdict,
        reason=reason,
        configuration=configuration.name,
        seed=terms.seed,
        code=code_version()["hash"],
        sums=fleet.digest(sites),
        windows=[int(count) for count in counts],
        **figures,
    )
