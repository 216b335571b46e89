"""FAO-56 on the node, in integers: reference ET from the node's own light, crop coefficients, roots, stress.

Symbols and equation numbers are those of FAO Irrigation and Drainage Paper 56 (Allen et al., 1998). Water is in
micrometres (1 µm = 1e-3 mm = 1 g/m²), water content in 1e-4 m³/m³, temperature in 0.01 °C, Kc in 1e-3.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from shared_models.codes import Crop
from shared_models.fixed import c_table, clamp, quotient


class CropCoefficients(NamedTuple):
    """Table 12 (Kc) and table 22 (greatest root depth, capped at 1 m)."""

    kc_initial_e3: int
    kc_middle_e3: int
    kc_end_e3: int
    root_depth_max_mm: int


CROPS = {
    Crop.MAIZE: CropCoefficients(350, 1200, 500, 1000),
    Crop.SOYBEAN: CropCoefficients(400, 1150, 500, 1000),
    Crop.POTATO: CropCoefficients(500, 1150, 750, 600),
    Crop.DRY_BEAN: CropCoefficients(400, 1150, 350, 750),
    Crop.TOMATO: CropCoefficients(600, 1150, 800, 1000),
    Crop.SUGAR_BEET: CropCoefficients(350, 1200, 700, 1000),
    Crop.SORGHUM: CropCoefficients(350, 1050, 550, 1000),
    Crop.WHEAT: CropCoefficients(400, 1150, 300, 1000),
}

# Ends of the initial, development and mid-season stages as parts of the season; the typical proportions of table 11.
STAGE_ENDS_PERMILLE = (180, 430, 800)

ROOT_DEPTH_START_MM = 300
ROOT_GROWTH_DAYS = 60
AWC_LOW_E4, AWC_HIGH_E4, AWC_DEFAULT_E4 = 600, 2400, 1400
VAPOUR_START_C100, VAPOUR_STEP_C100 = -2000, 250
VAPOUR_PA = tuple(
    round(610.8 * math.exp(17.27 * t / (t + 237.3))) for t in ((VAPOUR_START_C100 + 250 * i) / 100 for i in range(33))
)
"""Eq. 11 from −20 to 60 °C in steps of 2.5 °C, Pa."""


def season_part_permille(day: int, season_days: int) -> int:
    """How much of the season has passed on ``day`` after planting, ‰ within 0 to 1000."""
    return quotient(clamp(day, 0, season_days) * 1000, season_days)


def growth_stage(day: int, season_days: int) -> int:
    """0 initial, 1 development, 2 mid-season, 3 late season, by :data:`STAGE_ENDS_PERMILLE`."""
    part = season_part_permille(day, season_days)
    return sum(part >= end for end in STAGE_ENDS_PERMILLE)


def crop_coefficient_e3(crop: int, day: int, season_days: int) -> int:
    """Kc on ``day`` after planting: fig. 34 and eq. 66 over the stages of the season."""
    initial, middle, end, _ = CROPS[Crop(crop)]
    part = season_part_permille(day, season_days)
    first, second, third = STAGE_ENDS_PERMILLE
    if part < first:
        return initial
    if part < second:
        return initial + quotient((middle - initial) * (part - first), second - first)
    if part < third:
        return middle
    return middle + quotient((end - middle) * (part - third), 1000 - third)


def root_depth_mm(crop: int, day: int, limit_cm: int) -> int:
    """Zr on ``day``: linear from 0.3 m to the crop's or the field's limit over 60 days."""
    deepest = min(CROPS[Crop(crop)].root_depth_max_mm, limit_cm * 10)
    if deepest <= ROOT_DEPTH_START_MM:
        return deepest
    grown = clamp(day, 0, ROOT_GROWTH_DAYS)
    return ROOT_DEPTH_START_MM + quotient((deepest - ROOT_DEPTH_START_MM) * grown, ROOT_GROWTH_DAYS)


def reference_et_um(air_mean_c100: int, light_q4_w_m2: int) -> int:
    """ET0 of a day from mean temperature and mean global radiation (1/16 W/m²).

    Hargreaves (1975), the radiation form behind eq. 52: ET0 = 0.0135·(T + 17.8)·Rs, Rs as 0.408 mm per MJ/m².
    In these units 2.974e-4·(T + 17.8 °C)·Rs, and 312 / 2²⁰ is 2.975e-4.
    """
    warmth = clamp(air_mean_c100 + 1780, 0, 7000)
    return max(((warmth * clamp(light_q4_w_m2, 0, 16000)) >> 8) * 312 >> 12, 100)


def total_available_um(awc_e4: int, depth_mm: int) -> int:
    """TAW, eq. 82."""
    return quotient(awc_e4 * depth_mm, 10)


def crop_et_um(et0_um: int, kc_e3: int, depletion_um: int, taw_um: int) -> int:
    """ETc adj = Ks·Kc·ET0, eq. 81, with Ks of eq. 84 at p = 0.5."""
    et_um = quotient(et0_um * kc_e3, 1000)
    if 2 * depletion_um <= taw_um or taw_um < 16:
        return et_um
    stress_q10 = quotient(((taw_um - depletion_um) >> 4) * 2048, taw_um >> 4)
    return et_um * clamp(stress_q10, 0, 1024) >> 10


def vapour_pressure_pa(temperature_c100: int) -> int:
    """e°(T), eq. 11, between table entries."""
    position = clamp(temperature_c100, VAPOUR_START_C100, 5999) - VAPOUR_START_C100
    index = quotient(position, VAPOUR_STEP_C100)
    low, high = VAPOUR_PA[index], VAPOUR_PA[index + 1]
    return low + quotient((high - low) * (position - index * VAPOUR_STEP_C100), VAPOUR_STEP_C100)


def vapour_deficit_pa(air_mean_c100: int, humidity_e2: int) -> int:
    """e°(Tmean)·(1 − RH), after eq. 11 and 19."""
    return quotient((vapour_pressure_pa(air_mean_c100) >> 2) * (10000 - clamp(humidity_e2, 0, 10000)), 2500)


def c_definitions() -> str:
    """What C must know of this module."""
    kc = [value for crop in Crop for value in CROPS[crop][:3]]
    roots = [CROPS[crop].root_depth_max_mm for crop in Crop]
    return (
        f"#define NORIA_CROPS {len(CROPS)}\n"
        f"#define NORIA_STAGE_INITIAL_PERMILLE {STAGE_ENDS_PERMILLE[0]}\n"
        f"#define NORIA_STAGE_DEVELOPMENT_PERMILLE {STAGE_ENDS_PERMILLE[1]}\n"
        f"#define NORIA_STAGE_MIDDLE_PERMILLE {STAGE_ENDS_PERMILLE[2]}\n"
        f"#define NORIA_ROOT_DEPTH_START_MM {ROOT_DEPTH_START_MM}\n"
        f"#define NORIA_ROOT_GROWTH_DAYS {ROOT_GROWTH_DAYS}\n"
        f"#define NORIA_AWC_LOW_E4 {AWC_LOW_E4}\n"
        f"#define NORIA_AWC_HIGH_E4 {AWC_HIGH_E4}\n"
        f"#define NORIA_AWC_DEFAULT_E4 {AWC_DEFAULT_E4}\n"
        f"#define NORIA_VAPOUR_START_C100 ({VAPOUR_START_C100})\n"
        f"#define NORIA_VAPOUR_STEP_C100 {VAPOUR_STEP_C100}\n"
        "#ifdef NORIA_WANT_AGRONOMY_TABLES\n"
        "/* Kc initial, middle, end by crop code − 1; greatest root depth, mm; e°(T), Pa */\n"
        + c_table("uint16_t", "noria_kc_table_e3", kc)
        + c_table("uint16_t", "noria_root_table_mm", roots)
        + c_table("uint16_t", "noria_vapour_table_pa", VAPOUR_PA)
        + "#endif\n"
    )
