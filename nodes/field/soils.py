"""Soil textures of the fields: hydraulic properties after AquaCrop's reference manual, annex I."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Texture(StrEnum):
    """USDA texture classes that occur in scenarios."""

    LOAMY_SAND = "loamy_sand"
    SANDY_LOAM = "sandy_loam"
    LOAM = "loam"
    SILT_LOAM = "silt_loam"
    SANDY_CLAY_LOAM = "sandy_clay_loam"
    CLAY_LOAM = "clay_loam"
    SILTY_CLAY_LOAM = "silty_clay_loam"


@dataclass(frozen=True, slots=True)
class Hydraulics:
    """What AquaCrop must know of a uniform profile."""

    wilting_point: float
    """Water content at permanent wilting, m³/m³."""
    field_capacity: float
    """m³/m³."""
    saturation: float
    """m³/m³."""
    conductivity_mm_d: float
    """Saturated hydraulic conductivity, mm/d."""
    curve_number: int
    """Of surface runoff."""
    readily_evaporable_mm: int


TEXTURES = {
    Texture.LOAMY_SAND: Hydraulics(0.08, 0.16, 0.38, 2200.0, 46, 5),
    Texture.SANDY_LOAM: Hydraulics(0.10, 0.22, 0.41, 1200.0, 46, 7),
    Texture.LOAM: Hydraulics(0.15, 0.31, 0.46, 500.0, 61, 9),
    Texture.SILT_LOAM: Hydraulics(0.13, 0.33, 0.46, 575.0, 61, 11),
    Texture.SANDY_CLAY_LOAM: Hydraulics(0.20, 0.32, 0.47, 225.0, 72, 9),
    Texture.CLAY_LOAM: Hydraulics(0.23, 0.39, 0.50, 125.0, 72, 11),
    Texture.SILTY_CLAY_LOAM: Hydraulics(0.23, 0.44, 0.52, 150.0, 72, 13),
}
