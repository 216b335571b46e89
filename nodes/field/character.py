"""What is particular about one field and one node: everything drawn once, from the scenario's seed and the devEUI.

The spreads of probes and light sensors are those of uncalibrated low-cost parts; soils vary about their texture's
table values by 8 % as in the field trials behind DESIGN §6.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from math import exp

import numpy as np

from nodes.field.sky import Floats, Times
from nodes.field.soils import TEXTURES, Hydraulics, Texture

ANCHOR_BIAS = 0.005
"""Mean excess over the drained water content on days 6 to 8 after the soak, m³/m³."""
ANCHOR_SPREAD = 0.009
"""Spread of the drained water content about AquaCrop's field capacity, m³/m³."""
SOAKED_SHARE = 0.7
"""Of the pores between field capacity and saturation filled at the end of the soak."""
ANCHOR_DAYS = (5.0, 8.0)
"""The sixth to the eighth day."""


def generator(seed: int, dev_eui: str, purpose: str, *counters: int) -> np.random.Generator:
    """A random stream that depends on these names and nothing else."""
    name = int.from_bytes(blake2b(f"{dev_eui}/{purpose}".encode(), digest_size=8).digest(), "little")
    return np.random.default_rng(np.random.SeedSequence([seed, name, *counters]))


@dataclass(frozen=True, slots=True)
class Character:
    """One field's soil and one node's errors."""

    hydraulics: Hydraulics
    drained_vwc: tuple[float, float]
    """Where drainage after the soak ends, at the probes' depths, m³/m³."""
    soak_vwc: tuple[float, float]
    """Excess over it when the node boots, m³/m³."""
    drainage_days: tuple[float, float]
    """Time constant of that excess, d."""
    probe_gain: tuple[float, float]
    probe_offset: tuple[float, float]
    """m³/m³."""
    light_gain: float
    air_offset_c: float
    humidity_offset: float
    """%."""
    soil_temperature_offset_c: float
    flow_factor: float
    """True over nominal application rate."""

    @classmethod
    def draw(cls, seed: int, dev_eui: str, texture: Texture) -> Character:
        """The field and the node of this seed."""
        rng = generator(seed, dev_eui, "character")
        table = TEXTURES[texture]
        field_capacity = min(table.field_capacity * (1 + 0.08 * _normal(rng)), table.saturation - 0.05)
        wilting_point = min(table.wilting_point * (1 + 0.08 * _normal(rng)), field_capacity - 0.06)
        hydraulics = Hydraulics(
            wilting_point=wilting_point,
            field_capacity=field_capacity,
            saturation=table.saturation,
            conductivity_mm_d=table.conductivity_mm_d * exp(0.4 * _normal(rng)),
            curve_number=table.curve_number,
            readily_evaporable_mm=table.readily_evaporable_mm,
        )
        soak = SOAKED_SHARE * (hydraulics.saturation - field_capacity)
        return cls(
            hydraulics=hydraulics,
            drained_vwc=_pair(field_capacity + ANCHOR_SPREAD * _normal(rng) for _ in range(2)),
            soak_vwc=(soak, soak),
            drainage_days=_pair(_drainage_time_constant(soak) * exp(0.1 * _normal(rng)) for _ in range(2)),
            probe_gain=_pair(max(0.7, min(1.35, 1 + 0.12 * _normal(rng))) for _ in range(2)),
            probe_offset=_pair(max(-0.05, min(0.06, 0.03 * _normal(rng))) for _ in range(2)),
            light_gain=exp(0.1 * _normal(rng)),
            air_offset_c=0.3 * _normal(rng),
            humidity_offset=2.0 * _normal(rng),
            soil_temperature_offset_c=0.3 * _normal(rng),
            flow_factor=max(0.85, min(1.15, 1 + 0.05 * _normal(rng))),
        )

    def probe_units(self, vwc: float) -> tuple[float, float]:
        """What each probe would show for a true water content, without drift and noise, m³/m³."""
        return _pair(gain * vwc + offset for gain, offset in zip(self.probe_gain, self.probe_offset, strict=True))

    def draining_vwc(self, probe: int, days: Times) -> Floats:
        """Water content at a probe while the soak drains, before anything grows, m³/m³.

        The plot is covered meanwhile, as is done when field capacity is measured in place: neither rain nor
        evaporation disturbs it.

        Args:
            probe: 0 shallow, 1 deep.
            days: since the soak, one number or many.
        """
        left: Floats = np.exp(-np.maximum(days, 0.0) / self.drainage_days[probe])
        return self.drained_vwc[probe] + self.soak_vwc[probe] * left

    def soaked_vwc(self, days: float) -> tuple[float, float]:
        """The same at both probes, m³/m³: where AquaCrop takes over.

        Args:
            days: since the soak.
        """
        return _pair(float(self.draining_vwc(probe, days)) for probe in (0, 1))


def _drainage_time_constant(soak: float) -> float:
    """The time constant with which a soak leaves :data:`ANCHOR_BIAS` on average over the anchor's days, d."""
    low, high = 0.2, 20.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        begin, end = ANCHOR_DAYS
        left = soak * middle * (exp(-begin / middle) - exp(-end / middle)) / (end - begin)
        low, high = (middle, high) if left < ANCHOR_BIAS else (low, middle)
    return low


def _normal(rng: np.random.Generator) -> float:
    return float(rng.standard_normal())


def _pair(values: Iterable[float]) -> tuple[float, float]:
    shallow, deep = values
    return shallow, deep
