"""One field-year a day at a time: from one step of AquaCrop to the next, every reading is known in advance.

The formulas are those of :class:`nodes.field.world.FieldWorld`; only the asking is different: a node's 96 wakes of a
day at once instead of each at its time, and a healthy node on a fresh cell, whose converter resolves 1 mV.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import numpy.typing as npt

from nodes.field.character import ANCHOR_DAYS
from nodes.field.fields import COMMISSIONING_DAYS, SPARE_DAYS, SPIN_UP_DAYS, FieldYear
from nodes.field.ground import STEP_HOUR, Ground, applied_mm
from nodes.field.season import CropSeason, Plot
from nodes.field.sensing import SLOTS_PER_DAY, Sensing, nominal_vwc, probe_output_mv
from nodes.field.sky import Floats, Sky
from nodes.field.weather import Weather
from nodes.hostcore import READINGS, Records
from nodes.scenario import DAWN, DAY_S, WAKE_PERIOD_S
from shared_models.fixed import NO_VALUE

SUPPLY_MV = 3000
PROBE_BROKEN_BELOW_MV, RAIL_MARGIN_MV = 100, 40
"""What the node takes for no signal, as ``core/sensors.c`` has it."""
SOIL_TEMP_MV_AT_0, SOIL_TEMP_MV_PER_C = 500, 10
LIGHT_MV_PER_W_M2 = 2


class Year:
    """The world of one field-year; whoever holds the clock takes the ground's steps."""

    def __init__(self, field: FieldYear) -> None:
        """Args: where and when; it is the morning of the soak."""
        self._field = field
        self.character = field.character
        first = field.planting - timedelta(days=COMMISSIONING_DAYS + SPIN_UP_DAYS)
        self.weather = Weather(field.climate, first, field.planting + timedelta(days=field.season_days + SPARE_DAYS))
        self.planting_index = COMMISSIONING_DAYS + SPIN_UP_DAYS
        """Of the day of planting among the weather's days."""
        sky = Sky(self.weather)
        first_step_s = field.planting_time_s + (STEP_HOUR - DAWN.hour) * 3600
        soaked_days = (first_step_s - field.start_time_s) / DAY_S
        plot = Plot(field.crop, self.character.hydraulics, field.planting, self.character.soaked_vwc(soaked_days))
        self.season = CropSeason(self.weather, plot)
        self.ground = Ground(self.season, self.character, sky, plot.initial_vwc, field.start_time_s, first_step_s)
        days = COMMISSIONING_DAYS + field.season_days
        self.sensing = Sensing(field.seed, field.dev_eui, self.character, sky, field.start_time_s, days, field.year)
        self._wakes = days * SLOTS_PER_DAY

    def sensed_vwc(self, time_s: float) -> tuple[float, float]:
        """Both probes now, by their nominal curve, m³/m³."""
        shallow, deep = (
            float(nominal_vwc(self.sensing.probe_mv(channel, self.ground.vwc(channel, time_s), time_s)))
            for channel in (0, 1)
        )
        return shallow, deep

    def soaked_vwc(self) -> tuple[float, float]:
        """Mean of the probes over the anchor's days; before the first step."""
        begin, end = (int(day * SLOTS_PER_DAY) for day in ANCHOR_DAYS)
        times_s = self._wake_times_s()[begin:end]
        shallow, deep = (
            float(nominal_vwc(self.sensing.probe_mv(channel, self.ground.vwc(channel, times_s), times_s)).mean())
            for channel in (0, 1)
        )
        return shallow, deep

    def probe_readings_e4(self, channel: int, times_s: Floats, error: Floats) -> npt.NDArray[np.int16]:
        """What the node's integers make of a probe until the next step, 1e-4 m³/m³.

        Args:
            channel: 0 shallow, 1 deep.
            times_s: of the wakes since the last step, of the record.
            error: the probe's drift and noise then, m³/m³.
        """
        output_mv = probe_output_mv(self.character, channel, self.ground.vwc(channel, times_s), error)
        vwc_e4 = np.trunc((output_mv - 300) * 5 / 2)  # C divides towards zero
        lost = (output_mv < PROBE_BROKEN_BELOW_MV) | _at_rail(output_mv)
        return np.where(lost, NO_VALUE, vwc_e4).astype(np.int16)

    def sky_readings(self) -> tuple[Floats, Records, Floats]:
        """Every wake of the season, with what does not depend on the water given.

        Returns:
            Times of the record, Unix seconds (n,); readings with the times of the node's calendar and without probes
            (n,); the probes' drift and noise, m³/m³ (2, n).
        """
        field, times_s = self._field, self._wake_times_s()
        temperature_c, humidity = self.sensing.air(times_s)
        soil_mv = np.rint(SOIL_TEMP_MV_AT_0 + SOIL_TEMP_MV_PER_C * self.sensing.soil_temp_c(times_s))
        readings = np.zeros(len(times_s), READINGS)
        readings["time_s"] = times_s + (field.node_planting_time_s - field.planting_time_s)
        readings["soil_temp_c100"] = (soil_mv - SOIL_TEMP_MV_AT_0) * 100 / SOIL_TEMP_MV_PER_C
        readings["air_temp_c100"] = np.rint(100 * temperature_c)
        readings["rh_e2"] = np.rint(100 * humidity)
        light_mv = np.rint(LIGHT_MV_PER_W_M2 * self.sensing.light_w_m2(times_s))
        readings["light_w_m2"] = np.where(_at_rail(light_mv), NO_VALUE, light_mv // LIGHT_MV_PER_W_M2)
        readings["battery_mv"] = SUPPLY_MV
        errors = np.stack([self.sensing.probe_error(channel, times_s) for channel in (0, 1)])
        return times_s, readings, errors

    def _wake_times_s(self) -> Floats:
        first_s = self._field.start_time_s + self._field.wake_phase_s
        return first_s + WAKE_PERIOD_S * np.arange(self._wakes, dtype=np.float64)


class Valve:
    """Counts what flows, as :class:`nodes.field.world.FieldWorld` does: up to each step of AquaCrop for that step."""

    def __init__(self, rate_mm_h: float, flow_factor: float) -> None:
        """Args: nominal application rate, true over nominal."""
        self._rate_mm_h, self._flow_factor = rate_mm_h, flow_factor
        self._open: list[tuple[float, float]] = []
        self.water_mm = 0.0
        """Given so far, up to the last step."""
        self.doses = 0
        """Times it was opened."""

    def open(self, time_s: float, length_s: float) -> None:
        """Water flows from now on for so long."""
        self._open.append((time_s, time_s + length_s))
        self.doses += 1

    def given_mm(self, until_s: float) -> float:
        """What has flowed since this was asked last; the rest flows later."""
        given_mm = sum(
            applied_mm(min(end_s, until_s) - begin_s, self._rate_mm_h, self._flow_factor)
            for begin_s, end_s in self._open
        )
        self._open = [(until_s, end_s) for _, end_s in self._open if end_s > until_s]
        self.water_mm += given_mm
        return given_mm


def _at_rail(output_mv: Floats) -> npt.NDArray[np.bool_]:
    """Nothing healthy stands this close to the supply."""
    return output_mv > SUPPLY_MV - RAIL_MARGIN_MV
