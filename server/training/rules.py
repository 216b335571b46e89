"""Simple controllers that decide once a day, to have figures of known methods in the very worlds nodes train in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

SEASON_END = 0.95
"""The part of the season after which no rule waters: a node does not either."""


@dataclass(frozen=True)
class Dawn:
    """What a rule may look at, once a day at 06:00."""

    day: int
    """After planting; negative before."""
    season_days: int
    """As the farmer entered them."""
    vwc_shallow: float
    """What the uncalibrated shallow probe said over the last four hours, m3/m3; nan when it said nothing."""
    vwc_deep: float
    depletion_fraction: float
    """The truth: ``Dr`` over ``TAW`` of the root zone."""
    table_fc: float
    """Field capacity of the soil's texture class as a table has it, m3/m3."""
    table_wp: float
    """Wilting point likewise."""


class Rule(Protocol):
    """Water from a dawn's figures; a plain value that travels to other processes."""

    def __call__(self, dawn: Dawn) -> float:
        """Millimetres to give now."""


@dataclass(frozen=True)
class TextureThreshold:
    """Water when the probes' mean has used up a part of what the texture's table says the soil can hold."""

    threshold: float = 0.5
    """Part of the available water."""
    dose_mm: float = 12.0

    def __call__(self, dawn: Dawn) -> float:
        """Millimetres to give now; without a probe none."""
        trigger = dawn.table_fc - self.threshold * (dawn.table_fc - dawn.table_wp)
        return self.dose_mm if in_season(dawn) and (dawn.vwc_shallow + dawn.vwc_deep) / 2 < trigger else 0.0


@dataclass(frozen=True)
class TrueState:
    """Water when the true depletion passes a threshold: what no node can do better."""

    threshold: float = 0.3
    dose_mm: float = 12.0

    def __call__(self, dawn: Dawn) -> float:
        """Millimetres to give now."""
        return self.dose_mm if in_season(dawn) and dawn.depletion_fraction > self.threshold else 0.0


@dataclass(frozen=True)
class Rainfed:
    """Never water."""

    def __call__(self, dawn: Dawn) -> float:  # noqa: ARG002 - the protocol's
        """Nothing."""
        return 0.0


def in_season(dawn: Dawn) -> bool:
    """Whether the season allows water."""
    return 0 <= dawn.day < SEASON_END * dawn.season_days
