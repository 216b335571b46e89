"""Closed-loop seasons: the node's own reference decides, a training world gets the water.

Targets are not recomputed here. They are read off the node's cumulative statistics: when a window's count
goes up by one at a dawn, the last entry of b, whose φ is the constant 1, has grown by exactly y. Whatever
the node gates, clips or rounds, training sees the numbers the federation will sum.

Fields run in batches, nodes one by one: a node decides once a day, so the world goes from one decision to the next
and hands every node the readings of that time together. No figure depends on how seasons fall into batches.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np

from server.training.rules import Dawn, Rule
from server.training.samples import Samples, empty
from server.worlds import sensors
from server.worlds.batch import Fields, Outcome
from server.worlds.field import DAWN_S, DAY_S, WORLDS, Case, sample_case
from server.worlds.soils import CLASSES as SOIL_CLASSES
from server.worlds.weather import STEP_S, STEPS_PER_DAY
from shared_models.codes import Board
from shared_models.fixed import NO_VALUE
from shared_models.moments import CLASSES, PHI, TARGET_CLASS, TARGETS
from shared_models.network import ACTIVATIONS, HIDDEN, INPUTS, Layer, ModelImage
from shared_models.policy import OVERRIDE_STOP
from shared_models.reference import NodeReference, Reading
from shared_models.settings import SETTINGS_LAYOUT, Settings, SettingsError
from shared_models.state import State

BATCH = 128
"""Fields stepped together, about 130 MB of weather and noise; more would hardly be felt, for nodes take most time."""
NIGHT_STEPS = 16
"""Readings that a rule's dawn figure is the mean of: four hours."""
CONSTANT = PHI - 1
"""φ's constant 1."""


@dataclass(frozen=True)
class Season:
    """One finished field-season."""

    case: Case
    samples: Samples
    outcome: Outcome
    depletion_rmse: float
    """Of the node's ``Dr/TAW`` against the true one, over the dawns from planting on; nan where nobody estimated."""
    depletion_bias: float
    """Mean of estimate minus truth: positive, and the node believes the soil drier than it is."""


def settings_for(case: Case, changes: Mapping[str, int] | None = None) -> Settings:
    """The settings page a farmer would have written for this case.

    Args:
        case: the field-season.
        changes: fields of :class:`shared_models.settings.Settings` by name that shall be other than that.

    Raises:
        SettingsError: a change names no field, or is out of its range.
    """
    management = case.management
    settings = Settings(
        dev_eui=f"{case.seed:016x}",
        board=Board.STM32L072,
        crop=case.crop,
        planting_time_s=case.planting_time_s,
        season_days=case.season_days,
        season=2024 + case.year,
        application_rate_e2_mm_h=round(100 * management.application_rate_mm_h),
        dose_e1_mm=round(10 * management.dose_mm),
        threshold_permille=round(1000 * management.threshold),
        commissioning_days=case.commissioning_days,
    )
    if not changes:
        return settings
    unknown = changes.keys() - {field.name for field in SETTINGS_LAYOUT.fields}
    if unknown:
        raise SettingsError(f"settings have no field {', '.join(sorted(unknown))}")
    return Settings.unpack(replace(settings, **changes).pack())  # type: ignore[arg-type]


def physics_only() -> ModelImage:
    """A model that changes nothing: it makes the node keep statistics while the physics decides."""
    hidden = Layer(np.zeros((HIDDEN, INPUTS), np.int8), np.zeros(HIDDEN, np.int32), 1 << 30, -8, 0, -128)
    second = Layer(np.zeros((ACTIVATIONS, HIDDEN), np.int8), np.zeros(ACTIVATIONS, np.int32), 1 << 30, -8, -128, -128)
    head = Layer(np.zeros((TARGETS, ACTIVATIONS), np.int8), np.zeros(TARGETS, np.int32), 1 << 30, -8, -128, 0)
    return ModelImage(hidden, second, head)


def run_season(case: Case, image: ModelImage, days: int | None = None) -> Season:
    """One season; see :func:`run_cases`."""
    return run_cases([case], image, days=days)[0]


def run_many(
    seeds: Iterable[int],
    image: ModelImage,
    processes: int = 1,
    on_season: Callable[[], None] = lambda: None,
    days: int | None = None,
    *,
    as_shipped: bool = False,
    changes: Mapping[str, int] | None = None,
    years: int = 1,
) -> list[Season]:
    """Seasons of ``seeds`` in their order.

    Args:
        seeds: the cases.
        image: see :func:`run_cases`, as what follows.
        processes: how many at once.
        on_season: called for each that is done.
        days: stop early.
        as_shipped: all under the shipped settings, instead of settings drawn like the field.
        changes: settings that all nodes have other than that.
        years: seasons of each field.
    """
    return run_cases(_cases(seeds, as_shipped=as_shipped), image, processes, on_season, days, changes, years)


def run_cases(
    cases: Sequence[Case],
    image: ModelImage,
    processes: int = 1,
    on_season: Callable[[], None] = lambda: None,
    days: int | None = None,
    changes: Mapping[str, int] | None = None,
    years: int = 1,
) -> list[Season]:
    """Run ``cases`` from the commissioning soak to harvest, a node deciding in each; the results are in their order.

    Args:
        cases: which field-seasons.
        image: the model every node carries.
        processes: how many at once; no result depends on it.
        on_season: called for each that is done.
        days: stop early, that many days after planting.
        changes: see :func:`settings_for`.
        years: seasons of each field, one after the other in the results; the node keeps what it learned.

    Raises:
        SettingsError: see :func:`settings_for`.
    """
    packed, changed = image.pack(), dict(changes or {})
    for case in cases[:1]:
        settings_for(case, changed)
    return _run(cases, _NodeJob(packed, days, changed, years), processes, on_season, years)


def run_rule(
    seeds: Iterable[int],
    rule: Rule,
    processes: int = 1,
    on_season: Callable[[], None] = lambda: None,
    days: int | None = None,
) -> list[Season]:
    """The same seasons as :func:`run_many`'s shipped ones with ``rule`` deciding at dawn; there are no samples.

    Args:
        seeds: the cases.
        rule: gives water; it must survive pickling when there are several processes.
        processes: how many at once.
        on_season: called for each that is done.
        days: stop early, that many days after planting.
    """
    return _run(_cases(seeds, as_shipped=True), _RuleJob(rule, days), processes, on_season)


class _Pilot(Protocol):
    """Whoever decides in one field."""

    def decide(self, step: int, readings: list[list[int]], true_depletion: float) -> float:
        """Take the readings of the last steps, the last of them now at ``step``; millimetres to give."""

    def season(self, outcome: Outcome) -> Season:
        """What came of it."""


class _Node:
    """A node's reference, its estimate of the depletion held against the truth."""

    def __init__(self, case: Case, image: ModelImage, changes: Mapping[str, int], state: State | None = None) -> None:
        self._case, self._image, self._changes = case, image, changes
        self._node = NodeReference(settings_for(case, changes), state)
        if case.management.thirsty:
            self._node.override(OVERRIDE_STOP, case.planting_time_s + 1000 * DAY_S)
        self._recorder = _Recorder(case)
        self._errors: list[float] = []

    def following(self) -> _Node:
        """The same node in its field's next season, as it wakes from the winter."""
        return _Node(self._case.following(), self._image, self._changes, self._node.state)

    def decide(self, step: int, readings: list[list[int]], true_depletion: float) -> float:
        node, image = self._node, self._image
        time_s = self._case.start_time_s + (step - len(readings)) * STEP_S
        outcome = None
        for reading in readings:
            if outcome is not None and outcome.open_s:
                raise RuntimeError("a node watered between two decisions")
            time_s += STEP_S
            outcome = node.wake(Reading(time_s, *reading), image)
            if outcome.dawn:
                self._recorder.dawn(node)
        if outcome is None:
            return 0.0
        if step % STEPS_PER_DAY == 0 and node.state.started:
            self._errors.append(outcome.depletion_um / max(outcome.taw_um, 1) - true_depletion)
        return outcome.open_s * node.settings.application_rate_e2_mm_h / 360_000

    def season(self, outcome: Outcome) -> Season:
        errors = np.array(self._errors or [math.nan])
        rmse, bias = math.sqrt(float((errors**2).mean())), float(errors.mean())
        return Season(self._case, self._recorder.samples(), outcome, rmse, bias)


class _Ruled:
    """A rule, and the little it is told."""

    def __init__(self, case: Case, rule: Rule) -> None:
        self._case, self._rule = case, rule
        self._table = SOIL_CLASSES[case.soil.texture]

    def decide(self, step: int, readings: list[list[int]], true_depletion: float) -> float:
        night = readings[-NIGHT_STEPS:]
        return self._rule(
            Dawn(
                day=step // STEPS_PER_DAY - self._case.commissioning_days,
                season_days=self._case.season_days,
                vwc_shallow=_mean(night, sensors.SHALLOW),
                vwc_deep=_mean(night, sensors.DEEP),
                depletion_fraction=true_depletion,
                table_fc=self._table.theta_fc,
                table_wp=self._table.theta_wp,
            )
        )

    def season(self, outcome: Outcome) -> Season:
        return Season(self._case, empty(), outcome, math.nan, math.nan)


def _mean(readings: list[list[int]], probe: int) -> float:
    """Of what a probe did say, m3/m3."""
    said = [reading[probe] for reading in readings if reading[probe] != NO_VALUE]
    return sum(said) / (10_000 * len(said)) if said else math.nan


@dataclass(frozen=True)
class _NodeJob:
    """What all nodes of a run share."""

    image: bytes
    days: int | None
    changes: dict[str, int]
    years: int

    def __call__(self, cases: Sequence[Case]) -> list[Season]:
        image = ModelImage.unpack(self.image)
        start_s = settings_for(cases[0], self.changes).window_start_h * 3600
        decision_step = math.ceil(max(start_s - DAWN_S, 0) / STEP_S)
        nodes = [_Node(case, image, self.changes) for case in cases]
        seasons = [_drive(cases, nodes, decision_step, self.days)]
        for _ in range(1, self.years):
            cases, nodes = [case.following() for case in cases], [node.following() for node in nodes]
            seasons.append(_drive(cases, nodes, decision_step, self.days))
        return [season for of_field in zip(*seasons, strict=True) for season in of_field]


@dataclass(frozen=True)
class _RuleJob:
    """What all fields under a rule share."""

    rule: Rule
    days: int | None

    def __call__(self, cases: Sequence[Case]) -> list[Season]:
        return _drive(cases, [_Ruled(case, self.rule) for case in cases], 0, self.days)


_Job: TypeAlias = _NodeJob | _RuleJob


def _drive(cases: Sequence[Case], pilots: Sequence[_Pilot], decision_step: int, days: int | None) -> list[Season]:
    """Take one world's cases through their seasons, from dawn to ``decision_step`` of the day to dawn."""
    fields = Fields(cases)
    harvest = [case.days if days is None else min(case.commissioning_days + days, case.days) for case in cases]
    ends = np.array(harvest) * STEPS_PER_DAY
    indices = list(range(len(cases)))
    finished: dict[int, Season] = {}
    readings = fields.first_readings()
    while True:
        rows = np.ascontiguousarray(readings.transpose(2, 0, 1)).tolist()
        truth = fields.depletion_fraction().tolist()
        doses = [
            pilots[index].decide(fields.step, row, depletion)
            for index, row, depletion in zip(indices, rows, truth, strict=True)
        ]
        growing = ends[indices] > fields.step
        if not growing.all():
            for index, outcome, grows in zip(indices, fields.outcomes(), growing, strict=True):
                if not grows:
                    finished[index] = pilots[index].season(outcome)
            if not growing.any():
                return [finished[index] for index in range(len(cases))]
            fields.keep(growing)
            indices = [index for index, grows in zip(indices, growing, strict=True) if grows]
        fields.irrigate(np.array(doses)[growing])
        passed = fields.step % STEPS_PER_DAY
        readings = fields.advance((decision_step if passed < decision_step else STEPS_PER_DAY) - passed)


def _cases(seeds: Iterable[int], *, as_shipped: bool) -> list[Case]:
    cases = [sample_case(seed) for seed in seeds]
    return [case.as_shipped() for case in cases] if as_shipped else cases


def _run(
    cases: Sequence[Case], job: _Job, processes: int, on_season: Callable[[], None], years: int = 1
) -> list[Season]:
    """Batches of one world each, over the processes, and back into the order of ``cases``."""
    batches: list[list[int]] = []
    for kind in sorted({(case.world, case.commissioning_days) for case in cases}):
        members = [index for index, case in enumerate(cases) if (case.world, case.commissioning_days) == kind]
        size = min(BATCH, math.ceil(len(members) / max(processes, 1)))
        batches += [members[first : first + size] for first in range(0, len(members), size)]
    finished: dict[int, list[Season]] = {}
    done = _spread(job, [[cases[index] for index in batch] for batch in batches], processes)
    for batch, seasons in zip(batches, done, strict=True):
        for place, index in enumerate(batch):
            finished[index] = seasons[years * place : years * (place + 1)]
        for _ in seasons:
            on_season()
    return [season for index in range(len(cases)) for season in finished[index]]


def _spread(job: _Job, batches: list[list[Case]], processes: int) -> Iterator[list[Season]]:
    if processes <= 1:
        yield from map(job, batches)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(job, batches)


class _Recorder:
    """Turns a node's growing sums back into single windows."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._features: list[list[int]] = []
        self._count = [0] * CLASSES
        self._moment = [0] * TARGETS
        self._windows: dict[int, tuple[list[int], list[bool]]] = {}

    def dawn(self, node: NodeReference) -> None:
        """Look at the node just after it closed a day."""
        state = node.state
        for target in range(TARGETS):
            length = TARGET_CLASS[target] + 1
            moment = state.moment[target * PHI + CONSTANT]
            if state.count[length - 1] == self._count[length - 1] + 1:
                values, mask = self._windows.setdefault(
                    len(self._features) - length, ([0] * TARGETS, [False] * TARGETS)
                )
                values[target], mask[target] = moment - self._moment[target], True
            self._moment[target] = moment
        self._count = list(state.count)
        self._features.append(list(state.features))

    def samples(self) -> Samples:
        """All windows, by their first dawn."""
        if not self._windows:
            return empty()
        starts = sorted(self._windows)
        return Samples(
            features=np.array([self._features[start] for start in starts], np.int8),
            targets=np.array([self._windows[start][0] for start in starts], np.int16),
            mask=np.array([self._windows[start][1] for start in starts], np.bool_),
            season=np.full(len(starts), self._case.seed, np.int32),
            world=np.full(len(starts), WORLDS.index(self._case.world), np.int8),
        )
