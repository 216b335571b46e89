"""FAO-56's formulas for the sun above a station, the vapour in its air, and its reference evapotranspiration."""

from __future__ import annotations

from math import acos, cos, exp, log, pi, radians, sin, sqrt, tan

SOLAR_CONSTANT_MJ_M2_MIN = 0.0820
STEFAN_BOLTZMANN_MJ_M2_K4 = 4.903e-9
"""Per day."""
GRASS_ALBEDO = 0.23


def declination_rad(day_of_year: int) -> float:
    """Solar declination (FAO-56 eq. 24)."""
    return 0.409 * sin(2 * pi * day_of_year / 365 - 1.39)


def sunset_hour_angle_rad(latitude_deg: float, day_of_year: int) -> float:
    """Sunset hour angle (FAO-56 eq. 25)."""
    return acos(max(-1.0, min(1.0, -tan(radians(latitude_deg)) * tan(declination_rad(day_of_year)))))


def extraterrestrial_radiation_mj_m2(latitude_deg: float, day_of_year: int) -> float:
    """Ra, MJ/m²/d (FAO-56 eq. 21)."""
    phi, delta = radians(latitude_deg), declination_rad(day_of_year)
    omega = sunset_hour_angle_rad(latitude_deg, day_of_year)
    distance = 1 + 0.033 * cos(2 * pi * day_of_year / 365)
    angle = omega * sin(phi) * sin(delta) + cos(phi) * cos(delta) * sin(omega)
    return 24 * 60 / pi * SOLAR_CONSTANT_MJ_M2_MIN * distance * angle


def saturation_vapour_pressure_kpa(temperature_c: float) -> float:
    """e°(T) (FAO-56 eq. 11)."""
    return 0.6108 * exp(17.27 * temperature_c / (temperature_c + 237.3))


def dew_point_c(vapour_pressure_kpa: float) -> float:
    """The temperature at which this vapour pressure saturates the air, °C: FAO-56 eq. 11 solved for T."""
    exponent = log(vapour_pressure_kpa / 0.6108)
    return 237.3 * exponent / (17.27 - exponent)


def penman_monteith_mm(
    minimum_c: float,
    maximum_c: float,
    vapour_pressure_kpa: float,
    radiation_mj_m2: float,
    wind_m_s: float,
    *,
    elevation_m: float,
    extraterrestrial_mj_m2: float,
) -> float:
    """ET0 of one day from what a station measures, mm (FAO-56 eq. 6, without soil heat flux, eq. 42).

    Args:
        minimum_c: of the air.
        maximum_c: of the air.
        vapour_pressure_kpa: actual, daily mean.
        radiation_mj_m2: global radiation, MJ/m²/d.
        wind_m_s: at 2 m.
        elevation_m: of the station above the sea.
        extraterrestrial_mj_m2: Ra of that day.
    """
    mean_c = (minimum_c + maximum_c) / 2
    saturation_kpa = (saturation_vapour_pressure_kpa(minimum_c) + saturation_vapour_pressure_kpa(maximum_c)) / 2
    deficit_kpa = max(0.0, saturation_kpa - vapour_pressure_kpa)
    slope = 4098 * saturation_vapour_pressure_kpa(mean_c) / (mean_c + 237.3) ** 2  # eq. 13
    pressure_kpa: float = 101.3 * ((293 - 0.0065 * elevation_m) / 293) ** 5.26  # eq. 7
    psychrometric = 0.665e-3 * pressure_kpa  # eq. 8
    clear_mj = (0.75 + 2e-5 * elevation_m) * extraterrestrial_mj_m2  # eq. 37
    clearness = max(0.3, min(1.0, radiation_mj_m2 / clear_mj))
    emission = STEFAN_BOLTZMANN_MJ_M2_K4 * ((minimum_c + 273.16) ** 4 + (maximum_c + 273.16) ** 4) / 2
    longwave_mj = emission * (0.34 - 0.14 * sqrt(vapour_pressure_kpa)) * (1.35 * clearness - 0.35)  # eq. 39
    net_mj = (1 - GRASS_ALBEDO) * radiation_mj_m2 - longwave_mj
    aerodynamic = psychrometric * 900 / (mean_c + 273) * wind_m_s * deficit_kpa
    return (0.408 * slope * net_mj + aerodynamic) / (slope + psychrometric * (1 + 0.34 * wind_m_s))
