"""Cheap sensors as they come: badly placed, uncalibrated, drifting, noisy, coarse, and now and then not there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHALLOW, DEEP, SOIL, AIR, HUMIDITY, LIGHT = range(6)
"""Columns of a batch of readings."""
SENSORS = 6
PROBE_DEPTHS_M = (0.15, 0.35)
"""Where the probes are meant to be."""
DEPTH_ERROR_M = 0.04
"""Most that a probe is off: a spade is no ruler."""


LIGHT_SATURATION_W_M2 = 1400
"""The cell gives no more."""


@dataclass(frozen=True)
class Gap:
    """A sensor that says nothing for a while."""

    sensors: tuple[int, ...]
    start: float
    """Part of the season passed."""
    days: float


@dataclass(frozen=True)
class SensorErrors:
    """One node's sensors; two of each soil figure for the shallow and the deep probe."""

    depth_m: tuple[float, float]
    """Where the probes really are."""
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
    lost: float
    """Part of single readings that a sensor fails to give."""
    gaps: tuple[Gap, ...]


def sample_sensors(rng: np.random.Generator) -> SensorErrors:
    """Two capacitive probes and a weather eye out of the drawer."""
    gain = np.clip(1 + 0.14 * rng.standard_normal(2), 0.65, 1.4)
    offset = 0.035 * rng.standard_normal(2)
    depth = np.array(PROBE_DEPTHS_M) + rng.uniform(-DEPTH_ERROR_M, DEPTH_ERROR_M, 2)
    gaps = []
    if rng.random() < 0.08:
        gaps.append(Gap((int(rng.choice([SHALLOW, DEEP])),), rng.random(), rng.uniform(2, 15)))
    if rng.random() < 0.08:
        kinds = [(AIR, HUMIDITY), (LIGHT,), (AIR, HUMIDITY, LIGHT)]
        gaps.append(Gap(kinds[int(rng.integers(3))], rng.random(), rng.uniform(0.2, 4)))
    return SensorErrors(
        depth_m=(float(depth[0]), float(depth[1])),
        gain=(float(gain[0]), float(gain[1])),
        offset=(float(offset[0]), float(offset[1])),
        drift_per_sqrt_day=rng.uniform(0.0003, 0.0016),
        temperature_response=rng.normal(0, 0.0004),
        noise=rng.uniform(0.0015, 0.005),
        light_gain=float(np.exp(0.12 * rng.standard_normal())),
        air_bias_c=rng.normal(0, 0.5),
        humidity_bias=rng.normal(0, 2.0),
        lost=float(rng.choice([0.0, 0.001, 0.01], p=[0.6, 0.3, 0.1])),
        gaps=tuple(gaps),
    )
