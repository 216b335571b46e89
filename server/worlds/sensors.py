"""Cheap sensors as they come: uncalibrated gain and offset, drift, temperature response, noise, coarse steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SensorErrors:
    """One node's sensors; two of each soil figure for the shallow and the deep probe."""

    gain: tuple[float, float]
    offset: tuple[float, float]
    """m3/m3."""
    drift_per_sqrt_day: float
    """Standard deviation of the mean-reverting walk's daily step, m3/m3."""
    temperature_response: float
    """Apparent water content per kelvin, m3/m3."""
    noise: float
    """Standard deviation of one reading, m3/m3."""
    light_gain: float
    air_bias_c: float
    humidity_bias: float
    """Per cent relative humidity."""


def sample_sensors(rng: np.random.Generator) -> SensorErrors:
    """Two capacitive probes and a weather eye out of the drawer."""
    gain = np.clip(1 + 0.14 * rng.standard_normal(2), 0.65, 1.4)
    offset = 0.035 * rng.standard_normal(2)
    return SensorErrors(
        gain=(float(gain[0]), float(gain[1])),
        offset=(float(offset[0]), float(offset[1])),
        drift_per_sqrt_day=rng.uniform(0.0003, 0.0016),
        temperature_response=rng.normal(0, 0.0004),
        noise=rng.uniform(0.0015, 0.005),
        light_gain=float(np.exp(0.12 * rng.standard_normal())),
        air_bias_c=rng.normal(0, 0.5),
        humidity_bias=rng.normal(0, 2.0),
    )
