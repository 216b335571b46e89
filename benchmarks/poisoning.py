"""What a fifth of lying gateways can do to a release; ``docs/research.md`` gets the tables.

Farms of the training worlds (:mod:`benchmarks.farms`) answer with their first year; some of them lie
(:mod:`benchmarks.attacks`). What counts is the squared error at the *honest* farms in the year that follows, of the
head they would get: of what is released where the gate passes it and the farm is not held back, else of what runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attacks import ATTACKS, HONEST, Scene, answers
from benchmarks.farms import backbone, load
from noria.pages import with_table
from server.config import GateSection
from server.gate import Evidence, Gate
from server.panel import Panel
from shared_models.moments import TARGET_CLASS, TARGETS, Sums
from shared_models.network import ModelImage, head_weights, zero_head
from shared_models.ridge import Weights, prior_metric, ridge

PAGE = Path(__file__).parent.parent / "docs" / "research.md"
FLEETS = (10, 30, 100)
LIARS = (0.0, 0.2)
SEEDS = {10: 6, 30: 2, 100: 1}
"""Draws of farms and liars; a hundred farms are all there are."""
RUNNING = ("factory", "physics")
FORECASTS = range(1, TARGETS)
"""Uptake is held at zero whatever anyone sends."""


def measure() -> dict[str, Any]:
    """Every attack on every fleet, this gate and published alternatives; the tables are replaced."""
    jobs = [
        (running, farms, liars, seed, attack)
        for running in RUNNING
        for farms in FLEETS
        for liars in LIARS
        for seed in range(SEEDS[farms])
        for attack in (ATTACKS if liars else ("none",))
    ]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        lines = list(pool.map(_run, jobs, chunksize=8))
    result = {"farms": len(load()), "lines": lines, "summary": summary(lines)}
    page = with_table(PAGE.read_text(encoding="utf-8"), "poisoning", table(result["summary"]))
    PAGE.write_text(with_table(page, "attacks", attack_table(lines)), encoding="utf-8")
    return result


def _run(job: tuple[str, int, float, int, str]) -> dict[str, Any]:
    running, farms, liars, seed, attack = job
    return run(running, farms, liars, seed, attack)


def run(running: str, farms: int, liars: float, seed: int, attack: str) -> dict[str, Any]:
    """One attack on one fleet."""
    everyone, image = load(), _image(running)
    rng, chosen = _draw(farms, seed)
    lying, honest = chosen[: round(liars * farms)], chosen[round(liars * farms) :]
    scene = Scene(
        honest=[everyone[i].sums(0) for i in honest],
        own=[everyone[i].sums(0) for i in lying],
        prior=head_weights(image),
        rng=rng,
    )
    true = {everyone[i].name: sums for i, sums in zip(honest, scene.honest, strict=True)}
    false = (
        {everyone[i].name: sums for i, sums in zip(lying, answers(attack, scene), strict=True)} if len(lying) else {}
    )
    judges = Panel.of({everyone[i].name: everyone[i].sums(1) for i in honest})
    runs = _error(judges, np.repeat(scene.prior[None], len(judges), axis=0))
    heads = {
        name: _error(judges, np.repeat(method(Panel.of(true | false), scene.prior)[None], len(judges), axis=0)) / runs
        for name, method in METHODS.items()
    }
    before = np.repeat(scene.prior[None], len(judges), axis=0)
    with_liars, evidence = _released(image, true | false, judges.names)
    without, honest_evidence = _alone(running, farms, liars, seed)
    got = np.array([name not in evidence.held_back for name in judges.names])
    ran = judges.where(got)
    return {
        "running": running,
        "farms": farms,
        "liars": len(lying),
        "seed": seed,
        "attack": attack,
        "heads": {name: round(value, 5) for name, value in heads.items()},
        "released": evidence.verdict == "passed",
        "error": round(_error(judges, with_liars) / runs, 5),
        "error_without_liars": round(_error(judges, without) / runs, 5),
        "worse_where_released": round(_error(ran, with_liars[got]) / _error(ran, without[got]) - 1, 5),
        "released_without_liars": honest_evidence.verdict == "passed",
        "worst_farm": round(float((_errors(judges, with_liars) / _errors(judges, before)).max()), 5),
        "held_back_honest": len(set(evidence.held_back) & set(true)),
        "set_aside_honest": len(set(evidence.set_aside) & set(true)),
        "set_aside_liars": len(set(evidence.set_aside) & set(false)),
        "reason": evidence.reason,
    }


@cache
def _alone(running: str, farms: int, liars: float, seed: int) -> tuple[Weights, Evidence]:
    """What the honest farms would run if nobody lied, and why."""
    everyone, image = load(), _image(running)
    chosen = _draw(farms, seed)[1][round(liars * farms) :]
    names = tuple(sorted(everyone[i].name for i in chosen))
    return _released(image, {everyone[i].name: everyone[i].sums(0) for i in chosen}, names)


def _draw(farms: int, seed: int) -> tuple[np.random.Generator, Sequence[int]]:
    """Farms in the order in which they turn to lying."""
    rng = np.random.default_rng([0x6C69, farms, seed])
    return rng, [int(farm) for farm in rng.permutation(len(load()))[:farms]]


def _image(running: str) -> ModelImage:
    return backbone() if running == "factory" else zero_head(backbone())


def _released(image: ModelImage, sums: Mapping[str, Sums], names: Sequence[str]) -> tuple[Weights, Evidence]:
    """The heads (n, 4, 9) that the named farms run after a round, and the evidence."""
    section = GateSection()
    gate = Gate(section.tolerance, section.minimum_gain, section.held_back_share, section.window_cap)
    made, evidence = gate.judge(image, sums)
    prior, new = head_weights(image), head_weights(made or image)
    return np.stack([prior if name in evidence.held_back else new for name in names]), evidence


def _errors(judges: Panel, heads: Weights) -> Weights:
    """Squared error per farm over its physics', mean of the forecast targets, (n,)."""
    return np.mean(
        [judges.own_error(target, heads[:, target]) / np.maximum(judges.energy[:, target], 1) for target in FORECASTS],
        axis=0,
    )


def _error(judges: Panel, heads: Weights) -> float:
    """Squared error over all farms over the physics', mean of the forecast targets."""
    return float(
        np.mean(
            [judges.own_error(target, heads[:, target]).sum() / judges.energy[:, target].sum() for target in FORECASTS]
        )
    )


# How others aggregate. Each answers with a head (4, 9) for sums of which a fifth may be false.


def _site_heads(panel: Panel, prior: Weights) -> Weights:
    """(n, 4, 9)."""
    heads = np.repeat(prior[None], len(panel), axis=0)
    for target in FORECASTS:
        window_class = TARGET_CLASS[target]
        gram = panel.gram[:, window_class].astype(np.float64)
        windows = panel.windows(target).astype(np.float64)
        metric = prior_metric(np.median(gram / np.maximum(windows, 1)[:, None, None], axis=0), 1.0)
        heads[:, target] = ridge(
            gram, panel.moment[:, target].astype(np.float64), windows, prior[target], HONEST, metric
        )
    return heads


def plain_sum(panel: Panel, prior: Weights) -> Weights:
    """The solve on everything."""
    total, head = panel.total(), prior.copy()
    for target in FORECASTS:
        window_class = TARGET_CLASS[target]
        head[target] = ridge(
            total.gram[window_class].astype(np.float64),
            total.moment[target].astype(np.float64),
            float(total.windows(target)),
            prior[target],
            HONEST,
        )
    return head


def coordinate_median(panel: Panel, prior: Weights) -> Weights:
    """Yin et al., "Byzantine-Robust Distributed Learning", 2018."""
    return np.median(_site_heads(panel, prior), axis=0)


def trimmed_mean(panel: Panel, prior: Weights) -> Weights:
    """The same authors': a fifth cut off at either end of each coordinate."""
    ordered = np.sort(_site_heads(panel, prior), axis=0)
    cut = int(0.2 * len(panel))
    return ordered[cut : len(panel) - cut].mean(axis=0)


def krum(panel: Panel, prior: Weights) -> Weights:
    """Multi-Krum (Blanchard et al. 2017): the mean of the heads with the closest neighbours, in the Gram's metric."""
    heads, result = _site_heads(panel, prior), prior.copy()
    liars = int(0.2 * len(panel))
    for target in FORECASTS:
        rooted = _whitened(panel, target, heads)
        distances = np.sort(((rooted[:, None] - rooted) ** 2).sum(axis=2), axis=1)
        score = distances[:, 1 : max(2, len(panel) - liars - 1)].sum(axis=1)
        result[target] = heads[np.argsort(score, kind="stable")[: len(panel) - liars], target].mean(axis=0)
    return result


def geometric_median(panel: Panel, prior: Weights) -> Weights:
    """Pillutla, Kakade and Harchaoui, "Robust Aggregation for Federated Learning", 2022: Weiszfeld's iteration."""
    heads, result = _site_heads(panel, prior), prior.copy()
    for target in FORECASTS:
        rooted = _whitened(panel, target, heads)
        weights = np.ones(len(panel))
        for _ in range(50):
            centre = weights @ rooted / weights.sum()
            weights = 1 / np.maximum(np.sqrt(((rooted - centre) ** 2).sum(axis=1)), 1e-9)
        result[target] = weights @ heads[:, target] / weights.sum()
    return result


def _whitened(panel: Panel, target: int, heads: Weights) -> Weights:
    """Heads in coordinates in which a distance is an error per window."""
    windows = np.maximum(panel.windows(target), 1).astype(np.float64)
    gram = np.median(panel.gram[:, TARGET_CLASS[target]] / windows[:, None, None], axis=0)
    values, vectors = np.linalg.eigh(prior_metric(gram, 1.0))
    return heads[:, target] @ vectors * np.sqrt(np.maximum(values, 0))


METHODS: Mapping[str, Callable[[Panel, Weights], Weights]] = {
    "plain sum": plain_sum,
    "coordinate median": coordinate_median,
    "trimmed mean": trimmed_mean,
    "multi-Krum": krum,
    "geometric median": geometric_median,
}


def summary(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The worst over attacks and draws, per fleet."""
    found = []
    for running in RUNNING:
        for farms in FLEETS:
            for liars in LIARS:
                part = [
                    line
                    for line in lines
                    if (line["running"], line["farms"], line["liars"]) == (running, farms, round(liars * farms))
                ]
                if not part:
                    continue
                passed = [line for line in part if line["released"]]
                against = [line["error"] / line["error_without_liars"] - 1 for line in passed]
                where = [line["worse_where_released"] for line in passed]
                found.append(
                    {
                        "running": running,
                        "farms": farms,
                        "liars": round(liars * farms),
                        "heads": {name: max(line["heads"][name] for line in part) for name in METHODS},
                        "error": max(line["error"] for line in part),
                        "error_without_liars": max(line["error_without_liars"] for line in part),
                        "worse_than_without_liars": max(against, default=None),
                        "worse_where_released": max(where, default=None),
                        "released": len(passed),
                        "runs": len(part),
                        "worst_farm": max(line["worst_farm"] for line in part),
                    }
                )
    return found


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Markdown."""
    head = ["running", "farms", "liars", *METHODS, "this gate", "without liars", "worse, who got it", "all", "released"]
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for line in lines:
        worse = [line["worse_where_released"], line["worse_than_without_liars"]]
        cells = [
            line["running"],
            str(line["farms"]),
            str(line["liars"]),
            *(f"{line['heads'][name]:.3f}" for name in METHODS),
            f"{line['error']:.3f}",
            f"{line['error_without_liars']:.3f}",
            *("–" if value is None else f"{100 * value:+.1f} %" for value in worse),
            f"{line['released']} of {line['runs']}",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def attack_table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a fifth of liars where the physics runs, attack by attack, over the release without them."""
    head = ["attack", *METHODS, "this gate, who got it", "all", "liars set aside", "honest set aside"]
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for attack in ("none", *ATTACKS):
        part = [line for line in lines if line["attack"] == attack and line["running"] == "physics"]
        liars = sum(line["liars"] for line in part)
        honest = sum(line["farms"] - line["liars"] for line in part)
        caught = sum(line["set_aside_liars"] for line in part)
        wrong = sum(line["set_aside_honest"] for line in part)
        worst = [
            *(max(line["heads"][name] / line["error_without_liars"] for line in part) - 1 for name in METHODS),
            max(line["worse_where_released"] for line in part),
            max(line["error"] / line["error_without_liars"] for line in part) - 1,
        ]
        cells = [
            attack,
            *(f"{100 * value:+.1f} %" for value in worst),
            f"{caught / liars:.0%}" if liars else "–",
            f"{wrong / honest:.0%}",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)
