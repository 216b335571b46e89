"""World 1: the dual crop coefficient water balance of FAO-56, chapter 7, over a cascade of layers.

Symbols and equation numbers are the paper's. The paper's single root-zone bucket is cut into layers of
0.1 m that fill from above and drain the excess over field capacity at a finite rate, so that probes at
two depths see what they would see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from server.worlds.columns import WaterLedger, interpolate
from server.worlds.crops import CropTraits
from server.worlds.soils import Soil

LAYERS = 12
LAYER_M = 0.1
LAYER_MM = 100.0
"""Depth of water in a layer for a water content of 1."""
CENTRES_M = tuple((layer + 0.5) * LAYER_M for layer in range(LAYERS))
STEPS_PER_DAY = 96


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


class DualKcColumn:
    """One field of world 1."""

    def __init__(self, soil: Soil, crop: CropTraits, traits: CascadeTraits, theta: list[float]) -> None:
        """Start with ``theta`` (m3/m3, one per layer)."""
        self.ledger = WaterLedger()
        self._crop = crop
        self._traits = traits
        self._theta = list(theta)
        self._fc, self._wp, self._sat = soil.theta_fc, soil.theta_wp, soil.theta_saturation
        self._tew = LAYER_MM * (self._fc - 0.5 * self._wp)
        """Total evaporable water of the top layer, Ze = 0.1 m (eq. 73)."""
        self._rew = min(0.45 * self._tew, 11.0)
        self._stay = 1 - (1 - traits.drainage_per_day) ** (1 / STEPS_PER_DAY)
        self._ks = 1.0
        self._etc_mm_d = 5.0
        """Running mean of ETc, for the adjustment of p."""

    def theta(self, depth_m: float) -> float:
        """Volumetric water content at a depth, m3/m3."""
        return interpolate(depth_m, CENTRES_M, self._theta)

    def storage_mm(self) -> float:
        """Water in the whole column, mm."""
        return LAYER_MM * sum(self._theta)

    def stress(self) -> float:
        """``Ks`` of the last step."""
        return self._ks

    def step(self, day_after_planting: float, water_mm: float, et0_mm: float, air_temperature_c: float) -> None:  # noqa: ARG002 - this world's calendar is in days
        """Let 15 minutes pass."""
        self._infiltrate(water_mm)
        growing = 0 <= day_after_planting <= self._crop.season_days
        kcb = self._crop.kcb(day_after_planting) if growing else 0.0
        height = max(
            self._crop.height_m * min(max(day_after_planting, 0.0) / (0.5 * self._crop.season_days), 1.0), 0.05
        )
        kc_max = max(1.2, kcb + 0.05)
        cover = min(max((kcb - 0.15) / (kc_max - 0.15), 0.0) ** (1 + 0.5 * height), 0.98) if growing else 0.0
        self._evaporate(et0_mm, kcb, kc_max, cover)
        if growing:
            self._transpire(day_after_planting, et0_mm, kcb)

    def _infiltrate(self, water_mm: float) -> None:
        limit = self._traits.runoff_above_mm_h / 4
        entering = min(water_mm, limit)
        self.ledger.runoff += water_mm - entering
        self.ledger.infiltration += entering
        theta, fc, sat = self._theta, self._fc, self._sat
        for layer in range(LAYERS):
            content = theta[layer] + entering / LAYER_MM
            over = max(content - sat, 0.0)
            content -= over
            drained = max(content - fc, 0.0) * self._stay
            theta[layer] = content - drained
            entering = (over + drained) * LAYER_MM
        self.ledger.drainage += entering

    def _evaporate(self, et0_mm: float, kcb: float, kc_max: float, cover: float) -> None:
        top = self._theta[0]
        depletion = min(max((self._fc - top) * LAYER_MM, 0.0), self._tew)
        kr = 1.0 if depletion <= self._rew else max((self._tew - depletion) / (self._tew - self._rew), 0.0)  # eq. 74
        few = min(max(1 - cover, 0.01), self._traits.wetted_fraction)  # eq. 75
        ke = min(kr * (kc_max - kcb), few * kc_max)  # eq. 71
        amount = min(max(ke, 0.0) * et0_mm, max(top - 0.5 * self._wp, 0.0) * LAYER_MM)
        self._theta[0] = top - amount / LAYER_MM
        self.ledger.evaporation += amount

    def _transpire(self, day: float, et0_mm: float, kcb: float) -> None:
        traits, fc, wp, theta = self._traits, self._fc, self._wp, self._theta
        zr = 0.2 + (self._crop.root_depth_m - 0.2) * min(day / traits.root_days, 1.0)
        layers = min(math.ceil(zr / LAYER_M - 1e-9), LAYERS)
        last_share = (zr - (layers - 1) * LAYER_M) / LAYER_M
        taw = LAYER_MM * (fc - wp) * (layers - 1 + last_share)  # eq. 82
        depletion = sum(fc - theta[layer] for layer in range(layers - 1)) + (fc - theta[layers - 1]) * last_share
        potential = kcb * et0_mm
        self._etc_mm_d += (potential * STEPS_PER_DAY - self._etc_mm_d) / (3 * STEPS_PER_DAY)
        p = min(max(self._crop.depletion_fraction + 0.04 * (5 - self._etc_mm_d), 0.1), 0.8)  # table 22, footnote
        dr = max(depletion * LAYER_MM, 0.0)
        self._ks = 1.0 if dr <= p * taw else max((taw - dr) / ((1 - p) * taw), 0.0)  # eq. 84
        weights = []
        for layer in range(layers):
            available = min(max((theta[layer] - wp) / (fc - wp), 0.0), 1.0)
            share = last_share if layer == layers - 1 else 1.0
            weights.append(share * math.exp(-traits.root_extinction * CENTRES_M[layer] / zr) * available)
        total = sum(weights)
        self.ledger.potential_transpiration += potential
        if total <= 0:
            return
        for layer, weight in enumerate(weights):
            amount = min(potential * self._ks * weight / total, max(theta[layer] - wp, 0.0) * LAYER_MM)
            theta[layer] -= amount / LAYER_MM
            self.ledger.transpiration += amount
