"""Evaporative demand and sunlight after FAO Irrigation and Drainage Paper 56 (Allen et al. 1998).

Symbols and equation numbers are the paper's: ``Ra`` (21), ``ET0`` (6), ``e0`` (11). Everything is elementwise: a
number per day, or an array of days at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SOLAR_CONSTANT_MJ_M2_MIN = 0.0820
STEFAN_BOLTZMANN_MJ_K4_M2_D = 4.903e-9
LATENT_HEAT_MM_PER_MJ = 0.408
"""1/λ at 20 °C (eq. 20)."""
ALBEDO = 0.23
"""Of the reference grass (eq. 38)."""

Series = NDArray[np.float64]


def saturation_vapour_pressure_kpa(temperature_c: Series) -> Series:
    """``e0(T)``, kPa (eq. 11)."""
    pressure: Series = 0.6108 * np.exp(17.27 * temperature_c / (temperature_c + 237.3))
    return pressure


def dew_point_c(vapour_pressure_kpa: Series) -> Series:
    """The temperature at which ``vapour_pressure_kpa`` saturates, °C (eq. 11 solved for T)."""
    ratio = np.log(np.maximum(vapour_pressure_kpa, 1e-3) / 0.6108)
    dew: Series = 237.3 * ratio / (17.27 - ratio)
    return dew


def solar_declination_rad(day_of_year: Series) -> Series:
    """``δ``, rad (eq. 24)."""
    declination: Series = 0.409 * np.sin(2 * np.pi * day_of_year / 365 - 1.39)
    return declination


def extraterrestrial_radiation_mj_m2(latitude_deg: float, day_of_year: Series) -> Series:
    """``Ra``, MJ/m2 per day (eq. 21, 23, 25); the sun is held above the horizon where the paper's eq. 25 ends."""
    phi = np.radians(latitude_deg)
    delta = solar_declination_rad(day_of_year)
    dr = 1 + 0.033 * np.cos(2 * np.pi * day_of_year / 365)
    ws = np.arccos(np.clip(-np.tan(phi) * np.tan(delta), -1.0, 1.0))
    sun = ws * np.sin(phi) * np.sin(delta) + np.cos(phi) * np.cos(delta) * np.sin(ws)
    ra: Series = np.maximum(24 * 60 / np.pi * SOLAR_CONSTANT_MJ_M2_MIN * dr * sun, 0.1)
    return ra


def sine_of_solar_elevation(latitude_deg: float, day_of_year: Series, solar_hour: Series) -> Series:
    """``sin φ sin δ + cos φ cos δ cos ω``, zero at night."""
    phi = np.radians(latitude_deg)
    delta = solar_declination_rad(day_of_year)
    omega = np.pi * (solar_hour - 12.0) / 12.0
    sine: Series = np.maximum(np.sin(phi) * np.sin(delta) + np.cos(phi) * np.cos(delta) * np.cos(omega), 0.0)
    return sine


def reference_evapotranspiration_mm(
    *,
    t_min_c: Series,
    t_max_c: Series,
    vapour_pressure_kpa: Series,
    radiation_mj_m2: Series,
    wind_m_s: Series,
    ra_mj_m2: Series,
    elevation_m: float,
) -> Series:
    """``ET0`` of the Penman-Monteith equation for grass, mm per day (eq. 6 with 7, 8, 12, 13, 37 to 40; G = 0).

    Args:
        t_min_c: daily minimum of air temperature, °C.
        t_max_c: daily maximum, °C.
        vapour_pressure_kpa: actual vapour pressure ``ea``.
        radiation_mj_m2: global radiation ``Rs`` per day.
        wind_m_s: mean wind ``u2`` at 2 m.
        ra_mj_m2: extraterrestrial radiation ``Ra`` per day.
        elevation_m: above sea level; sets pressure (eq. 7) and clear-sky radiation (eq. 37).
    """
    t_mean_c = (t_min_c + t_max_c) / 2
    pressure_kpa = 101.3 * ((293 - 0.0065 * elevation_m) / 293) ** 5.26
    gamma = 0.665e-3 * pressure_kpa
    es = (saturation_vapour_pressure_kpa(t_max_c) + saturation_vapour_pressure_kpa(t_min_c)) / 2
    slope = 4098 * saturation_vapour_pressure_kpa(t_mean_c) / (t_mean_c + 237.3) ** 2
    clear_sky = (0.75 + 2e-5 * elevation_m) * ra_mj_m2
    rns = (1 - ALBEDO) * radiation_mj_m2
    kelvin4 = ((t_max_c + 273.16) ** 4 + (t_min_c + 273.16) ** 4) / 2
    cloudiness = np.maximum(1.35 * np.minimum(radiation_mj_m2 / clear_sky, 1.0) - 0.35, 0.05)
    rnl = STEFAN_BOLTZMANN_MJ_K4_M2_D * kelvin4 * (0.34 - 0.14 * np.sqrt(vapour_pressure_kpa)) * cloudiness
    energy = LATENT_HEAT_MM_PER_MJ * slope * (rns - rnl)
    wind = gamma * 900 / (t_mean_c + 273) * wind_m_s * np.maximum(es - vapour_pressure_kpa, 0.0)
    et0: Series = np.maximum((energy + wind) / (slope + gamma * (1 + 0.34 * wind_m_s)), 0.05)
    return et0
