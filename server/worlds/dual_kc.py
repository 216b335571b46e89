"""World 1: the dual crop coefficient water balance of FAO-56, chapter 7, over a cascade of layers.

Symbols and equation numbers are the paper's. The paper's single root-zone bucket is cut into layers of
0.1 m that fill from above and drain the excess over field capacity at a finite rate, so that probes at
two depths see what they would see. What a shortage costs depends on when it comes (FAO-33).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from server.worlds.columns import SEEDED_TO_M, STEPS_PER_DAY, Array, Column, down, per_field
from server.worlds.crops import CropTraits
from server.worlds.soils import Soil

THICKNESS_MM = np.full(12, 100.0)
CENTRES_M = (np.arange(12) + 0.5) / 10
PERIODS = 4
"""Growth periods with a yield response of their own."""


@dataclass(frozen=True)
class CascadeTraits:
    """What differs from field to field beyond soil and crop."""

    drainage_per_day: float
    """``τ``: the share of the excess over field capacity a layer loses in a day."""
    root_extinction: float
    """Uptake falls with depth as ``exp(-extinction z/Zr)``."""
    wetted_fraction: float
    """``fw`` of irrigation and rain (table 20)."""
    runoff_above_mm_h: float
    """Water arriving faster than this runs off."""
    root_days: float
    """Days from planting to ``Zr max``."""


class DualKcColumn(Column):
    """Fields of world 1."""

    def __init__(
        self, soils: Sequence[Soil], crops: Sequence[CropTraits], traits: Sequence[CascadeTraits], theta: Array
    ) -> None:
        """Start with ``theta`` (m3/m3, layers by fields)."""
        super().__init__(soils, crops, theta, THICKNESS_MM)
        self._air_dry = 0.5 * self._wp[0]
        self._tew = self._fc[0] - self._air_dry
        """Total evaporable water of the top layer, Ze = 0.1 m (eq. 73)."""
        self._rew = np.minimum(0.45 * self._tew, 11.0)
        self._de = np.zeros(len(soils))
        """``De``: what has evaporated since wetting from the part of the surface that is wetted and exposed."""
        self._drained = per_field(1 - (1 - trait.drainage_per_day) ** (1 / STEPS_PER_DAY) for trait in traits)
        self._root_extinction = per_field(trait.root_extinction for trait in traits)
        self._wetted_fraction = per_field(trait.wetted_fraction for trait in traits)
        self._most_entering = per_field(trait.runoff_above_mm_h / 4 for trait in traits)
        self._root_days = per_field(trait.root_days for trait in traits)
        self._stage_days = np.array([crop.stage_days for crop in crops]).T
        self._kcb = np.array([(crop.kcb_initial, crop.kcb_mid, crop.kcb_end) for crop in crops]).T
        self._height_m = per_field(crop.height_m for crop in crops)
        self._p = per_field(crop.depletion_fraction for crop in crops)
        self._period_ends = np.array([crop.growth_period_ends for crop in crops]).T
        self._exponents = np.array([crop.stage_exponents for crop in crops]).T
        self._etc_mm_d = np.full(len(soils), 5.0)
        """Running mean of ETc, for the adjustment of p."""
        self._taken = np.zeros((PERIODS, len(soils)))
        self._wanted = np.zeros((PERIODS, len(soils)))
        """Transpiration and its potential by growth period."""

    def advance(self, day: int, water_mm: Array, et0_mm: Array, air_temperature_c: Array) -> Array:  # noqa: ARG002 - this world's calendar is in days
        """Let some quarters of an hour pass; coefficients, cover and roots are those of the day."""
        water, fc, wp, ledger = self._water, self._fc, self._wp, self.ledger
        kcb = np.where(self._growing(day), basal_coefficient(day + 0.5, self._stage_days, self._kcb), 0.0)
        kc_max = np.maximum(1.2, kcb + 0.05)  # eq. 72 without its climate term
        few = np.maximum(np.minimum(1 - self._cover(day, kcb, kc_max), self._wetted_fraction), 0.01)  # eq. 75
        zr = self._root_depth(day)
        share = self._root_share(zr)
        rooted = share * np.exp(-self._root_extinction * CENTRES_M[:, None] / zr)
        taw = down(share * (fc - wp))
        p = np.clip(self._p + 0.04 * (5 - self._etc_mm_d), 0.1, 0.8)  # table 22, footnote
        stressed = (1 - p) * taw
        history = np.empty((len(water_mm), *water.shape))
        wanted, taken = np.zeros_like(kcb), np.zeros_like(kcb)
        for step, (arriving, et0) in enumerate(zip(water_mm, et0_mm, strict=True)):
            entered = self._infiltrate(arriving)
            top = water[0]
            kr = np.clip((self._tew - self._de) / (self._tew - self._rew), 0.0, 1.0)  # eq. 74
            ke = np.minimum(kr * (kc_max - kcb), few * kc_max)  # eq. 71
            evaporated = np.minimum(ke * et0, np.maximum(top - self._air_dry, 0.0))
            top -= evaporated
            self._de = np.clip(self._de - entered / self._wetted_fraction + evaporated / few, 0.0, self._tew)  # eq. 77
            ledger.evaporation += evaporated
            above_wp = np.maximum(water - wp, 0.0)
            ks = np.clip((taw - down(share * (fc - water))) / stressed, 0.0, 1.0)  # eq. 84
            weights = rooted * np.minimum(above_wp / (fc - wp), 1.0)
            potential = kcb * et0
            amount = np.minimum(weights * (potential * ks / np.maximum(down(weights), 1e-9)), above_wp)
            water -= amount
            taken += down(amount)
            wanted += potential
            history[step] = water
        self._etc_mm_d += (
            (wanted * STEPS_PER_DAY / len(water_mm) - self._etc_mm_d) * len(water_mm) / (3 * STEPS_PER_DAY)
        )
        ledger.transpiration += taken
        self.stress_days += np.where(wanted > 0, 1 - taken / np.maximum(wanted, 1e-9), 0.0) * (
            len(water_mm) / STEPS_PER_DAY
        )
        period = (day >= self._period_ends).sum(axis=0)
        for index in range(PERIODS):
            self._taken[index] += np.where(period == index, taken, 0.0)
            self._wanted[index] += np.where(period == index, wanted, 0.0)
        return history / self._thickness_mm

    def relative_yield(self) -> Array:
        """Jensen's (1968) product over the growth periods, ``Π (Ta/Tp)^λ``, with transpiration for ET.

        The exponents come from FAO-33's ``Ky`` (:attr:`server.worlds.crops.CropTraits.stage_exponents`).
        """
        met = np.where(self._wanted > 0, self._taken / np.maximum(self._wanted, 1e-9), 1.0)
        result = np.ones(met.shape[1])
        for share, exponent in zip(np.minimum(met, 1.0), self._exponents, strict=True):
            result *= share**exponent
        return result

    def _root_depth(self, day: int) -> Array:
        grown = np.clip(day / self._root_days, 0.0, 1.0)
        return SEEDED_TO_M + (self._root_depth_m - SEEDED_TO_M) * grown

    def _cover(self, day: int, kcb: Array, kc_max: Array) -> Array:
        """``fc`` of eq. 76, at most .98."""
        height = np.maximum(self._height_m * np.clip(day / (0.5 * self._season_days), 0.0, 1.0), 0.05)
        cover: Array = np.minimum(np.maximum((kcb - 0.15) / (kc_max - 0.15), 0.0) ** (1 + 0.5 * height), 0.98)
        return cover

    def _infiltrate(self, arriving_mm: Array) -> Array:
        """Fill from above, spill what is over saturation, drain a share of what is over field capacity.

        Returns:
            What entered, mm.
        """
        entered = entering = np.minimum(arriving_mm, self._most_entering)
        self.ledger.runoff += arriving_mm - entering
        self.ledger.infiltration += entering
        for water, fc, saturation in zip(self._water, self._fc, self._saturation, strict=True):
            content = water + entering
            held = np.minimum(content, saturation)
            np.subtract(held, np.maximum(held - fc, 0.0) * self._drained, out=water)
            entering = content - water
        self.ledger.drainage += entering
        return entered


def basal_coefficient(day: float, stage_days: Array, kcb: Array) -> Array:
    """``Kcb`` on a day after planting (fig. 37, eq. 66).

    Args:
        day: after planting.
        stage_days: initial, development, mid-season, late season (4, fields).
        kcb: initial, mid-season, end (3, fields).
    """
    initial, development, middle, late = stage_days
    rising = np.clip((day - initial) / development, 0.0, 1.0)
    falling = np.clip((day - initial - development - middle) / late, 0.0, 1.0)
    coefficient: Array = kcb[0] + (kcb[1] - kcb[0]) * rising + (kcb[2] - kcb[1]) * falling
    return coefficient
