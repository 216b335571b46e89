"""Simulated fields: weather over columns of soil and crop, seen through the nodes' sensors, a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.worlds import sensors
from server.worlds.columns import Array, Column
from server.worlds.darcy import CENTRES_M as DARCY_CENTRES_M
from server.worlds.darcy import DarcyColumn, DarcyTraits
from server.worlds.dual_kc import CENTRES_M as CASCADE_CENTRES_M
from server.worlds.dual_kc import CascadeTraits, DualKcColumn
from server.worlds.field import DAWN_S, Case
from server.worlds.weather import STEP_S, STEPS_PER_DAY, generate
from shared_models.fixed import NO_VALUE

DAWN_STEP = DAWN_S // STEP_S
MILLIVOLT_PER_VWC = 4000
"""The node's nominal transfer, ``vwc_e4 = (mV - 300) * 5 / 2``, backwards."""

Readings = NDArray[np.int16]
"""(steps, 6, fields), the sensors in :mod:`server.worlds.sensors`' order and the node's integer units."""

UNDRAINED_TO_M = 0.6
LEAST_SOAKED_M = 0.45
"""A farmer waters until the deep probe answers."""


@dataclass(frozen=True)
class Outcome:
    """What a season came to."""

    irrigation_mm: float
    """What reached the ground, not what the node believed."""
    rain_mm: float
    """From planting to harvest."""
    relative_yield: float
    """After FAO-33 in world 1, as biomass in world 2: over that of the same crop without a shortage."""
    stress_days: float
    """Days, each weighted by the part of its transpiration that failed."""
    drainage_mm: float
    evapotranspiration_mm: float
    """From planting to harvest."""


@dataclass(frozen=True)
class _Seasons:
    """What is drawn before a season begins, from 06:00 of its first day; (steps, …, fields)."""

    rain_mm: Array
    et0_mm: Array
    air_c: Array
    humidity: NDArray[np.float32]
    light_w_m2: NDArray[np.float32]
    noise: NDArray[np.float32]
    """(steps, 8, fields): of the six sensors, and the steps of the probes' drift."""
    lost: NDArray[np.bool_]
    """(steps, 6, fields)."""

    @classmethod
    def empty(cls, steps: int, fields: int) -> _Seasons:
        shape = (steps, fields)
        return cls(
            rain_mm=np.zeros(shape),
            et0_mm=np.zeros(shape),
            air_c=np.zeros(shape),
            humidity=np.zeros(shape, np.float32),
            light_w_m2=np.zeros(shape, np.float32),
            noise=np.zeros((steps, sensors.SENSORS + 2, fields), np.float32),
            lost=np.zeros((steps, sensors.SENSORS, fields), np.bool_),
        )

    def at(self, now: slice, fields: NDArray[np.intp]) -> _Seasons:
        return _Seasons(*(value[now][..., fields] for value in vars(self).values()))


class Fields:
    """Steps the cases of one world through their seasons, from the dawn on which their nodes are switched on.

    A field's numbers depend on its own case and on the water given to it, never on the batch around it.

    Attributes:
        cases: those still in the field, in the order of all arrays.
        column: their soil and crop, for those who may see the truth.
        step: quarters of an hour since the start.
    """

    def __init__(self, cases: Sequence[Case]) -> None:
        """Draw the seasons' weather and soak the profiles.

        Raises:
            ValueError: there is no case, or the cases are not of one world with one time of commissioning.
        """
        if len({(case.world, case.commissioning_days) for case in cases}) != 1:
            raise ValueError("a batch needs cases of one world with the same days of commissioning")
        self.cases = list(cases)
        self.step = 0
        self._seasons = _Seasons.empty(STEPS_PER_DAY * (max(case.days for case in cases) + 1), len(cases))
        starts = [self._draw(index, case) for index, case in enumerate(cases)]
        self.column = _column(cases, starts)
        self._commissioning_days = cases[0].commissioning_days
        count = len(cases)
        self._chosen = np.arange(count)
        """Which of the seasons drawn the remaining fields have."""
        self._pending_mm = np.zeros(count)
        self._irrigation_mm = np.zeros(count)
        self._rain_mm = np.zeros(count)
        self._before_planting_mm = np.zeros(count)
        """Evaporated so far."""
        self._drift = np.zeros((2, count))
        self._soil_c = _over_steps(self._seasons.air_c[:STEPS_PER_DAY]) / STEPS_PER_DAY
        errors = [case.sensors for case in cases]
        self._gain, self._offset = np.array([e.gain for e in errors]).T, np.array([e.offset for e in errors]).T
        self._depth_m = np.array([e.depth_m for e in errors]).T
        traits = [
            (e.temperature_response, e.noise, e.drift_per_sqrt_day, e.light_gain, e.air_bias_c, e.humidity_bias)
            for e in errors
        ]
        self._errors = np.array(traits).T
        self._delivered = np.array([(c.management.application_rate_mm_h, c.management.flow_factor) for c in cases]).T

    @property
    def day(self) -> int:
        """Whole days from dawn to dawn since planting; negative before."""
        return self.step // STEPS_PER_DAY - self._commissioning_days

    def irrigate(self, amounts_mm: Array) -> None:
        """Open the valves for nominal amounts; what they really deliver arrives from now on at their own rates."""
        delivered = amounts_mm * self._delivered[1]
        self._pending_mm += delivered
        self._irrigation_mm += delivered

    def first_readings(self) -> Readings:
        """What the sensors say before anything has happened: one step of :meth:`advance`'s kind."""
        return self._sense(self.column.theta[None], 0, np.broadcast_to(self._soil_c, (1, len(self.cases))))

    def advance(self, steps: int) -> Readings:
        """Let some quarters of an hour pass, within one day from dawn to dawn, and read all sensors after each."""
        now = self._seasons.at(slice(self.step, self.step + steps), self._chosen)
        rate = self._delivered[0] * self._delivered[1] * (STEP_S / 3600)
        watered = np.clip(self._pending_mm - rate * np.arange(steps)[:, None], 0.0, rate)
        self._pending_mm = np.maximum(self._pending_mm - rate * steps, 0.0)
        theta = self.column.advance(self.day, now.rain_mm + watered, now.et0_mm, now.air_c)
        if self.day >= 0:
            self._rain_mm += _over_steps(now.rain_mm)
        else:
            self._before_planting_mm = self.column.ledger.evaporation.copy()
        soil = np.empty((steps, len(self.cases)))
        for step in range(steps):
            self._soil_c = self._soil_c + (now.air_c[step] - self._soil_c) / 60
            soil[step] = self._soil_c
        readings = self._sense(theta, self.step + 1, soil)
        self.step += steps
        return readings

    def depletion_fraction(self) -> Array:
        """The truth: ``Dr`` over ``TAW`` now."""
        return self.column.depletion_fraction(self.day)

    def outcomes(self) -> list[Outcome]:
        """The seasons so far."""
        ledger = self.column.ledger
        columns = (
            self._irrigation_mm,
            self._rain_mm,
            self.column.relative_yield(),
            self.column.stress_days,
            ledger.drainage,
            ledger.evaporation + ledger.transpiration - self._before_planting_mm,
        )
        return [Outcome(*row) for row in np.stack(columns).T.tolist()]

    def keep(self, chosen: NDArray[np.bool_]) -> None:
        """Go on with the chosen fields only."""
        self.cases = [case for case, stays in zip(self.cases, chosen, strict=True) if stays]
        self.column.keep(chosen)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                setattr(self, name, np.ascontiguousarray(value[..., chosen]))

    def _draw(self, index: int, case: Case) -> np.random.Generator:
        """The season of one case, from 06:00 of its first day, and its stream for the soil to go on with."""
        field_rng = np.random.default_rng([0x5365, case.seed])
        soil_rng = field_rng.spawn(1)[0]
        rng = np.random.default_rng([0x5965, case.seed, case.year]) if case.year else field_rng
        first_day = (case.planting_day_of_year - case.commissioning_days - 1) % 365 + 1
        weather = generate(case.climate, first_day, case.days + 2, rng)
        steps = case.days * STEPS_PER_DAY + 1
        now = slice(DAWN_STEP, DAWN_STEP + steps)
        seasons = self._seasons
        for target, source in (
            (seasons.rain_mm, weather.rain_mm),
            (seasons.et0_mm, weather.et0_mm),
            (seasons.air_c, weather.air_temperature_c),
            (seasons.humidity, weather.relative_humidity),
            (seasons.light_w_m2, weather.light_w_m2),
        ):
            target[:steps, index] = source.reshape(-1)[now]
        for covered in (seasons.rain_mm, seasons.et0_mm):
            covered[: case.commissioning_days * STEPS_PER_DAY, index] = 0.0
        seasons.noise[:steps, :, index] = rng.standard_normal((steps, sensors.SENSORS + 2), np.float32)
        lost = rng.random((steps, sensors.SENSORS), np.float32) < case.sensors.lost
        for gap in case.sensors.gaps:
            start = int(gap.start * steps)
            for sensor in gap.sensors:
                lost[start : start + round(gap.days * STEPS_PER_DAY), sensor] = True
        seasons.lost[:steps, :, index] = lost
        return soil_rng

    def _sense(self, theta: Array, first: int, soil_c: Array) -> Readings:
        """Readings of the steps from ``first`` on, given the water content by layer and the soil's temperature."""
        steps, _, count = theta.shape
        now = self._seasons.at(slice(first, first + steps), self._chosen)
        noise = now.noise
        response, spread, wander, light_gain, air_bias, humidity_bias = self._errors
        readings = np.empty((steps, sensors.SENSORS, count))
        for probe in (sensors.SHALLOW, sensors.DEEP):
            drift = np.empty((steps, count))
            for step in range(steps):
                shock = wander / np.sqrt(STEPS_PER_DAY) * noise[step, sensors.SENSORS + probe]
                self._drift[probe] += shock - 0.03 / STEPS_PER_DAY * self._drift[probe]
                drift[step] = self._drift[probe]
            true = _at_depth(theta, self.column.centres_m, self._depth_m[probe])
            value = self._gain[probe] * true + self._offset[probe] + drift
            value += response * (soil_c - 20) + spread * noise[:, probe]
            readings[:, probe] = np.floor(np.rint(value * MILLIVOLT_PER_VWC) * 2.5)
        readings[:, sensors.SOIL] = np.rint(100 * (soil_c + 0.1 * noise[:, 2]))
        readings[:, sensors.AIR] = np.rint(100 * (now.air_c + air_bias + 0.1 * noise[:, 3]))
        humidity = now.humidity + humidity_bias + noise[:, 4]
        readings[:, sensors.HUMIDITY] = np.rint(100 * np.clip(humidity, 2.0, 100.0))
        light = now.light_w_m2 * light_gain * np.exp(0.03 * noise[:, 5])
        readings[:, sensors.LIGHT] = np.rint(np.minimum(light, sensors.LIGHT_SATURATION_W_M2))
        return np.where(now.lost, NO_VALUE, np.clip(readings, -32767, 32767)).astype(np.int16)


def _over_steps(values: Array) -> Array:
    """Sum over steps, in their order whatever the number of fields."""
    total: Array = values[0].copy()
    for value in values[1:]:
        total += value
    return total


def _at_depth(theta: Array, centres_m: Array, depth_m: Array) -> Array:
    """Water content at each field's depth, between layer centres; (steps, fields)."""
    upper = np.clip(np.searchsorted(centres_m, depth_m) - 1, 0, len(centres_m) - 2)
    share = np.clip((depth_m - centres_m[upper]) / (centres_m[upper + 1] - centres_m[upper]), 0.0, 1.0)
    field = np.arange(len(depth_m))
    content: Array = theta[:, upper, field] * (1 - share) + theta[:, upper + 1, field] * share
    return content


def _column(cases: Sequence[Case], streams: Sequence[np.random.Generator]) -> Column:
    """The cases' soils after the commissioning soak."""
    soils, crops = [case.soil for case in cases], [case.traits for case in cases]
    if cases[0].world == "dual-kc":
        theta = _soaked(cases, streams, CASCADE_CENTRES_M)
        return DualKcColumn(soils, crops, [_cascade(rng) for rng in streams], theta)
    theta = _soaked(cases, streams, DARCY_CENTRES_M)
    return DarcyColumn(soils, crops, [_darcy(rng) for rng in streams], theta)


def _soaked(cases: Sequence[Case], streams: Sequence[np.random.Generator], centres_m: Array) -> Array:
    """Water fills the soil from above as deep as it reaches; what stands above 0.6 m has yet to drain.

    The plot is covered until planting, as is done where field capacity is measured in place.
    """
    profiles = []
    for case, rng in zip(cases, streams, strict=True):
        soil, below, soak_mm = case.soil, rng.uniform(0.5, 1.0), rng.uniform(60.0, 100.0)
        undrained = soil.theta_fc + 0.75 * (soil.theta_saturation - soil.theta_fc)
        before = soil.theta_wp + below * (soil.theta_fc - soil.theta_wp)
        reached_m = max(soak_mm / 1000 / max(soil.theta_fc - before, 0.01), LEAST_SOAKED_M)
        filled = np.where(centres_m < UNDRAINED_TO_M, undrained, soil.theta_fc)
        profiles.append(np.where(centres_m < reached_m, filled, before))
    return np.array(profiles).T.copy()


def _cascade(rng: np.random.Generator) -> CascadeTraits:
    return CascadeTraits(
        drainage_per_day=rng.uniform(0.35, 0.9),
        root_extinction=rng.uniform(0.6, 2.5),
        wetted_fraction=rng.choice([0.4, 0.7, 1.0]),
        runoff_above_mm_h=rng.uniform(15, 60),
        root_days=rng.uniform(40, 75),
    )


def _darcy(rng: np.random.Generator) -> DarcyTraits:
    h3_low = rng.uniform(5_000, 12_000)
    return DarcyTraits(
        water_table_m=rng.uniform(1.6, 3.0) if rng.random() < 0.2 else None,
        root_extinction=rng.uniform(0.8, 3.0),
        compensation=rng.uniform(0.5, 1.0),
        leaf_area_max=rng.uniform(2.5, 5.5),
        light_extinction=rng.uniform(0.5, 0.75),
        heat_to_full_cover_kd=rng.uniform(500, 950),
        stress_suction_mm=(h3_low, h3_low * rng.uniform(0.35, 0.7)),
        surface_resistance=rng.uniform(0.3, 1.5),
        expansion_depletion=(rng.uniform(0.15, 0.35), rng.uniform(0.5, 0.65)),
        senescence_depletion=rng.uniform(0.7, 0.85),
    )
