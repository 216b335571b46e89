"""What noise costs: the forecast error of a head learned from noisy sums, as the fleet and ε grow.

Nodes are field-seasons of the training worlds under the factory backbone, coded as on the air; a gateway has four of
them, drawn with replacement, so that a thousand gateways say no more than the fields there are. A head is solved from
the physics' (w = 0) by the server's own solver, leaving groups out, and scored on fields that none of them saw: root of
its squared error over the dry-rate average's, the mean of the three horizons. Without noise that is what there is to
gain; 1 is nothing. The noise is drawn as a Gaussian of the discrete one's variance, which at this size is the same.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gateway.accountant import rho_of
from gateway.noise import ENTRIES, UNIT, WEIGHTS, Noise, clipped, entries, from_entries, weighted_square
from server.projection import project
from server.solver import choose
from server.strategy import total_of
from server.training.samples import per_season
from server.training.seasons import run_many
from shared_models.factory import factory_image
from shared_models.moments import TARGETS, Snapshot, Sums
from shared_models.ridge import solve

FIELDS = 240
HELD_OUT = 80
NODES = 4
"""Of a gateway."""
GROUPS = 8
CLIP_WINDOWS = 20
FLEETS = (10, 100, 1000)
EPSILONS = (1.0, 8.0, 64.0)
ANSWERS = (1, 20)
DELTA = 1e-6
DRAWS = 3
DRYING = range(1, TARGETS)


def measure() -> dict[str, Any]:
    """Error by fleet, ε and number of answers; noise of every site, or shared by half the members of a cohort."""
    image = factory_image()
    seasons = run_many(range(900_000_000, 900_000_000 + FIELDS), image, processes=2, as_shipped=True)
    nodes = [_as_received(node) for season in seasons for node in per_season(season.samples, image)]
    held_out, fleet = nodes[:HELD_OUT], nodes[HELD_OUT:]
    sizes = sorted(math.sqrt(weighted_square(entries(node)) / ENTRIES) / UNIT for node in fleet)
    rows = []
    for gateways in FLEETS:
        rng = np.random.default_rng(gateways)
        chosen = [fleet[index] for index in rng.integers(0, len(fleet), gateways * NODES)]
        exact = _error(_groups(chosen, gateways, entries), held_out)
        rows.append({"gateways": gateways, "epsilon": None, "error": round(exact, 3)})
        for answers in ANSWERS:
            for epsilon in EPSILONS:
                rho = rho_of(epsilon, DELTA) / answers
                for shared in (False, True):
                    figures = _noisy(chosen, gateways, held_out, Noise(CLIP_WINDOWS, rho), shared=shared)
                    settings = {"gateways": gateways, "epsilon": epsilon, "answers": answers, "shared": shared}
                    rows.append(settings | figures)
    quantiles = [round(sizes[int(q * (len(sizes) - 1))], 1) for q in (0.1, 0.5, 0.9, 1.0)]
    return {
        "fields": len(fleet),
        "held_out": len(held_out),
        "windows_of_a_node": round(statistics.mean(int(node.count[0]) for node in fleet), 1),
        "reference_windows_of_a_node": dict(zip(("p10", "p50", "p90", "max"), quantiles, strict=True)),
        "clip_windows": CLIP_WINDOWS,
        "delta": DELTA,
        "rows": rows,
    }


def _as_received(node: Sums) -> Sums:
    return Snapshot.decode(Snapshot(node.gram, node.moment, node.energy, node.count).encode())


def _groups(chosen: Sequence[Sums], gateways: int, share: Callable[[Sums], list[int]]) -> list[list[int]]:
    """Totals of the groups that are left out in turn."""
    groups = min(GROUPS, gateways // 3)
    totals = [[0] * ENTRIES for _ in range(groups)]
    for index, node in enumerate(chosen):
        group = index // NODES % groups
        totals[group] = [a + b for a, b in zip(totals[group], share(node), strict=True)]
    return totals


def _noisy(
    chosen: Sequence[Sums], gateways: int, held_out: Sequence[Sums], noise: Noise, *, shared: bool
) -> dict[str, float]:
    """Mean and largest error over draws of the noise."""
    clean = _groups(chosen, gateways, lambda node: clipped(node, noise.clip_squared))
    # Shared by half of a cohort's members, the noises of all its members add up to twice the variance.
    variance = noise.variance * (2 if shared else gateways / len(clean))
    errors = []
    for draw in range(DRAWS):
        rng = np.random.default_rng([gateways, draw])
        totals = []
        for total in clean:
            added = rng.normal(0, math.sqrt(variance), ENTRIES) / np.array(WEIGHTS)
            totals.append([a + round(float(b)) for a, b in zip(total, added, strict=True)])
        errors.append(_error([entries(project(from_entries(total))) for total in totals], held_out))
    return {"error": round(statistics.mean(errors), 3), "worst": round(max(errors), 3)}


def _error(groups: Sequence[list[int]], held_out: Sequence[Sums]) -> float:
    """Of the head that the server's solver learns from these groups."""
    parts = [from_entries(group) for group in groups]
    total = total_of(parts)
    ratios = []
    for target in DRYING:
        prior = np.zeros(len(total.moment[target]))
        choice = choose(parts, target, prior)
        weights = solve(total, target, prior, choice) if choice else prior
        squared = sum(part.sse(target, weights) for part in held_out)
        ratios.append(math.sqrt(squared / sum(int(part.energy[target]) for part in held_out)))
    return statistics.mean(ratios)
