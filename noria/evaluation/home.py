"""The same controllers in the worlds the model was trained in, printed beside the judge's figures, never instead.

What a model gains at home and not under the judge is what it has learned of its simulators, not of fields. The seasons
are the training's own test group: no weight was fitted on them, but other seasons of the same simulators were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from noria.evaluation import ledger
from noria.evaluation.runs import Done, Outcome
from server.training.factory import TEST, seeds
from server.training.rules import Rule, TextureThreshold, TrueState
from server.training.seasons import physics_only, run_many, run_rule
from server.worlds.field import sample_case
from shared_models.network import ModelImage

TRAINING_SEED = 1
"""Of ``noria server train``, whose test group this is."""
BATCH = 25
"""Seasons stepped together: one run, and one row of the ledger."""
RULES: dict[str, Callable[[float], Rule]] = {"texture": TextureThreshold, "true state": TrueState}
"""Rules that the training worlds know, too, by their names under the judge; 12 mm doses."""


def batches(seasons: int) -> list[tuple[int, ...]]:
    """Cases of so many field-seasons."""
    cases = seeds(TEST, TRAINING_SEED, seasons)
    return [tuple(cases[first : first + BATCH]) for first in range(0, seasons, BATCH)]


def world(case: int) -> str:
    """Which simulator a case is in."""
    return sample_case(case).world


@dataclass(frozen=True, slots=True)
class HomeRun:
    """Field-seasons of the training worlds under one controller at one setting."""

    cases: tuple[int, ...]
    """Their seeds."""
    setting: float
    """Share of TAW, or of the texture's available water."""
    rule: str | None = None
    """One of :data:`RULES`; None is the node's reference."""
    image: bytes | None = None
    """The model that the node carries; None is the physics."""

    @property
    def title(self) -> str:
        """For error messages."""
        return f"cases {self.cases[0]} to {self.cases[-1]} of the training worlds at {self.setting:g}"

    def determinants(self) -> dict[str, Any]:
        """Simulators, reference, cases."""
        determined = asdict(self) | {"image": self.image and ModelImage.unpack(self.image).model_id}
        return determined | {"home": ledger.sources("server/worlds", "server/training", "shared_models")}

    def perform(self) -> Done:
        """Live through the seasons."""
        if self.rule is not None:
            seasons = run_rule(self.cases, RULES[self.rule](self.setting))
        else:
            image = physics_only() if self.image is None else ModelImage.unpack(self.image)
            changes = {"threshold_permille": round(1000 * self.setting)}
            seasons = run_many(self.cases, image, as_shipped=True, changes=changes)
        return Done(
            tuple(
                Outcome(each.irrigation_mm, each.relative_yield, 0, each.drainage_mm)
                for each in (season.outcome for season in seasons)
            )
        )
