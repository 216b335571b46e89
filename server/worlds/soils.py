"""Soils of the training worlds: hydraulic classes of Clapp and Hornberger (1978), varied field by field.

``theta_fc`` and ``theta_wp`` of the cascade follow from the same retention and conductivity curves, so
that both worlds describe the same ground.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Soil:
    """One field's soil."""

    theta_saturation: float
    """m3/m3."""
    psi_entry_mm: float
    """Suction at air entry, mm of water."""
    exponent_b: float
    """Of Campbell's retention curve ``ψ = ψe (θ/θs)^-b``."""
    conductivity_mm_h: float
    """At saturation."""
    texture: str
    """Its class in :data:`CLASSES`, which is all that a farmer may know of it."""

    def theta_at_suction(self, suction_mm: float) -> float:
        """Water content at a suction, m3/m3 (Campbell 1974)."""
        return self.theta_saturation * min(math.pow(self.psi_entry_mm / suction_mm, 1 / self.exponent_b), 1.0)

    @property
    def theta_fc(self) -> float:
        """Field capacity, the water content at which drainage has become slow, m3/m3.

        Taken where conductivity has fallen to 1.5 mm/d, a definition that needs no texture-dependent suction.
        """
        ratio = math.pow(0.0625 / self.conductivity_mm_h, 1 / (2 * self.exponent_b + 3))
        return self.theta_saturation * min(ratio, 0.95)

    @property
    def theta_wp(self) -> float:
        """Wilting point at -1500 kPa, m3/m3."""
        return min(self.theta_at_suction(150_000.0), self.theta_fc - 0.05)


CLASSES: dict[str, Soil] = {
    "loamy sand": Soil(0.410, 90.0, 4.38, 562.8, "loamy sand"),
    "sandy loam": Soil(0.435, 218.0, 4.90, 124.8, "sandy loam"),
    "silt loam": Soil(0.485, 786.0, 5.30, 25.9, "silt loam"),
    "loam": Soil(0.451, 478.0, 5.39, 25.0, "loam"),
    "sandy clay loam": Soil(0.420, 299.0, 7.12, 22.7, "sandy clay loam"),
    "silty clay loam": Soil(0.477, 356.0, 7.75, 6.1, "silty clay loam"),
    "clay loam": Soil(0.476, 630.0, 8.52, 8.8, "clay loam"),
}


def sample_soil(rng: np.random.Generator) -> Soil:
    """A soil near one of the classes, all equally likely."""
    base = list(CLASSES.values())[int(rng.integers(len(CLASSES)))]
    return Soil(
        theta_saturation=float(np.clip(base.theta_saturation * (1 + 0.06 * rng.standard_normal()), 0.34, 0.56)),
        psi_entry_mm=base.psi_entry_mm * float(np.exp(0.35 * rng.standard_normal())),
        exponent_b=float(np.clip(base.exponent_b * np.exp(0.12 * rng.standard_normal()), 3.2, 11.0)),
        conductivity_mm_h=base.conductivity_mm_h * float(np.exp(0.6 * rng.standard_normal())),
        texture=base.texture,
    )
