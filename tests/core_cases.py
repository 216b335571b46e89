"""Field-seasons for the core's tests: a bucket of soil under weather, and readings no field ever gave."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from shared_models.agronomy import crop_coefficient_e3
from shared_models.codes import Board, Crop
from shared_models.fixed import NO_VALUE
from shared_models.network import Layer, ModelImage, quantise_multiplier
from shared_models.reference import Outcome, Reading
from shared_models.settings import Settings

PLANTING_S = 20_000 * 86_400 + 6 * 3600


def settings(**changes: object) -> Settings:
    values: dict[str, object] = {
        "dev_eui": "0011223344556677",
        "board": Board.STM32L072,
        "crop": Crop.MAIZE,
        "planting_time_s": PLANTING_S,
        "season_days": 130,
        "season": 2024,
        "application_rate_e2_mm_h": 1000,
    }
    return Settings(**(values | changes))  # type: ignore[arg-type]


def random_layer(rng: np.random.Generator, inputs: int, outputs: int, scale: float, zeros: tuple[int, int]) -> Layer:
    return Layer(
        rng.integers(-128, 128, (outputs, inputs)).astype(np.int8),
        rng.integers(-4000, 4000, outputs).astype(np.int32),
        *quantise_multiplier(scale),
        *zeros,
    )


def random_model(seed: int, scale: float = 0.003) -> ModelImage:
    rng = np.random.default_rng(seed)
    return ModelImage(
        random_layer(rng, 24, 16, scale, (0, -128)),
        random_layer(rng, 16, 8, scale, (-128, -128)),
        random_layer(rng, 8, 4, scale / 2, (-128, 0)),
    )


@dataclass
class BucketField:
    """One soil store over the root zone, seen by two uncalibrated probes."""

    seed: int
    upper: float = 0.31
    capacity: float = 0.16
    demand: float = 1.1
    noise: float = 0.004
    rain_chance: float = 0.12
    gain: tuple[float, float] = (1.1, 0.9)
    offset: tuple[float, float] = (0.02, -0.03)
    first_day: int = -8
    depletion_mm: float = 0.0
    water_mm: float = 0.0
    stress_days: int = 0
    _rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def days(self, count: int) -> Iterator[tuple[int, list[Reading]]]:
        """(day after planting, its 96 readings); call :meth:`irrigate` between them."""
        for day in range(self.first_day, self.first_day + count):
            yield day, self._day(day)

    def irrigate(self, outcome: Outcome) -> None:
        self.depletion_mm -= outcome.dose_e1_mm / 10
        self.water_mm += outcome.dose_e1_mm / 10

    def _day(self, day: int) -> list[Reading]:
        rng = self._rng
        cloud = rng.uniform(0.4, 1.0)
        rain_mm = rng.expovariate(1 / 8) if rng.random() < self.rain_chance else 0.0
        depth_m = 0.3 + 0.7 * min(max(day, 0) / 60, 1)
        deficit = min(max(self.depletion_mm, 0) / 1000 / depth_m, self.capacity)
        self.stress_days += deficit > 0.7 * self.capacity
        soil = (self.upper - deficit, self.upper - deficit)
        readings, reference_et_mm = [], 0.0
        for wake in range(96):
            hour = (6 + wake / 4) % 24
            warmth = math.sin((hour - 9) / 12 * math.pi)
            air_c = 20 + 7 * warmth + 3 * math.sin(day / 20)
            light = max(0.0, math.sin((hour - 6) / 12 * math.pi)) * 900 * cloud if 6 < hour < 18 else 0.0
            probes = [
                round((g * th + o + rng.gauss(0, self.noise)) * 1e4)
                for g, o, th in zip(self.gain, self.offset, soil, strict=True)
            ]
            readings.append(
                Reading(
                    PLANTING_S + day * 86_400 + wake * 900 + 37,
                    *probes,
                    soil_temp_c100=1900,
                    air_temp_c100=round(air_c * 100),
                    rh_e2=round(6000 - 1500 * warmth),
                    light_w_m2=round(light),
                )
            )
            reference_et_mm += 0.0135 * 0.408 * (air_c + 17.8) * light * 900e-6
        kc = crop_coefficient_e3(Crop.MAIZE, day, 130) / 1000 if day >= 0 else 0.02
        stress = min(1.0, 2 * (1 - deficit / self.capacity))
        self.depletion_mm = max(0.0, self.depletion_mm + reference_et_mm * kc * stress * self.demand - rain_mm)
        return readings


def spoil(reading: Reading, rng: random.Random, rate: float) -> Reading:
    """Break some values of a reading."""
    for name in ("vwc_shallow_e4", "vwc_deep_e4", "soil_temp_c100", "air_temp_c100", "rh_e2", "light_w_m2"):
        if rng.random() < rate:
            setattr(reading, name, rng.choice([NO_VALUE, -32767, 32767, 0, -1, rng.randrange(-32768, 32768)]))
    return reading
