"""Does a refreshed backbone forecast better where the factory never was? In the judge's world; ``docs/research.md``.

A fleet is six farms of one of the judge's climates (or all of them): fields that AquaCrop waters, under the factory
model for a season. Its sums make the fleet's head, and then a refresh (:mod:`server.refresh`), which sees nothing else
of them. The next season's windows judge both models as they would be released, whatever the refresh's own gate said,
which is written beside it; and once more under heads solved from the first season's windows on either backbone, which
is what a refreshed fleet would know a season later. Nothing was chosen by these figures.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from nodes.field.climates import CLIMATES
from nodes.field.fields import FieldYear, sample_fields
from nodes.field.trial import run_node
from noria.evaluation.forecast_heads import fleet_rows, shipped_rows
from noria.evaluation.forecast_windows import Dawn, Dawns, Windows, windows_of, with_rows
from noria.pages import with_table
from server.refresh.making import FULL, Made, Terms, make
from server.strategy import total_of
from shared_models.container import build_delta
from shared_models.factory import factory_image
from shared_models.moments import Sums
from shared_models.network import ModelImage, head_weights, quantise_head
from shared_models.reference import Outcome
from shared_models.state import State

SEEDS = (101, 102, 103, 201, 202, 203)
FIELDS = 3
TERMS = Terms(minimum_gain=0.005, least_fields=5.0, payload_bytes=36, seed=1, processes=2)
HORIZONS = (1, 2, 3)
RESAMPLES = 1000
FOLDER = Path(__file__).parents[1] / "build" / "refresh"
PAGE = Path(__file__).parents[1] / "docs" / "research.md"
EVERYWHERE = "all nine"
CONTROL = "all nine, a poorer backbone"
"""Five of the eight units taken away, all falls of the probes of one day among them: a gain there is to be had."""
POORER = (1, 2, 3, 4, 7)


def without_units() -> ModelImage:
    """The factory model as if nobody had thought of :data:`POORER`."""
    image = factory_image()
    first, second = image.first.weights.copy(), image.second.weights.copy()
    second[list(POORER)] = 0
    first[~second.any(axis=0)] = 0
    heads = head_weights(image)
    heads[:, list(POORER)] = 0
    poorer = ModelImage(replace(image.first, weights=first), replace(image.second, weights=second), image.head)
    return quantise_head(poorer, heads)


class Watch(Dawns):
    """Dawns, and the features a node had at each."""

    def __init__(self, image: ModelImage) -> None:
        super().__init__(image)
        self.features: list[tuple[int, ...]] = []

    def watch(self, state: State, outcome: Outcome) -> None:
        super().watch(state, outcome)
        if outcome.dawn:
            self.features.append(tuple(state.features))


@dataclass(frozen=True)
class Life:
    """A field's two seasons, dawn by dawn."""

    farm: tuple[str, int]
    years: list[tuple[list[Dawn], list[tuple[int, ...]]]]

    def windows(self, year: int, image: ModelImage) -> Windows:
        """As they would have been with another backbone; the water is the same, for no head moves it."""
        dawns, features = self.years[year]
        activations, _ = image.forward(np.array(features, np.int8))
        phis = image.moments_input(activations).tolist()
        return windows_of([dawn._replace(phi=tuple(phi)) for dawn, phi in zip(dawns, phis, strict=True)])


class Lines:
    """Progress, in lines."""

    def stage(self, name: str, steps: int) -> None:  # noqa: ARG002  the protocol's
        Console(stderr=True).print(name)

    def advance(self, remark: str = "") -> None:
        pass


def measure() -> dict[str, Any]:
    """Every climate by itself, and all together; the table is replaced."""
    years = [year for seed in SEEDS for year in sample_fields(seed, None, FIELDS)]
    lives = _lives([tuple(life) for _, life in groupby(years, key=lambda year: (year.seed, year.name))])
    lines = [judged(name, [life for life in lives if life.farm[0] == name]) for name in sorted(CLIMATES)]
    lines.append(judged(EVERYWHERE, lives))
    lines.append(judged(CONTROL, lives, without_units()))
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), "refresh", table(lines)), encoding="utf-8")
    return {"seeds": SEEDS, "fields_per_farm": FIELDS, "configuration": FULL.name, "lines": lines}


def judged(name: str, lives: Sequence[Life], shipped: ModelImage | None = None) -> dict[str, Any]:
    """One fleet's refresh, and what became of it."""
    factory = shipped or factory_image()
    farms = sorted({life.farm for life in lives})

    def fleet(image: ModelImage) -> dict[str, Sums]:
        return {
            f"{climate} {seed}": total_of(life.windows(0, image).sums() for life in lives if life.farm == farm)
            for farm in farms
            for climate, seed in [farm]
        }

    sites = fleet(factory)
    running = with_rows(factory, fleet_rows(list(sites.values()), shipped_rows(factory)))
    made = make(running, sites, FULL, TERMS, FOLDER, Lines())
    candidate = made.candidate or running
    later = {
        key: with_rows(image, fleet_rows(list(fleet(image).values()), shipped_rows(image)))
        for key, image in (("running", running), ("refreshed", candidate))
    }
    as_released = _errors(lives, {"factory": factory, "running": running, "refreshed": candidate})
    line = {
        "fleet": name,
        "farms": len(farms),
        "verdict": made.evidence.verdict,
        "reason": made.evidence.reason,
        "changed_numbers": made.evidence.changed_numbers,
        "delta_bytes": _delta_bytes(made, running),
        "gate": _gate(made),
        "fields": {
            entry.world: [round(entry.training_fields, 1), round(entry.judging_fields, 1)]
            for entry in made.evidence.matched
        },
        "as_released": _compare(as_released, "running", "refreshed"),
        "own_statistics": _compare(_errors(lives, later), "running", "refreshed"),
        "over_average": {
            key: {f"{24 * days} h": _rmse(as_released, key, days) for days in HORIZONS}
            for key in ("factory", "running", "refreshed")
        },
    }
    Console(stderr=True).print(line)
    return line


def _delta_bytes(made: Made, running: ModelImage) -> int | None:
    """With header and signature."""
    return None if made.candidate is None else 15 + len(build_delta(made.candidate, running, 2).payload) + 64


def _gate(made: Made) -> list[dict[str, Any]]:
    return [
        {
            "learned_in": crossing.learned_in,
            "judged_in": crossing.judged_in,
            "ratio": round(crossing.against_running, 4),
            "bound": round(crossing.running_bound, 4),
        }
        for crossing in made.evidence.crossings
    ]


def _errors(lives: Sequence[Life], images: dict[str, ModelImage]) -> dict[tuple[str, int], np.ndarray]:
    """Squared errors on the second season's own dry-down windows, per field, by model and horizon."""
    found: dict[tuple[str, int], np.ndarray] = {}
    for key, image in images.items():
        for days in HORIZONS:
            rows = []
            for life in lives:
                windows = life.windows(1, image)
                windows = windows.where(windows.gated & (windows.days == days))
                off = (windows.observed_e4 - windows.forecast_e4(image)).astype(np.float64)
                average = (windows.observed_e4 - windows.average_e4()).astype(np.float64)
                rows.append((float(off @ off), float(average @ average)))
            found[key, days] = np.array(rows)
    return found


def _rmse(errors: dict[tuple[str, int], np.ndarray], key: str, days: int) -> float:
    off, average = errors[key, days].sum(axis=0)
    return round(float(np.sqrt(off / average)), 4)


def _compare(errors: dict[tuple[str, int], np.ndarray], before: str, after: str) -> dict[str, list[float]]:
    """Root mean squared error after over before, with its 95 % interval, fields resampled."""
    rng = np.random.default_rng(0)
    found = {}
    for days in HORIZONS:
        old, new = errors[before, days][:, 0], errors[after, days][:, 0]
        picks = rng.integers(0, len(old), (RESAMPLES, len(old)))
        ratios = np.sqrt(new[picks].sum(axis=1) / old[picks].sum(axis=1))
        low, high = np.quantile(ratios, [0.025, 0.975])
        figures = (np.sqrt(new.sum() / old.sum()), low, high)
        found[f"{24 * days} h"] = [round(float(value), 4) for value in figures]
    return found


def table(lines: Sequence[dict[str, Any]]) -> str:
    """For the page."""
    rows = [
        "| fleet | gate | changed | delta, B | 24 h | 48 h | 72 h | a season later, 24 h | 48 h | 72 h |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        figures = [
            f"{ratio:.3f} [{low:.3f}, {high:.3f}]"
            for part in ("as_released", "own_statistics")
            for ratio, low, high in line[part].values()
        ]
        rows.append(
            f"| {line['fleet']} | {line['verdict']} | {line['changed_numbers']} | {line['delta_bytes'] or '–'} | "
            + " | ".join(figures)
            + " |"
        )
    return "\n".join(rows)


def _live(years: tuple[FieldYear, ...]) -> Life:
    image, state, seen = factory_image(), None, []
    for year in years:
        dawns = Watch(image)
        state = run_node(year, image, state=state, on_dawn=dawns.watch).state
        seen.append((dawns.seen, dawns.features))
    return Life((years[0].climate, years[0].seed), seen)


def _lives(tasks: list[tuple[FieldYear, ...]]) -> list[Life]:
    from nodes.hostcore import library

    library()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=context) as pool:
        return list(pool.map(_live, tasks))
