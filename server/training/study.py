"""Does it pay to compress, to distil, to train by groups? Every method against the plain small net, by one protocol.

Each method trains on the seasons of one world and is examined on test seasons of the same world and of the other;
then on both worlds together, for bytes, for the worst group of fields and for closed loop. Heads are solved in
closed form on the training seasons' sums, as the factory does; in the accuracy figures nothing is scaled down, so
that they compare networks. Means are over the forecasts: the uptake label, mostly the probes' own error, is so easily
foretold that in a mean it would drown them. In closed loop the heads are scaled by what travels, as shipped before the
trial.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from server.training import heads, samples, trial
from server.training.distillation import teach, teacher_epochs
from server.training.factory import STUDY, TEST, TRAINING, VALIDATION, Group, Progress, cases_of, explained, run_groups
from server.training.methods import ADOPTED, HAND_MADE, PLAIN_METHOD, Method, group_names, groups_of
from server.training.network import Recipe, Schedule, to_image
from server.training.seasons import physics_only
from server.worlds.field import WORLDS
from shared_models.container import build_full
from shared_models.moments import TARGET_NAMES, UPTAKE
from shared_models.network import ModelImage, quantise_head

Float = npt.NDArray[np.float64]
Predict: TypeAlias = Callable[[npt.NDArray[np.int8]], npt.NDArray[np.generic]]
"""Features (n, 24) to outputs in output steps (n, 4)."""

TEACHER = "teacher: wide ensemble"
METHODS = (
    Method("plain, never rounded", rounded=False),
    PLAIN_METHOD,
    Method("6-bit weights", Recipe(weight_bits=6)),
    Method("4-bit weights", Recipe(weight_bits=4)),
    Method("pruned 16 to 12 units", Recipe(hidden=12)),
    Method("pruned 16 to 8 units", Recipe(hidden=8)),
    Method("distilled", taught=True),
    Method("distilled, 12 units, 6-bit weights", Recipe(hidden=12, weight_bits=6), taught=True),
    Method("12 units, 6-bit weights", Recipe(hidden=12, weight_bits=6)),
    HAND_MADE,
    ADOPTED,
    Method("by groups", Recipe(group_rate=0.1)),
)


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    name: str
    training_fields: int
    validation_fields: int
    closed_loop_fields: int
    test_fields: int
    repeats: int
    schedule: Schedule
    years: int = 2
    days: int | None = None


FULL = Size("full", 150, 50, 60, 60, 3, Schedule(80, 40, 512))
SMALL = Size("small", 8, 4, 2, 4, 1, Schedule(3, 2, 256), years=1, days=60)


@dataclass
class _Marks:
    """A method's figures as they come in, one row per training."""

    same: list[Float] = field(default_factory=list)
    cross: list[Float] = field(default_factory=list)
    pooled: list[Float] = field(default_factory=list)
    worst: list[float] = field(default_factory=list)
    worst_group: list[str] = field(default_factory=list)
    images: list[ModelImage] = field(default_factory=list)


def run(
    size: Size, seed: int, processes: int, progress: Progress, methods: Sequence[Method] = METHODS
) -> dict[str, Any]:
    """The whole study; the result depends on ``size``, ``seed`` and ``methods`` alone.

    Returns:
        For JSON: ``lines``, one per method and the teacher, each with ``same_world`` and ``cross_world`` share of the
        squared residual explained (mean over worlds and repeats, by target), means over the forecasts, bytes, and
        closed loop.
    """
    counts = {
        TRAINING: size.training_fields,
        VALIDATION: size.validation_fields,
        TEST: size.test_fields,
        STUDY: size.closed_loop_fields,
    }
    cases = {group: cases_of(group, seed, count) for group, count in counts.items()}

    def seasons(groups: Sequence[int], image: ModelImage, name: str) -> dict[int, Group]:
        chosen = {group: cases[group] for group in groups}
        return run_groups(chosen, image, size.years, size.days, processes, progress, name)

    by_physics = seasons(tuple(counts), physics_only(), "seasons, physics")
    training, validation, test = by_physics[TRAINING], by_physics[VALIDATION], by_physics[TEST].samples
    lines = [_teacher(training, validation, test, size, seed, progress)]
    for method in methods:
        marks = _train(method, training, validation, test, size, seed, progress)
        line = {"method": method.name, **_figures(marks)}
        if method.rounded:
            sizes = [len(build_full(image, 1).payload) for image in marks.images]
            image = marks.images[0]
            totals = {world: samples.total(parts) for world, parts in training.by_world(image).items()}
            kept = heads.keep_what_travels(totals, validation.by_world(image), seed)
            shipped = quantise_head(image, kept.weights)
            loop = seasons((STUDY,), shipped, f"closed loop, {method.name}")[STUDY]
            verdict = trial.by_group(by_physics[STUDY].seasons, loop.seasons, seed)
            line |= {
                "payload_bytes": round(float(np.mean(sizes)), 1),
                "hidden_units": method.recipe.hidden,
                "head_scale": [round(float(scale), 3) for scale in kept.scales],
                "closed_loop": {group: comparison.as_json() for group, comparison in verdict.items()},
                "hurt_groups": trial.hurt_groups(verdict),
            }
        lines.append(line)
    return {
        "size": size.name,
        "seed": seed,
        "training_seasons": size.years * size.training_fields,
        "test_seasons": size.years * size.test_fields,
        "test_windows": len(test),
        "closed_loop_seasons": size.years * size.closed_loop_fields,
        "repeats": size.repeats,
        "targets": list(TARGET_NAMES),
        "adopted": ADOPTED.name,
        "lines": lines,
    }


def _worlds(part: samples.Samples) -> list[samples.Samples]:
    return [part.where(part.world == world) for world in range(len(WORLDS))]


def _train(
    method: Method, training: Group, validation: Group, test: samples.Samples, size: Size, seed: int, progress: Progress
) -> _Marks:
    marks = _Marks()
    learn, judge, exams = _worlds(training.samples), _worlds(validation.samples), _worlds(test)
    epochs = len(WORLDS) * method.epochs(size.schedule, 1) + method.epochs(size.schedule, len(WORLDS))
    progress.stage(method.name, size.repeats * epochs)
    for number in range(seed, seed + 37 * size.repeats, 37):
        for world in range(len(WORLDS)):
            predict, _ = _predictor(method, learn[world], judge[world], size.schedule, number, progress)
            _examine(marks, predict, exams, world)
        predict, image = _predictor(method, training.samples, validation.samples, size.schedule, number, progress)
        _examine_pooled(marks, predict, test)
        marks.images += [image] if image is not None else []
    return marks


def _predictor(
    method: Method, own: samples.Samples, held: samples.Samples, schedule: Schedule, seed: int, progress: Progress
) -> tuple[Predict, ModelImage | None]:
    """What a trained network says, and its image under a closed-form head; one never rounded has none."""
    trained = method.train(own, held, schedule, seed, progress.advance)
    if not method.rounded:
        return trained.network.predict, None
    backbone = to_image(trained.network)
    sums = samples.sums(own, backbone)
    image = quantise_head(backbone, heads.solve(sums, heads.population_gram(sums)))
    return lambda features: image.forward(features)[1], image


def _teacher(
    training: Group, validation: Group, test: samples.Samples, size: Size, seed: int, progress: Progress
) -> dict[str, Any]:
    """The teacher by itself, in floats: what there is to be taught."""
    marks = _Marks()
    learn, judge, exams = _worlds(training.samples), _worlds(validation.samples), _worlds(test)
    progress.stage(TEACHER, 2 * teacher_epochs(size.schedule, len(WORLDS)))
    for world in range(len(WORLDS)):
        teacher = teach(learn[world], judge[world], size.schedule, seed, progress.advance)
        _examine(marks, teacher.predict, exams, world)
    teacher = teach(training.samples, validation.samples, size.schedule, seed, progress.advance)
    _examine_pooled(marks, teacher.predict, test)
    return {"method": TEACHER, **_figures(marks)}


def _examine(marks: _Marks, predict: Predict, exams: list[samples.Samples], world: int) -> None:
    for other, exam in enumerate(exams):
        result = _array(explained(exam, predict(exam.features)))
        (marks.same if other == world else marks.cross).append(result)


def _examine_pooled(marks: _Marks, predict: Predict, test: samples.Samples) -> None:
    predictions, groups = predict(test.features), groups_of(test)
    marks.pooled.append(_array(explained(test, predictions)))
    by_group = {
        name: float(np.mean(_forecasts(_array(explained(test.where(groups == number), predictions[groups == number])))))
        for number, name in enumerate(group_names())
        if (groups == number).any()
    }
    worst = min(by_group, key=lambda name: by_group[name])
    marks.worst.append(by_group[worst])
    marks.worst_group.append(worst)


def _array(shares: Sequence[float | None]) -> Float:
    """Shares by target; a target without windows explains nothing."""
    return np.array([0.0 if share is None else share for share in shares])


def _forecasts(shares: npt.ArrayLike) -> Float:
    """Of shares by target in the last axis those of the forecasts."""
    return np.delete(np.asarray(shares, np.float64), UPTAKE, axis=-1)


def _figures(marks: _Marks) -> dict[str, Any]:
    def spread(values: Sequence[Float]) -> float:
        """Standard deviation of the mean over forecasts between repeats."""
        means = _forecasts(values).mean(axis=1).reshape(len(marks.pooled), -1).mean(axis=1)
        return round(float(means.std(ddof=1)), 4) if len(means) > 1 else 0.0

    def by_target(values: Sequence[Float]) -> list[float]:
        return [round(float(value), 4) for value in np.mean(values, axis=0)]

    def mean(values: Sequence[Float]) -> float:
        return round(float(np.mean(_forecasts(values))), 4)

    return {
        "same_world": by_target(marks.same),
        "same_world_mean": mean(marks.same),
        "same_world_spread": spread(marks.same),
        "cross_world": by_target(marks.cross),
        "cross_world_mean": mean(marks.cross),
        "cross_world_spread": spread(marks.cross),
        "both_worlds": by_target(marks.pooled),
        "both_worlds_mean": mean(marks.pooled),
        "worst_group_mean": round(float(np.mean(marks.worst)), 4),
        "worst_group": max(sorted(set(marks.worst_group)), key=marks.worst_group.count),
    }
