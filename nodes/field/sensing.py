"""What a node's sensors make of the field: offsets, drift and noise, for one instant as for many.

Noise is a function of the quarter of an hour, so a reading does not depend on how often it is taken.
"""

from __future__ import annotations

from math import floor

import numpy as np

from nodes.field.character import Character, generator
from nodes.field.sky import DAY_S, Floats, Sky, Times
from nodes.scenario import WAKE_PERIOD_S

PROBE_NOISE = 0.003
"""White noise of one reading, m³/m³."""
PROBE_DRIFT = 0.0012
"""Daily innovation of the probes' slow drift, m³/m³; it forgets 3 % a day."""
DRIFT_MEMORY = 0.97
LIGHT_NOISE = 0.03
AIR_NOISE_C = 0.2
HUMIDITY_NOISE = 1.5
SOIL_TEMPERATURE_NOISE_C = 0.1
SUPPLY_MV = 3300
SLOTS_PER_DAY = int(DAY_S) // WAKE_PERIOD_S


class Sensing:
    """One node's sensors in its own field."""

    def __init__(
        self, seed: int, dev_eui: str, character: Character, sky: Sky, start_s: float, days: int, *year: int
    ) -> None:
        """Take the sensors.

        Args:
            seed: of the world.
            dev_eui: names the random streams.
            character: the sensors' own errors.
            sky: what they stand under.
            start_s: when the node boots, Unix seconds.
            days: how long it will run; after that the drift stands still.
            year: tells one year's drift from another's, if a node has several.
        """
        self._seed, self._dev_eui = seed, dev_eui
        self._character, self._sky = character, sky
        self._start_s = start_s
        self._drift = self._draw_drift(days, year)
        self._noise_day, self._noise = 0, np.empty((0, 6, SLOTS_PER_DAY))

    def probe_mv(self, channel: int, vwc: Times, time_s: Times) -> Floats:
        """Output of an uncalibrated probe, whole mV.

        Args:
            channel: 0 shallow, 1 deep.
            vwc: true water content at the probe, m³/m³.
            time_s: when, Unix seconds.
        """
        return probe_output_mv(self._character, channel, vwc, self.probe_error(channel, time_s))

    def probe_error(self, channel: int, time_s: Times) -> Floats:
        """Drift and noise of a probe, m³/m³."""
        day = np.floor((np.asarray(time_s) - self._start_s) / DAY_S).astype(np.intp)
        drift = self._drift[np.maximum(0, np.minimum(day, len(self._drift) - 1)), channel]
        error: Floats = drift + PROBE_NOISE * self._normal(channel, time_s)
        return error

    def soil_temp_c(self, time_s: Times) -> Floats:
        """Soil temperature between the probes, °C."""
        noise = SOIL_TEMPERATURE_NOISE_C * self._normal(2, time_s)
        return self._sky.soil_temperature_c(time_s) + self._character.soil_temperature_offset_c + noise

    def air(self, time_s: Times) -> tuple[Floats, Floats]:
        """Air temperature, °C, and relative humidity, %."""
        temperature_c = self._sky.air_temperature_c(time_s) + self._character.air_offset_c
        humidity = self._sky.relative_humidity(time_s) + self._character.humidity_offset
        humidity = np.maximum(0.0, np.minimum(100.0, humidity + HUMIDITY_NOISE * self._normal(4, time_s)))
        return temperature_c + AIR_NOISE_C * self._normal(3, time_s), humidity

    def light_w_m2(self, time_s: Times) -> Floats:
        """Global radiation as an uncalibrated sensor sees it, W/m²."""
        noise = np.maximum(0.0, 1 + LIGHT_NOISE * self._normal(5, time_s))
        light: Floats = self._sky.radiation_w_m2(time_s) * self._character.light_gain * noise
        return light

    def _draw_drift(self, days: int, year: tuple[int, ...]) -> Floats:
        innovations = generator(self._seed, self._dev_eui, "drift", *year).standard_normal((days + 2, 2))
        drift = np.zeros_like(innovations)
        for day in range(1, len(drift)):
            drift[day] = DRIFT_MEMORY * drift[day - 1] + PROBE_DRIFT * innovations[day - 1]
        return drift

    def _normal(self, channel: int, time_s: Times) -> Floats:
        """Noise of a channel in this quarter of an hour."""
        if isinstance(time_s, int | float):  # an emulated node asks for one instant after the other
            day, slot = divmod(floor(time_s / WAKE_PERIOD_S), SLOTS_PER_DAY)
            self._draw_noise(day, day)
            noise: Floats = self._noise[day - self._noise_day, channel, slot]
            return noise
        slots = np.floor(time_s / WAKE_PERIOD_S).astype(np.int64)
        days = slots // SLOTS_PER_DAY
        self._draw_noise(int(days.flat[0]), int(days.flat[-1]))
        noises: Floats = self._noise[days - self._noise_day, channel, slots % SLOTS_PER_DAY]
        return noises

    def _draw_noise(self, first: int, last: int) -> None:
        """Have the noise of these days at hand."""
        if self._noise_day <= first <= last < self._noise_day + len(self._noise):
            return
        rngs = (generator(self._seed, self._dev_eui, "noise", each) for each in range(first, last + 1))
        self._noise = np.stack([rng.standard_normal((6, SLOTS_PER_DAY)) for rng in rngs])
        self._noise_day = first


def probe_output_mv(character: Character, channel: int, vwc: Times, error: Times) -> Floats:
    """A probe's output for a water content and an error, both m³/m³: whole mV between ground and supply."""
    sensed = character.probe_gain[channel] * vwc + character.probe_offset[channel] + error
    return np.maximum(0, np.minimum(SUPPLY_MV, np.rint(300 + 4000 * sensed)))


def nominal_vwc(output_mv: Floats) -> Floats:
    """What an uncalibrated node takes a probe's output for, m³/m³."""
    return (output_mv - 300) / 4000
