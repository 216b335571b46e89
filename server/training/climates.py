"""Groups of climates by the UNEP aridity index, so that no head is kept which pays in one and costs in another."""

from __future__ import annotations

import math

import numpy as np

from server.worlds import atmosphere
from server.worlds.weather import Climate

CLIMATES = ("arid", "temperate", "humid")
UNEP_BOUNDS = (0.2, 0.65)
"""Hyper-arid and arid lands end at the first, semi-arid and dry sub-humid ones at the second (UNEP 1997)."""
LATENT_HEAT_MJ_KG = 2.45
MIDDLES_OF_MONTHS = np.arange(15.0, 365.0, 30.0)


def aridity_index(climate: Climate) -> float:
    """Mean yearly rain over mean yearly ET0, the latter after Hargreaves (FAO-56 eq. 52)."""
    wet_days = min(climate.wet_after_dry / (1 - climate.wet_persistence), 1.0)
    rain_mm_per_day = wet_days * climate.rain_per_wet_day_mm
    ra_mj_m2 = atmosphere.extraterrestrial_radiation_mj_m2(climate.latitude_deg, MIDDLES_OF_MONTHS)
    warmth = max(climate.mean_temperature_c + 17.8, 1.0)
    ra_mm = float(ra_mj_m2.mean()) / LATENT_HEAT_MJ_KG
    et0_mm_per_day = 0.0023 * warmth * math.sqrt(climate.diurnal_range_c) * ra_mm
    return rain_mm_per_day / et0_mm_per_day


def climate_group(climate: Climate) -> str:
    """One of :data:`CLIMATES`."""
    index = aridity_index(climate)
    return CLIMATES[sum(index >= bound for bound in UNEP_BOUNDS)]
