"""What every column of soil and crop must offer the field around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass
class WaterLedger:
    """Where the water went, mm since the start; what came in equals what left plus the change in store."""

    infiltration: float = 0.0
    evaporation: float = 0.0
    transpiration: float = 0.0
    potential_transpiration: float = 0.0
    drainage: float = 0.0
    runoff: float = 0.0
    capillary_rise: float = 0.0


class Column(Protocol):
    """One field's soil and crop, stepped a quarter of an hour at a time."""

    ledger: WaterLedger

    def step(self, day_after_planting: float, water_mm: float, et0_mm: float, air_temperature_c: float) -> None:
        """Let 15 minutes pass.

        Args:
            day_after_planting: negative before planting.
            water_mm: rain and irrigation reaching the ground in this step.
            et0_mm: reference evapotranspiration in this step.
            air_temperature_c: drives growth where growth follows heat.
        """

    def theta(self, depth_m: float) -> float:
        """Volumetric water content at a depth, m3/m3."""

    def storage_mm(self) -> float:
        """Water in the whole column, mm."""

    def stress(self) -> float:
        """``Ks`` of the last step with a crop, 1 = none (eq. 84)."""


def interpolate(depth_m: float, centres_m: tuple[float, ...], theta: list[float]) -> float:
    """Water content between layer centres."""
    if depth_m <= centres_m[0]:
        return theta[0]
    for upper in range(len(centres_m) - 1):
        if depth_m <= centres_m[upper + 1]:
            share = (depth_m - centres_m[upper]) / (centres_m[upper + 1] - centres_m[upper])
            return theta[upper] * (1 - share) + theta[upper + 1] * share
    return theta[-1]
