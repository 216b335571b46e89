"""What each part of the policy is worth in the training worlds; ``docs/research.md`` gets the table.

Every variation is one change to the shipped node, run over a curve of thresholds on the same fields. Two curves are
compared at equal yield, because any change can be paid for with water. The judge has no part in this.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from noria.pages import with_table
from server.training.seasons import Season, physics_only, run_cases
from server.training.trial import WORTH_OF_YIELD_MM
from server.worlds.field import WORLDS, Case, sample_case
from shared_models.settings import SHIPPED_THRESHOLD_PERMILLE

PAGE = Path(__file__).parent.parent / "docs" / "research.md"
FIRST_SEED, FIELDS = 600_000_000, 80
"""A group of fields that no training, trial or test draws from."""
MULTIPLES = (0.5, 0.75, 1.0, 1.3)
"""Of the shipped threshold."""
YIELDS = (0.96, 0.97, 0.98)
PART = 40


@dataclass(frozen=True)
class Variation:
    """One way in which a node differs from the shipped one."""

    name: str
    constants: Mapping[str, object] = field(default_factory=dict)
    """``module.NAME`` of :mod:`shared_models` to its value."""
    settings: Mapping[str, int] = field(default_factory=dict)


VARIATIONS = (
    Variation("as shipped"),
    Variation("one threshold for all stages", {"policy.STAGE_THRESHOLDS_Q4": (16, 16, 16, 16)}),
    Variation("stages 11, 16, 20, 27 sixteenths", {"policy.STAGE_THRESHOLDS_Q4": (11, 16, 20, 27)}),
    Variation("threshold blind to demand", {"policy.DEMAND_Q10_PER_MM": 0}),
    Variation("observer gain .15", {"balance.OBSERVER_GAIN_Q10": 154}),
    Variation("observer gain .25", {"balance.OBSERVER_GAIN_Q10": 256}),
    Variation("observer gain .6", {"balance.OBSERVER_GAIN_Q10": 614}),
    Variation("probes alone", {"balance.OBSERVER_GAIN_Q10": 1024}),
    Variation("both probes alike", {"balance.DEEP_WEIGHT": 5}),
    Variation("doses of 12 mm", settings={"dose_e1_mm": 120}),
    Variation("doses of 30 mm", settings={"dose_e1_mm": 300}),
    Variation("at most every third day", settings={"min_interval_h": 68}),
)


def measure() -> dict[str, Any]:
    """Water at equal yield of every variation; the table in ``docs/research.md`` is replaced."""
    cases = [sample_case(seed).as_shipped() for seed in range(FIRST_SEED, FIRST_SEED + FIELDS)]
    parts = [[c for c in cases if c.world == world][i : i + PART] for world in WORLDS for i in range(0, FIELDS, PART)]
    jobs = [
        (variation, round(SHIPPED_THRESHOLD_PERMILLE * multiple), part)
        for variation in VARIATIONS
        for multiple in MULTIPLES
        for part in parts
        if part
    ]
    curves: dict[str, dict[int, list[Season]]] = {}
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        finished = pool.imap(_run, jobs)
        for job, seasons in zip(jobs, track(finished, "policy", len(jobs), console=Console(stderr=True)), strict=True):
            curves.setdefault(job[0].name, {}).setdefault(job[1], []).extend(seasons)
    lines = [{"name": name, **_figures(curve)} for name, curve in curves.items()]
    result = {"fields": FIELDS, "worlds": list(WORLDS), "multiples": list(MULTIPLES), "lines": lines}
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), "policy", table(result)), encoding="utf-8")
    return result


def _run(job: tuple[Variation, int, Sequence[Case]]) -> list[Season]:
    variation, threshold, cases = job
    with _constants(variation.constants):
        return run_cases(cases, physics_only(), changes={**variation.settings, "threshold_permille": threshold})


@contextmanager
def _constants(changes: Mapping[str, object]) -> Iterator[None]:
    """The shipped node is one set of constants; another set makes another node."""
    before: list[tuple[object, str, object]] = []
    for path, value in changes.items():
        module_name, name = path.split(".")
        module = importlib.import_module(f"shared_models.{module_name}")
        before.append((module, name, getattr(module, name)))
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def _figures(curve: Mapping[int, Sequence[Season]]) -> dict[str, Any]:
    points = [
        {
            "threshold_permille": threshold,
            "water_mm": round(float(np.mean([season.outcome.irrigation_mm for season in seasons])), 1),
            "yield": round(float(np.mean([season.outcome.relative_yield for season in seasons])), 4),
            "depletion_rmse": round(float(np.nanmean([season.depletion_rmse for season in seasons])), 3),
            "depletion_bias": round(float(np.nanmean([season.depletion_bias for season in seasons])), 3),
        }
        for threshold, seasons in sorted(curve.items())
    ]
    for point in points:
        point["benefit_mm"] = round(WORTH_OF_YIELD_MM * (point["yield"] - 1) - point["water_mm"], 1)
    equal = {world: _water_at(curve, world) for world in ("all", *WORLDS)}
    return {"points": points, "water_at_yield_mm": equal}


def _water_at(curve: Mapping[int, Sequence[Season]], world: str) -> list[float | None]:
    """Water for each of :data:`YIELDS` along the curve; None outside it."""
    ends = []
    for seasons in curve.values():
        chosen = [season.outcome for season in seasons if world in ("all", season.case.world)]
        ends.append((np.mean([o.relative_yield for o in chosen]), np.mean([o.irrigation_mm for o in chosen])))
    yields, waters = np.array(sorted(ends)).T
    return [
        round(float(np.interp(wanted, yields, waters)), 1) if yields[0] <= wanted <= yields[-1] else None
        for wanted in YIELDS
    ]


def table(result: dict[str, Any]) -> str:
    """Markdown."""
    head = ["| node | best benefit, mm (at threshold) | " + " | ".join(f"water at {y:.2f}" for y in YIELDS)]
    rows = [head[0] + " | dual-kc, darcy at .97 | rmse, bias of Dr/TAW |", "|---" * (len(YIELDS) + 4) + "|"]
    for line in result["lines"]:
        best = max(line["points"], key=lambda point: point["benefit_mm"])
        equal = line["water_at_yield_mm"]
        cells = [
            line["name"],
            f"{best['benefit_mm']:.0f} (.{best['threshold_permille']:03d})",
            *(_cell(value) for value in equal["all"]),
            ", ".join(_cell(equal[world][1]) for world in WORLDS),
            f"{best['depletion_rmse']:.3f}, {best['depletion_bias']:+.3f}",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"
