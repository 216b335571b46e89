"""What every column of soil and crop offers the fields around it: a batch of fields, stepped together.

Arrays run over layers first and fields last. Every operation is elementwise in the field, and sums over layers are
taken from the top down, so that no bit of a field's result depends on which other fields are in the batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.worlds.crops import CropTraits
from server.worlds.soils import Soil

Array = NDArray[np.float64]
STEPS_PER_DAY = 96
SEEDED_TO_M = 0.2
"""Roots reach so deep at planting."""


@dataclass
class WaterLedger:
    """Where the water went, mm since the start, (fields,); what came in is what left plus the change in store."""

    infiltration: Array
    evaporation: Array
    transpiration: Array
    drainage: Array
    runoff: Array
    capillary_rise: Array

    @classmethod
    def empty(cls, fields: int) -> WaterLedger:
        """Nothing has flowed."""
        return cls(*(np.zeros(fields) for _ in range(6)))


class Column(ABC):
    """The soil and crop of a batch of fields.

    Attributes:
        ledger: where the water went.
        stress_days: days since planting, each weighted by the part of its transpiration that failed.
    """

    def __init__(self, soils: Sequence[Soil], crops: Sequence[CropTraits], theta: Array, thickness_mm: Array) -> None:
        """Start with ``theta`` (m3/m3, layers by fields)."""
        self.ledger = WaterLedger.empty(len(soils))
        self.stress_days = np.zeros(len(soils))
        self._thickness_mm = thickness_mm[:, None]
        self._water = theta * self._thickness_mm
        self._top_m = (np.cumsum(thickness_mm) - thickness_mm)[:, None] / 1000
        self._fc = per_field(soil.theta_fc for soil in soils) * self._thickness_mm
        self._wp = per_field(soil.theta_wp for soil in soils) * self._thickness_mm
        self._saturation = per_field(soil.theta_saturation for soil in soils) * self._thickness_mm
        self._season_days = per_field(crop.season_days for crop in crops)
        self._root_depth_m = per_field(crop.root_depth_m for crop in crops)

    @abstractmethod
    def advance(self, day: int, water_mm: Array, et0_mm: Array, air_temperature_c: Array) -> Array:
        """Let some quarters of an hour pass, within one day from dawn to dawn.

        Args:
            day: after planting; negative before.
            water_mm: rain and irrigation reaching the ground, per step (steps, fields).
            et0_mm: reference evapotranspiration per step.
            air_temperature_c: drives growth where growth follows heat.

        Returns:
            Water content after each step, m3/m3 (steps, layers, fields).
        """

    @abstractmethod
    def relative_yield(self) -> Array:
        """Yield so far over that of the same crop without a shortage, 0 to 1."""

    @abstractmethod
    def _root_depth(self, day: int) -> Array:
        """``Zr`` on a day after planting, m."""

    @property
    def theta(self) -> Array:
        """Water content now, m3/m3 (layers, fields)."""
        return self._water / self._thickness_mm

    @property
    def centres_m(self) -> Array:
        """Depths at which layers have their water content."""
        return (self._top_m + self._thickness_mm / 2000)[:, 0]

    def storage_mm(self) -> Array:
        """Water in the whole column."""
        return down(self._water)

    def depletion_fraction(self, day: int) -> Array:
        """``Dr`` over ``TAW`` of the root zone (eq. 82, 87), 0 to 1."""
        share = self._root_share(self._root_depth(day))
        depletion = down(share * (self._fc - self._water)) / down(share * (self._fc - self._wp))
        return np.clip(depletion, 0.0, 1.0)

    def keep(self, chosen: NDArray[np.bool_]) -> None:
        """Go on with the chosen fields only."""
        for part in (vars(self), vars(self.ledger)):
            for name, value in part.items():
                if isinstance(value, np.ndarray) and value.shape[-1] == len(chosen):
                    part[name] = np.ascontiguousarray(value[..., chosen])

    def _root_share(self, root_depth_m: Array) -> Array:
        """How much of each layer the roots have reached, (layers, fields)."""
        reached = (root_depth_m - self._top_m) * 1000 / self._thickness_mm
        share: Array = np.clip(reached, 0.0, 1.0)
        return share

    def _growing(self, day: int) -> NDArray[np.bool_]:
        return (day >= 0) & (day < self._season_days)


def per_field(values: Iterable[float]) -> Array:
    """One number per field."""
    return np.array(list(values), np.float64)


def down(layers: Array) -> Array:
    """Sum over layers, layer by layer: numpy's own sum would add in another order for a batch of one field."""
    total: Array = layers[0].copy()
    for layer in layers[1:]:
        total += layer
    return total
