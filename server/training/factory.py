"""The factory model's making, from empty hands to a model and the evidence for it.

Five groups of fields with seeds of their own: *training* (weights), *validation* (epoch, restart, how much
of each head is kept), *trial* (how much of the uptake head is kept, closed loop), *confirmation* (whether that
pays again where it was not chosen) and *test* (figures only).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from server.training import heads, samples, trial
from server.training.climates import CLIMATES
from server.training.methods import ADOPTED
from server.training.network import LEAST_ACTIVITY, FloatNetwork, Schedule, to_image
from server.training.physical import error_abroad, physical_start
from server.training.seasons import Season, physics_only, run_cases
from server.worlds.field import WORLDS, Case, sample_case
from shared_models.features import FEATURES
from shared_models.moments import TARGET_NAMES, TARGETS, UPTAKE, Sums
from shared_models.network import ModelImage, head_weights, quantise_head

TRAINING, VALIDATION, TRIAL, TEST, STUDY, CONFIRMATION = 1, 2, 3, 4, 5, 6
"""Groups of fields; STUDY is the compression study's closed loop."""
AS_SHIPPED = (TRIAL, TEST, STUDY, CONFIRMATION)
VERSION = 1


@dataclass(frozen=True)
class Configuration:
    """How much of everything."""

    name: str
    training_fields: int
    validation_fields: int
    trial_fields: int
    """As many again confirm what the trial found."""
    test_fields: int
    schedule: Schedule
    years: int = 2
    """Seasons of each field; the node starts the later ones with what it learned of the field in the first."""
    days: int | None = None
    """Seasons end so many days after planting; None is at harvest."""


FULL = Configuration("full", 450, 100, 160, 130, Schedule(80, 40, 1024))
MEDIUM = Configuration("medium", 150, 50, 60, 50, Schedule(80, 40, 1024))
SMALL = Configuration("small", 16, 8, 4, 6, Schedule(12, 6, 256), years=1, days=70)


class Progress(Protocol):
    """Where the maker tells how far it is."""

    def stage(self, name: str, steps: int) -> None:
        """A new stage of so many steps begins."""

    def advance(self, remark: str = "") -> None:
        """One step is done."""


@dataclass(frozen=True)
class FactoryModel:
    """The model and what its card says."""

    image: ModelImage
    card: dict[str, Any]


class FactoryError(RuntimeError):
    """Training cannot yield a model: the seasons hold no windows."""


@dataclass(frozen=True)
class Group:
    """One group of seasons and the sums it gives under a backbone."""

    seasons: list[Season]

    @property
    def samples(self) -> samples.Samples:
        """All windows."""
        return samples.concatenate(season.samples for season in self.seasons)

    def of(self, name: str) -> Group:
        """The seasons of one world or climate group."""
        return Group([season for season in self.seasons if name in trial.groups_of(season)])

    def sums(self, image: ModelImage) -> list[Sums]:
        """Of each field that has windows, over its years, in order of its seed."""
        return samples.per_season(self.samples, image)

    def by_world(self, image: ModelImage) -> dict[int, list[Sums]]:
        """:meth:`sums` of each world that has windows."""
        parts = {index: self.of(world).sums(image) for index, world in enumerate(WORLDS)}
        return {index: part for index, part in parts.items() if part}


def seeds(group: int, seed: int, count: int) -> range:
    """The cases of a group; groups of one seed never overlap."""
    first = group * 100_000_000 + (seed % 10_000) * 10_000
    return range(first, first + count)


def cases_of(group: int, seed: int, count: int) -> list[Case]:
    """The fields of a group; where closed loop counts they are under the settings that nodes are shipped with."""
    cases = [sample_case(number) for number in seeds(group, seed, count)]
    return [case.as_shipped() for case in cases] if group in AS_SHIPPED else cases


def run_groups(
    cases: Mapping[int, list[Case]],
    image: ModelImage,
    years: int,
    days: int | None,
    processes: int,
    progress: Progress,
    name: str,
) -> dict[int, Group]:
    """Seasons of whole groups under one image, all groups in the same batches, which is faster."""
    progress.stage(name, years * sum(map(len, cases.values())))
    together = [case for group in cases.values() for case in group]
    seasons = iter(run_cases(together, image, processes, progress.advance, days, years=years))
    return {group: Group(list(islice(seasons, years * len(fields)))) for group, fields in cases.items()}


def make(configuration: Configuration, seed: int, processes: int, progress: Progress) -> FactoryModel:
    """Run everything; the result depends on ``configuration`` and ``seed`` alone.

    Raises:
        FactoryError: the seasons hold no windows to learn from.
    """
    started = time.monotonic()
    counts = {
        TRAINING: configuration.training_fields,
        VALIDATION: configuration.validation_fields,
        TRIAL: configuration.trial_fields,
        TEST: configuration.test_fields,
    }
    years, days = configuration.years, configuration.days
    cases = {group: cases_of(group, seed, count) for group, count in counts.items()}
    by_physics = run_groups(cases, physics_only(), years, days, processes, progress, "seasons, physics")
    training, validation = by_physics[TRAINING], by_physics[VALIDATION]
    learn, judge, schedule = training.samples, validation.samples, configuration.schedule
    if not len(learn) or not len(judge):
        raise FactoryError("the seasons hold no dry-down window to learn from")
    network, crossings = grow(learn, judge, schedule, seed, progress)
    grown = "trained" if travels(crossings) else "hand-made"
    backbone = to_image(network)
    totals = {world: samples.total(parts) for world, parts in training.by_world(backbone).items()}
    kept = heads.keep_what_travels(totals, validation.by_world(backbone), seed)
    weights, scales = kept.weights, kept.scales
    activity = (backbone.forward(learn.features)[0] > backbone.second.output_zero).mean(axis=0)
    unscaled = heads.solve(samples.total(list(totals.values())), kept.metric)

    def live(group: int, image: ModelImage, name: str) -> list[Season]:
        fields = {group: cases_of(group, seed, configuration.trial_fields)}
        return run_groups(fields, image, years, days, processes, progress, name)[group].seasons

    factors = trial.UPTAKE_SCALES if scales[UPTAKE] > 0 else ()
    kept_share, trials = try_uptake(backbone, weights, factors, by_physics[TRIAL].seasons, live, seed)
    weights[UPTAKE] *= kept_share
    scales[UPTAKE] *= kept_share
    image = quantise_head(backbone, weights)

    test_physics = by_physics[TEST]
    test_model = run_groups({TEST: cases[TEST]}, image, years, days, processes, progress, "test seasons, model")[TEST]
    card = {
        "name": "noria factory model",
        "version": VERSION,
        "model_id": f"{image.model_id:08x}",
        "backbone_id": f"{image.backbone_id:08x}",
        "trained": {
            "configuration": configuration.name,
            "seed": seed,
            **{key: value for key, value in asdict(configuration).items() if key != "name"},
            "worlds": list(WORLDS),
            "climates": list(CLIMATES),
            "method": ADOPTED.name,
            "error_abroad": crossings,
            "backbone": grown,
            "training_windows": heads.class_counts(samples.total(training.sums(image))),
            "second_layer_activity": [round(float(share), 3) for share in activity],
            "dead_units": int((activity < LEAST_ACTIVITY).sum()),
        },
        "targets": list(TARGET_NAMES),
        "features": [feature.name for feature in FEATURES],
        "head_scale": [round(float(scale), 4) for scale in scales],
        **trials,
        "quantisation": _quantisation(test_physics.samples, network, backbone, unscaled),
        "test": _test_figures(test_physics, image, seed),
        "closed_loop": _json(trial.by_group(test_physics.seasons, test_model.seasons, seed)),
        "population_gram": [[[round(float(v), 3) for v in row] for row in gram] for gram in kept.metric],
    }
    progress.stage(f"done in {time.monotonic() - started:.0f} s", 0)
    return FactoryModel(image, card)


def grow(
    learn: samples.Samples, judge: samples.Samples, schedule: Schedule, seed: int, progress: Progress
) -> tuple[FloatNetwork, dict[str, dict[str, float]]]:
    """The backbone: the hand-made units, or what training made of them where that serves a world it did not see.

    Returns:
        The network, and per crossing from one world to another :func:`error_abroad` of both.
    """
    start, crossings = physical_start(), {}
    worlds = sorted(set(np.unique(learn.world)) & set(np.unique(judge.world)))
    progress.stage("TensorFlow", (len(worlds) + 1) * ADOPTED.epochs(schedule, len(worlds)))
    for world in worlds:
        home = learn.where(learn.world == world), judge.where(judge.world == world)
        away = learn.where(learn.world != world), judge.where(judge.world != world)
        tried = ADOPTED.train(home[0], home[1], schedule, seed, progress.advance)
        crossings[f"trained in {WORLDS[world]}"] = {
            "hand-made": round(error_abroad(start, away[0], away[1]), 4),
            "trained": round(error_abroad(tried.network, away[0], away[1]), 4),
        }
    trained = ADOPTED.train(learn, judge, schedule, seed, progress.advance)
    return (trained.network if travels(crossings) else start), crossings


def travels(crossings: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether training did better than what it started from in every world that it did not see, and there were two."""
    return len(crossings) > 1 and all(errors["trained"] < errors["hand-made"] for errors in crossings.values())


def try_uptake(
    backbone: ModelImage,
    weights: heads.Float,
    factors: Sequence[float],
    physics: Sequence[Season],
    live: Callable[[int, ModelImage, str], list[Season]],
    seed: int,
) -> tuple[float, dict[str, Any]]:
    """How much of the uptake head is kept: what saves most in the trial, if it saves again on fields of its own.

    Of several tries on the same fields the best looks better than it is, whatever its interval says; and this head
    alone can cost a farmer water.

    Args:
        backbone: what carries the heads.
        weights: of all heads (4, 9).
        factors: parts of the uptake head to try; none leaves nothing of it.
        physics: the trial's seasons without it.
        live: the seasons of a group under an image; the name is for the progress.
        seed: of the resampling.

    Returns:
        The factor, and for the card every try and what came of the confirmation, if it came to one.
    """

    def carrying(factor: float) -> ModelImage:
        candidate = weights.copy()
        candidate[UPTAKE] *= factor
        return quantise_head(backbone, candidate)

    verdicts = {
        factor: trial.by_group(physics, live(TRIAL, carrying(factor), f"trial, {factor}"), seed) for factor in factors
    }
    card: dict[str, Any] = {
        "uptake_trials": [_trial(factor, verdict) for factor, verdict in verdicts.items()],
        "uptake_confirmation": None,
    }
    paying = {factor: verdict["all"].benefit_mm for factor, verdict in verdicts.items() if trial.pays(verdict)}
    if not paying:
        return 0.0, card
    best = max(paying, key=paying.__getitem__)
    without = live(CONFIRMATION, physics_only(), "confirmation, physics")
    again = trial.by_group(without, live(CONFIRMATION, carrying(best), f"confirmation, {best}"), seed)
    card["uptake_confirmation"] = _trial(best, again)
    return (best if trial.pays(again) else 0.0), card


def _trial(factor: float, verdict: dict[str, trial.Comparison]) -> dict[str, Any]:
    return {
        "uptake_scale": factor,
        "pays": trial.pays(verdict),
        "hurt_groups": trial.hurt_groups(verdict),
        **_json(verdict),
    }


def _json(verdict: dict[str, trial.Comparison]) -> dict[str, Any]:
    return {world: comparison.as_json() for world, comparison in verdict.items()}


def _quantisation(
    test: samples.Samples, network: FloatNetwork, backbone: ModelImage, weights: heads.Float
) -> dict[str, list[float | None]]:
    """The network under its unscaled heads before and after int8, on the same windows: share of error explained."""
    _, outputs = quantise_head(backbone, weights).forward(test.features)
    real, int8 = explained(test, network.with_head(weights).predict(test.features)), explained(test, outputs)
    cost = [None if a is None or b is None else a - b for a, b in zip(real, int8, strict=True)]
    return {"float_r2": _rounded(real), "int8_r2": _rounded(int8), "cost_r2": _rounded(cost)}


def explained(test: samples.Samples, predictions: npt.NDArray[np.generic]) -> list[float | None]:
    """1 - Σ(y - ŷ)²/Σy² per target, outputs ending where int8 does: 0 is the physics."""
    result: list[float | None] = []
    within = np.clip(predictions.astype(np.float64), -128, 127)
    for target in range(TARGETS):
        mask = test.mask[:, target]
        truth = test.targets[mask, target].astype(np.float64)
        energy = float(truth @ truth)
        error = float(((truth - within[mask, target]) ** 2).sum())
        result.append(1 - error / energy if energy > 0 else None)
    return result


def _test_figures(test: Group, image: ModelImage, seed: int) -> dict[str, Any]:
    """The shipped head on the test seasons, over all and by world, from the sums a federation would see."""
    weights = head_weights(image)
    parts = test.sums(image)
    figures: dict[str, Any] = {"all": _skill(parts, weights)}
    for group in (*WORLDS, *CLIMATES):
        figures[group] = _skill(test.of(group).sums(image), weights)
    figures["interval"] = [
        None if pair is None else [round(end, 4) for end in pair] for pair in heads.skill_interval(parts, weights, seed)
    ]
    figures["fields_better_than_physics"] = [
        round(float(np.mean([part.sse(target, weights[target]) <= float(part.energy[target]) for part in parts])), 3)
        if parts
        else None
        for target in range(TARGETS)
    ]
    figures["windows"] = [samples.total(parts).windows(target) for target in range(TARGETS)]
    return figures


def _skill(parts: Sequence[Sums], weights: heads.Float) -> dict[str, list[float | None]]:
    return {key: _rounded(values) for key, values in heads.skill(parts, weights).items()}


def _rounded(figures: Sequence[float | None]) -> list[float | None]:
    return [None if figure is None else round(figure, 4) for figure in figures]
