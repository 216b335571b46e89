"""Forecasts in the judge's world: two years of a node in each AquaCrop field.

In the first year every node runs the shipped model; its statistics are what a fleet would have summed. The second year
is forecast: by the shipped head, by the fleet's (from all other climates), by the node's own, and by both. So is the
first year from its ninth week on, by heads from what the first eight weeks told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nodes.field.fields import FieldYear
from nodes.field.trial import run_node
from noria.evaluation.forecast_gate import deployed
from noria.evaluation.forecast_heads import fleet_rows, personal_rows, shipped_rows
from noria.evaluation.forecast_windows import Bool, Dawns, Int64, Windows, windows_of, with_rows
from server.strategy import total_of
from shared_models.moments import Sums
from shared_models.network import ModelImage


@dataclass(frozen=True, slots=True)
class FieldLife:
    """A field's two years."""

    seed: int
    climate: str
    name: str
    first: Windows
    second: Windows


def live_field(years: Sequence[FieldYear], image: ModelImage) -> FieldLife:
    """Let a node live through two consecutive years of its field."""
    lives = []
    state = None
    for year in years:
        dawns = Dawns(image)
        state = run_node(year, image, state=state, on_dawn=dawns.watch).state
        lives.append(windows_of(dawns.seen))
    field = years[0]
    first, second = lives
    return FieldLife(field.seed, field.climate, field.name, first, second)


def second_year(lives: Sequence[FieldLife], image: ModelImage) -> list[tuple[dict[str, Int64], Bool]]:
    """Forecasts of every field's second year by head, and where its node would send those of ``fleet and own``.

    In the order of ``lives``. A node has its head before the second season begins, with the first one's sums at hand.
    """
    prior = shipped_rows(image)
    farms = sorted({(life.climate, life.seed) for life in lives})
    sums = {farm: _sums(lives, farm) for farm in farms}
    fleets = {climate: fleet_rows([sums[farm] for farm in farms if farm[0] != climate], prior) for climate, _ in farms}
    forecasts = []
    for life in lives:
        own, fleet = life.first.sums(), fleets[life.climate]
        heads = {"own": personal_rows(own, prior), "fleet": fleet, "fleet and own": personal_rows(own, fleet)}
        models = {name: with_rows(image, rows) for name, rows in heads.items()}
        said = {name: life.second.forecast_e4(model) for name, model in models.items()}
        forecasts.append((said, deployed(life.second, said["fleet and own"], models["fleet and own"], own)))
    return forecasts


EARLY_DAYS = 56
"""Eight weeks, from the first dawn with a window."""


def after_eight_weeks(lives: Sequence[FieldLife], image: ModelImage) -> list[tuple[Windows, dict[str, Int64]]]:
    """The first year's windows from the ninth week on, and their forecasts by head, in the order of ``lives``.

    The fleet's head comes from the first eight weeks of every *other* farm, those of the same climate included; a
    node's own from its own. The factory has seen none of these climates.
    """
    prior = shipped_rows(image)
    farms = sorted({(life.climate, life.seed) for life in lives})
    parts = [_weeks(life.first) for life in lives]
    sums = {
        farm: total_of(early.sums() for (early, _), life in zip(parts, lives, strict=True) if _farm(life) == farm)
        for farm in farms
    }
    fleets = {farm: fleet_rows([sums[other] for other in farms if other != farm], prior) for farm in farms}
    found = []
    for (early, later), life in zip(parts, lives, strict=True):
        fleet = fleets[_farm(life)]
        heads = {"shipped": prior, "fleet": fleet, "fleet and own": personal_rows(early.sums(), fleet)}
        found.append((later, {name: later.forecast_e4(with_rows(image, rows)) for name, rows in heads.items()}))
    return found


def _weeks(windows: Windows) -> tuple[Windows, Windows]:
    """What had ended after eight weeks, and what began later."""
    end = int(windows.start.min()) + EARLY_DAYS if len(windows) else 0
    return windows.where(windows.start + windows.days <= end), windows.where(windows.start >= end)


def _farm(life: FieldLife) -> tuple[str, int]:
    return life.climate, life.seed


def _sums(lives: Sequence[FieldLife], farm: tuple[str, int]) -> Sums:
    """What a farm's gateway would have: all its fields of one climate and world."""
    return total_of([life.first.sums() for life in lives if (life.climate, life.seed) == farm])
