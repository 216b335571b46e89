"""What heads for a fleet, for farms that are alike, for one farm and for one field are worth; ``docs/research.md``.

Everything is learned from the first year of the farms of :mod:`benchmarks.farms` and scored on their second. The
fleet's and the groups' heads at a farm have not learned from that farm at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.farms import Farm, backbone, load
from noria.pages import with_table
from server import hierarchy, solver
from server.comparison import Comparison, compare
from server.panel import Panel
from shared_models.moments import TARGET_NAMES, TARGETS
from shared_models.network import head_weights, zero_head
from shared_models.ridge import PERSONAL, Choice, Subspace, Weights, personal

PAGE = Path(__file__).parent.parent / "docs" / "research.md"
FLEETS = (10, 30, 100)
FIELD_STRENGTHS_WINDOWS = (30.0, 100.0, 300.0, 1_000.0)
FORECASTS = range(1, TARGETS)


def measure() -> dict[str, Any]:
    """Every level on every fleet; the table is replaced."""
    lines = [
        line for running in ("physics", "factory") for farms in FLEETS for line in _levels(load()[:farms], running)
    ]
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), "hierarchy", table(lines)), encoding="utf-8")
    return {"lines": lines}


def _levels(farms: Sequence[Farm], running: str) -> list[dict[str, Any]]:
    image = backbone() if running == "factory" else zero_head(backbone())
    prior = head_weights(image)
    first = Panel.of({farm.name: farm.sums(0) for farm in farms})
    second = Panel.of({farm.name: farm.sums(1) for farm in farms})
    both = {farm.name: farm.sums(0).add(farm.sums(1)) for farm in farms}
    numbers = solver.blocks(first.names)
    site_heads = np.repeat(prior[None], len(farms), axis=0)
    lines = []
    for target in FORECASTS:
        runs = second.error(target, prior[target])
        choice = solver.choose(first, target, prior[target])
        fleet = np.repeat(prior[target][None], len(farms), axis=0)
        if choice:
            for block in np.unique(numbers):
                others = first.where(numbers != block)
                own = solver.choose(others, target, prior[target])
                fleet[numbers == block] = hierarchy.step(others.total(), target, prior[target], own)
        _, groups, count, _ = hierarchy.group_evidence(first, target, prior[target], fleet)
        _, of_site = hierarchy.site_evidence(
            Panel.of(both), {farm.name: farm.sums(0) for farm in farms}, target, prior[target], groups
        )
        metric = hierarchy.metric_of(first, target)
        for index, farm in enumerate(farms):
            site_heads[index, target] = hierarchy.step(farm.sums(0), target, groups[index], of_site, metric)
        errors = {
            "fleet": second.own_error(target, fleet),
            f"{count} groups" if count else "groups: as the fleet": second.own_error(target, groups),
            "farm": second.own_error(target, site_heads[:, target]),
        }
        above = runs
        for level, error in errors.items():
            lines.append(_line(running, len(farms), target, level, compare(runs, error), compare(above, error)))
            above = error
    for strength in FIELD_STRENGTHS_WINDOWS:
        field = _field_errors(farms, site_heads, Choice(Subspace.FULL, strength))
        for target in FORECASTS:
            site = second.own_error(target, site_heads[:, target])
            runs = second.error(target, prior[target])
            level = f"field, prior {strength:.0f}"
            seen = compare(runs, field[target]), compare(site, field[target])
            lines.append(_line(running, len(farms), target, level, *seen))
    return lines


def _field_errors(farms: Sequence[Farm], heads: Weights, choice: Choice) -> Weights:
    """Second-year errors (4, farms) of heads each field solves from its own first year."""
    errors = np.zeros((TARGETS, len(farms)))
    for index, farm in enumerate(farms):
        for then, later in zip(*farm.years, strict=True):
            own = personal(then, farm.sums(0), heads[index], choice)
            errors[:, index] += [later.sse(target, own[target]) for target in range(TARGETS)]
    return errors


def _line(
    running: str, farms: int, target: int, level: str, against_running: Comparison, against_above: Comparison
) -> dict[str, Any]:
    return {
        "running": running,
        "farms": farms,
        "target": TARGET_NAMES[target],
        "level": level,
        "against_running": against_running.model_dump(),
        "against_above": against_above.model_dump(),
    }


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Markdown: a hundred farms, fields with the strength that gateways use."""
    rows = [
        "| running | target | level | squared error over the running head's | over the level above's |",
        "|---|---|---|---|---|",
    ]
    for line in lines:
        of_field = (
            line["level"].startswith("field") and line["level"] != f"field, prior {PERSONAL.strength_windows:.0f}"
        )
        if line["farms"] != max(FLEETS) or of_field:
            continue
        cells = [_cell(line["against_running"]), _cell(line["against_above"])]
        rows.append(f"| {line['running']} | {line['target']} | {line['level']} | {cells[0]} | {cells[1]} |")
    return "\n".join(rows)


def _cell(seen: dict[str, Any]) -> str:
    return f"{seen['ratio']:.3f} [{seen['low']:.3f}, {seen['high']:.3f}]"
