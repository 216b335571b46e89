"""Closed-loop seasons: the node's own reference decides, a training world gets the water.

Targets are not recomputed here. They are read off the node's cumulative statistics: when a window's count
goes up by one at a dawn, the last entry of b, whose φ is the constant 1, has grown by exactly y. Whatever
the node gates, clips or rounds, training sees the numbers the federation will sum.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from server.training.samples import Samples, empty
from server.worlds.field import DAY_S, WORLDS, Case, Outcome, Sensed, SimulatedField, sample_case
from server.worlds.weather import STEPS_PER_DAY
from shared_models.codes import Board
from shared_models.moments import CLASSES, PHI, TARGET_CLASS, TARGETS
from shared_models.network import ACTIVATIONS, HIDDEN, INPUTS, Layer, ModelImage
from shared_models.policy import OVERRIDE_STOP
from shared_models.reference import NodeReference, Reading
from shared_models.settings import Settings

MILLIVOLT_PER_VWC = 4000
"""The node's nominal transfer, ``vwc_e4 = (mV - 300) * 5 / 2``, backwards."""
CONSTANT = PHI - 1
"""φ's constant 1."""


@dataclass(frozen=True)
class Season:
    """One finished field-season."""

    case: Case
    samples: Samples
    outcome: Outcome


def settings_for(case: Case) -> Settings:
    """The settings page a farmer would have written for this case."""
    management = case.management
    return Settings(
        dev_eui=f"{case.seed:016x}",
        board=Board.STM32L072,
        crop=case.crop,
        planting_time_s=case.planting_time_s,
        season_days=case.season_days,
        season=2024,
        application_rate_e2_mm_h=round(100 * management.application_rate_mm_h),
        dose_e1_mm=round(10 * management.dose_mm),
        threshold_permille=round(1000 * management.threshold),
        commissioning_days=case.commissioning_days,
    )


def reading_of(sensed: Sensed, time_s: int) -> Reading:
    """What the node's converters make of the sensors."""
    return Reading(
        time_s=time_s,
        vwc_shallow_e4=_quantised(sensed.vwc_shallow),
        vwc_deep_e4=_quantised(sensed.vwc_deep),
        soil_temp_c100=round(100 * sensed.soil_temperature_c),
        air_temp_c100=round(100 * sensed.air_temperature_c),
        rh_e2=round(100 * sensed.relative_humidity),
        light_w_m2=round(sensed.light_w_m2),
    )


def physics_only() -> ModelImage:
    """A model that changes nothing: it makes the node keep statistics while the physics decides."""
    hidden = Layer(np.zeros((HIDDEN, INPUTS), np.int8), np.zeros(HIDDEN, np.int32), 1 << 30, -8, 0, -128)
    second = Layer(np.zeros((ACTIVATIONS, HIDDEN), np.int8), np.zeros(ACTIVATIONS, np.int32), 1 << 30, -8, -128, -128)
    head = Layer(np.zeros((TARGETS, ACTIVATIONS), np.int8), np.zeros(TARGETS, np.int32), 1 << 30, -8, -128, 0)
    return ModelImage(hidden, second, head)


def run_season(case: Case, image: ModelImage, days: int | None = None) -> Season:
    """Run ``case`` from the commissioning soak to harvest.

    Args:
        case: which field-season.
        image: the model the node carries.
        days: stop early, that many days after planting.
    """
    field = SimulatedField(case)
    node = NodeReference(settings_for(case))
    if case.management.thirsty:
        node.override(OVERRIDE_STOP, case.planting_time_s + 1000 * DAY_S)
    recorder = _Recorder(case)
    whole = case.commissioning_days + (case.season_days if days is None else days)
    for _ in range(whole * STEPS_PER_DAY + 1):
        outcome = node.wake(reading_of(field.sense(), field.time_s), image)
        if outcome.open_s:
            field.irrigate(outcome.open_s * node.settings.application_rate_e2_mm_h / 360_000)
        if outcome.dawn:
            recorder.dawn(node)
        field.advance()
    return Season(case, recorder.samples(), field.outcome())


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
            targets=np.array([self._windows[start][0] for start in starts], np.int8),
            mask=np.array([self._windows[start][1] for start in starts], np.bool_),
            season=np.full(len(starts), self._case.seed, np.int32),
            world=np.full(len(starts), WORLDS.index(self._case.world), np.int8),
        )


def run_many(
    seeds: Iterable[int],
    image: ModelImage,
    processes: int = 1,
    on_season: Callable[[], None] = lambda: None,
    days: int | None = None,
    *,
    as_shipped: bool = False,
) -> list[Season]:
    """Seasons of ``seeds`` in their order; the result does not depend on the number of processes.

    Args:
        seeds: the cases.
        image: the model every node carries.
        processes: how many at once.
        on_season: called as each is done.
        days: see :func:`run_season`.
        as_shipped: all under the shipped settings, instead of settings drawn like the field.
    """
    packed = image.pack()
    jobs = [(seed, packed, days, as_shipped) for seed in seeds]
    finished: list[Season] = []
    for season in _spread(jobs, processes):
        finished.append(season)
        on_season()
    return finished


_Job: TypeAlias = tuple[int, bytes, int | None, bool]
"""Seed of the case, model image, days after planting, under shipped settings."""


def _spread(jobs: list[_Job], processes: int) -> Iterator[Season]:
    if processes <= 1:
        yield from map(_job, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(_job, jobs, chunksize=2)


def _job(job: _Job) -> Season:
    seed, packed, days, as_shipped = job
    case = sample_case(seed)
    return run_season(case.as_shipped() if as_shipped else case, ModelImage.unpack(packed), days)


def _quantised(vwc: float) -> int:
    """A probe's reading in whole millivolts, then in 1e-4 m3/m3."""
    return (round(vwc * MILLIVOLT_PER_VWC) * 5) // 2
