"""How soon a node's own judgement turns a harmful model away, in AquaCrop fields, under the rule as it is and others.

A node counts the squared errors of its model and of the rule without ML over finished dry-downs. What it would have
decided is read from its records: had the model been activated on a day, these are the windows it would have seen since.
Nothing of the model's effect on the records before that day is in it, for sums are differences of running sums.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from nodes.field.climates import CLIMATES
from nodes.field.fields import sample_fields
from nodes.field.trial import run_node
from shared_models.factory import factory_image
from shared_models.network import ModelImage, head_weights, quantise_head
from shared_models.reference import Outcome
from shared_models.state import State

SEED = 11
FIRST_DAY, EVERY_DAYS, LAST_DAYS = 20, 7, 28
"""Activations tried in each season: from a day on, so often, and not in its last days."""
LIMIT_DAYS = 28
BIAS_STEPS = (10, 20, 40)
"""Of a harmful uptake head, in steps of the int8 output."""

Rule = Callable[[int, int, int], bool | None]
"""Windows and both sums of squares: True rolls back, False confirms, None goes on."""


def at_the_end(windows: int, model: int, baseline: int) -> bool | None:
    """Eight windows decide; an eighth more than the baseline is too much."""
    return model > baseline + baseline // 8 if windows >= 8 else None


def as_it_is(windows: int, model: int, baseline: int) -> bool | None:
    """The node's: the same, and from three windows on a quarter more than the baseline is enough to give up."""
    if windows >= 3 and model > baseline + baseline // 4:
        return True
    return at_the_end(windows, model, baseline)


RULES: dict[str, Rule] = {"as it is": as_it_is, "only at the end": at_the_end}


def candidates() -> dict[str, ModelImage]:
    """The factory's model, its head turned round, and uptake heads that are wrong by so much."""
    factory = factory_image()
    weights = head_weights(factory)
    made = {"factory": factory, "sign-flipped": quantise_head(factory, -weights)}
    for steps in BIAS_STEPS:
        bias = factory.head.bias.copy()
        bias[0] += round(steps / factory.head.scale)
        made[f"uptake wrong by {steps}"] = dataclasses.replace(
            factory, head=dataclasses.replace(factory.head, bias=bias)
        )
    return made


def records(image: ModelImage, fields: list[Any]) -> list[np.ndarray]:
    """Day by day of each season: windows and both sums since its beginning."""
    seasons = []
    for field in fields:
        rows: list[tuple[int, int, int]] = []

        def note(state: State, _: Outcome, rows: list[tuple[int, int, int]] = rows) -> None:
            rows.append((state.probation_windows, state.probation_model_energy, state.probation_baseline_energy))

        run_node(field, image, on_dawn=note)
        seasons.append(np.array(rows, np.int64))
    return seasons


def judge(seasons: list[np.ndarray], rule: Rule) -> dict[str, Any]:
    """What the nodes would have decided, and when."""
    turned_away, confirmed, undecided = [], 0, 0
    for season in seasons:
        for day in range(FIRST_DAY, len(season) - LAST_DAYS, EVERY_DAYS):
            verdict = None
            for later in range(1, LIMIT_DAYS + 1):
                windows, model, baseline = (int(value) for value in season[day + later - 1] - season[day - 1])
                verdict = rule(windows, model, baseline)
                if verdict is not None:
                    break
            if verdict:
                turned_away.append(later)
            elif verdict is False:
                confirmed += 1
            else:
                undecided += 1
    total = len(turned_away) + confirmed + undecided
    return {
        "trials": total,
        "rolled_back_share": round(len(turned_away) / total, 3),
        "undecided_share": round(undecided / total, 3),
        "median_days_to_roll_back": statistics.median(turned_away) if turned_away else None,
        "share_rolled_back_within_7_days": round(sum(days <= 7 for days in turned_away) / total, 3),
    }


def measure(per_climate: int = 2) -> dict[str, Any]:
    """Every candidate under every rule, in fields of every climate."""
    fields = sample_fields(SEED, None, per_climate, 1)
    result: dict[str, Any] = {"fields": len(fields), "climates": len(CLIMATES)}
    for name, image in candidates().items():
        seasons = records(image, fields)
        result[name] = {rule: judge(seasons, each) for rule, each in RULES.items()}
    return result
