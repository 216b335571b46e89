"""Crops that the field can grow: AquaCrop's parameter set and the season the farmer reckons with."""

from __future__ import annotations

from dataclasses import dataclass

from shared_models.codes import Crop


@dataclass(frozen=True, slots=True)
class FieldCrop:
    """A crop in AquaCrop's words."""

    aquacrop_name: str
    season_days: int
    """Planting to maturity of the calendar-day parameter set when the crop is not starved of water, days."""


FIELD_CROPS = {
    Crop.MAIZE: FieldCrop("Maize", 132),
    Crop.SOYBEAN: FieldCrop("Soybean", 130),
    Crop.POTATO: FieldCrop("Potato", 121),
    Crop.DRY_BEAN: FieldCrop("DryBean", 110),
    Crop.TOMATO: FieldCrop("Tomato", 110),
    Crop.SUGAR_BEET: FieldCrop("SugarBeet", 142),
    Crop.SORGHUM: FieldCrop("Sorghum", 102),
    Crop.WHEAT: FieldCrop("Wheat", 197),
}
