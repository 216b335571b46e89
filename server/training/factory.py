"""The factory model's making, from empty hands to a model and the evidence for it.

Four groups of field-seasons with seeds of their own: *training* (weights), *validation* (epoch, restart, how much
of each head is kept), *trial* (how much of the uptake head is kept, closed loop) and *test* (figures only).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from server.training import heads, samples, trial
from server.training.network import Schedule, Trained, to_image, train_backbone
from server.training.seasons import Season, physics_only, run_many
from server.worlds.field import WORLDS
from shared_models.features import FEATURES
from shared_models.moments import TARGET_NAMES, TARGETS, Sums
from shared_models.network import ModelImage, head_weights, quantise_head

TRAINING, VALIDATION, TRIAL, TEST = 1, 2, 3, 4
"""Groups of field-seasons."""
UPTAKE = 0
UPTAKE_SCALES = (1.0, 0.5, 0.25)
"""Tried in this order; the uptake head is the only one that moves water."""
TOLERATED_YIELD_LOSS = 0.001
"""Of the mean relative yield, in any one world of the trial."""
VERSION = 1


@dataclass(frozen=True)
class Configuration:
    """How much of everything."""

    name: str
    training_seasons: int
    validation_seasons: int
    trial_seasons: int
    test_seasons: int
    schedule: Schedule
    days: int | None = None
    """Seasons end so many days after planting; None is at harvest."""


FULL = Configuration("full", 900, 200, 150, 250, Schedule(80, 40, 1024, restarts=4))
MEDIUM = Configuration("medium", 300, 90, 60, 80, Schedule(80, 40, 1024, restarts=3))
SMALL = Configuration("small", 16, 8, 3, 6, Schedule(12, 6, 256))


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
class _Group:
    """One group of seasons and the sums it gives under a backbone."""

    seasons: list[Season]

    @property
    def samples(self) -> samples.Samples:
        return samples.concatenate(season.samples for season in self.seasons)

    def sums(self, image: ModelImage) -> list[Sums]:
        """Of each season that has windows, in order."""
        return [samples.sums(season.samples, image) for season in self.seasons if len(season.samples)]

    def by_world(self, image: ModelImage) -> dict[int, Sums]:
        """Totals of each world that has windows."""
        totals = {
            index: samples.total(_Group([s for s in self.seasons if s.case.world == world]).sums(image))
            for index, world in enumerate(WORLDS)
        }
        return {index: total for index, total in totals.items() if total.count[0]}


def seeds(group: int, seed: int, count: int) -> range:
    """The cases of a group (1 training … 4 test); groups of one seed never overlap."""
    first = group * 100_000_000 + (seed % 10_000) * 10_000
    return range(first, first + count)


def make(configuration: Configuration, seed: int, processes: int, progress: Progress) -> FactoryModel:
    """Run everything; the result depends on ``configuration`` and ``seed`` alone.

    Raises:
        FactoryError: the seasons hold no windows to learn from.
    """
    started = time.monotonic()

    def seasons(group: int, count: int, image: ModelImage, name: str) -> _Group:
        progress.stage(name, count)
        cases, shipped = seeds(group, seed, count), group in (TRIAL, TEST)
        days = configuration.days
        return _Group(run_many(cases, image, processes, progress.advance, days, as_shipped=shipped))

    physics = physics_only()
    training = seasons(TRAINING, configuration.training_seasons, physics, "training seasons")
    validation = seasons(VALIDATION, configuration.validation_seasons, physics, "validation seasons")
    if not len(training.samples) or not len(validation.samples):
        raise FactoryError("the seasons hold no dry-down window to learn from")
    progress.stage("TensorFlow", configuration.schedule.epochs)
    trained = train_backbone(training.samples, validation.samples, configuration.schedule, seed, progress.advance)
    backbone = to_image(trained.network)
    metric = heads.population_gram(samples.total(training.sums(backbone)))
    scales = heads.transfer_scales(training.by_world(backbone), validation.by_world(backbone), metric)
    full = heads.solve(samples.total(training.sums(backbone)), metric)
    scales[heads.doubtful(validation.sums(backbone), full * scales[:, None], seed)] = 0.0
    weights = full * scales[:, None]

    trials: list[dict[str, Any]] = []
    best_scale, best_benefit = 0.0, 0.0
    trial_physics = seasons(TRIAL, configuration.trial_seasons, physics, "trial seasons, physics")
    for factor in UPTAKE_SCALES if scales[UPTAKE] > 0 else ():
        candidate = weights.copy()
        candidate[UPTAKE] *= factor
        group = seasons(TRIAL, configuration.trial_seasons, quantise_head(backbone, candidate), f"trial, {factor}")
        verdict = _by_world(trial_physics.seasons, group.seasons, seed)
        benefit = verdict["all"].benefit_mm
        harmless = all(part.yield_change >= -TOLERATED_YIELD_LOSS for part in verdict.values())
        trials.append({"uptake_scale": factor, "harmless": harmless, "benefit_mm": round(benefit, 2), **_json(verdict)})
        if harmless and benefit > best_benefit:
            best_scale, best_benefit = factor, benefit
    weights[UPTAKE] *= best_scale
    scales[UPTAKE] *= best_scale
    image = quantise_head(backbone, weights)

    test_physics = seasons(TEST, configuration.test_seasons, physics, "test seasons, physics")
    test_model = seasons(TEST, configuration.test_seasons, image, "test seasons, model")
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
            "training_windows": heads.class_counts(samples.total(training.sums(image))),
            "validation_loss": round(trained.validation_loss, 5),
            "second_layer_activity": [round(share, 3) for share in trained.activity],
            "dead_units": trained.dead_units,
        },
        "targets": list(TARGET_NAMES),
        "features": [feature.name for feature in FEATURES],
        "head_scale": [round(float(scale), 4) for scale in scales],
        "uptake_trials": trials,
        "quantisation": _quantisation(test_physics.samples, trained, backbone),
        "test": _test_figures(test_physics, image),
        "closed_loop": _json(_by_world(test_physics.seasons, test_model.seasons, seed)),
        "population_gram": [[[round(float(v), 3) for v in row] for row in gram] for gram in metric],
    }
    progress.stage(f"done in {time.monotonic() - started:.0f} s", 0)
    return FactoryModel(image, card)


def _by_world(physics: Sequence[Season], model: Sequence[Season], seed: int) -> dict[str, trial.Comparison]:
    """Comparisons over all worlds and in each; a world no season fell into is left out."""
    comparisons = {"all": trial.compare(physics, model, seed)}
    for world in WORLDS:
        pairs = [(p, m) for p, m in zip(physics, model, strict=True) if p.case.world == world]
        if pairs:
            comparisons[world] = trial.compare([p for p, _ in pairs], [m for _, m in pairs], seed)
    return comparisons


def _json(verdict: dict[str, trial.Comparison]) -> dict[str, Any]:
    return {world: comparison.as_json() for world, comparison in verdict.items()}


def _quantisation(test: samples.Samples, trained: Trained, backbone: ModelImage) -> dict[str, list[float | None]]:
    """The trained network before and after int8, on the same windows: share of squared error explained."""
    _, outputs = backbone.forward(test.features)
    return {
        "float_r2": _explained(test, trained.network.predict(test.features).astype(np.float64)),
        "int8_r2": _explained(test, outputs.astype(np.float64)),
    }


def _explained(test: samples.Samples, predictions: np.ndarray[Any, np.dtype[np.float64]]) -> list[float | None]:
    """1 - Σ(y - ŷ)²/Σy² per target: 0 is the physics."""
    result: list[float | None] = []
    for target in range(TARGETS):
        mask = test.mask[:, target]
        truth = test.targets[mask, target].astype(np.float64)
        energy = float(truth @ truth)
        error = float(((truth - predictions[mask, target]) ** 2).sum())
        result.append(round(1 - error / energy, 4) if energy > 0 else None)
    return result


def _test_figures(test: _Group, image: ModelImage) -> dict[str, Any]:
    """The shipped head on the test seasons, over all and by world, from the sums a federation would see."""
    weights = head_weights(image)
    figures: dict[str, Any] = {"all": _rounded(heads.skill(test.sums(image), weights))}
    for world in WORLDS:
        group = _Group([season for season in test.seasons if season.case.world == world])
        figures[world] = _rounded(heads.skill(group.sums(image), weights))
    parts = test.sums(image)
    figures["seasons_better_than_physics"] = [
        round(
            float(np.mean([part.sse(target, weights[target]) <= float(part.energy[target]) for part in parts])),
            3,
        )
        if parts
        else None
        for target in range(TARGETS)
    ]
    figures["windows"] = [samples.total(parts).windows(target) for target in range(TARGETS)]
    return figures


def _rounded(figures: dict[str, list[float | None]]) -> dict[str, list[float | None]]:
    return {key: [None if v is None else round(v, 4) for v in values] for key, values in figures.items()}
