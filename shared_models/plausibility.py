"""Which sensor to believe: range, rate and stuck checks, fault with hysteresis, and the day's sums.

A sensor is at fault after :data:`BAD_WAKES` implausible wakes in a row (1 h), or more slowly when it jumps to and fro
and more than a third of its wakes are implausible. It comes back after :data:`GOOD_WAKES` plausible ones in a row
(2 h). An implausible reading is never used, fault or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared_models.fixed import NO_VALUE
from shared_models.layout import c_constants
from shared_models.state import State

if TYPE_CHECKING:
    from shared_models.reference import Reading

SHALLOW, DEEP, SOIL, AIR, LIGHT = range(5)
FAULT_BITS = (2, 4, 8, 16, 32)
"""``frames.TelemetryFlag`` of each sensor."""

PROBE_LOW_E4, PROBE_HIGH_E4 = -400, 7200
PROBE_FALL_E4 = 1000
"""Soil never loses so much in 15 min; a rise may be rain."""
STUCK_WAKES = 192
"""Two days without one count of noise."""
TEMPERATURE_LOW_C100, TEMPERATURE_HIGH_C100 = -4000, 6500
LIGHT_HIGH_W_M2 = 1600
BAD_WAKES, GOOD_WAKES = 4, 8
BAD_WEIGHT = 2
"""An implausible wake counts as much as so many plausible ones."""
MAX_DAY_WAKES = 192
"""More are not summed: no clock error can overflow a day."""
BATTERY_LOW_MV, BATTERY_GOOD_MV = 2300, 2450
"""Under the sensors' load. A lithium coin cell has a few per cent of its charge left below the first."""
CONTRARY_Q10, CONTRARY_DAWNS = 307, 3
"""Probes and balance .3 of TAW apart at so many dawns, each after the observer has closed a third of it: one of them is
wrong; half of that: they agree again."""
SMOOTHING_SHIFT = 4
"""Probes: a sixteenth of the way at every wake, about 4 h."""


def _judge(state: State, sensor: int, *, plausible: bool) -> None:
    """Count towards a fault or a recovery."""
    bit = FAULT_BITS[sensor]
    if plausible:
        state.bad_wakes[sensor] = max(state.bad_wakes[sensor] - 1, 0)
        if state.faults & bit:
            state.good_wakes[sensor] += 1
            if state.good_wakes[sensor] >= GOOD_WAKES:
                state.faults &= ~bit
                state.bad_wakes[sensor] = 0
    else:
        state.good_wakes[sensor] = 0
        state.bad_wakes[sensor] = min(state.bad_wakes[sensor] + BAD_WEIGHT, BAD_WAKES * BAD_WEIGHT)
        if state.bad_wakes[sensor] >= BAD_WAKES * BAD_WEIGHT:
            state.faults |= bit


def _probe(state: State, probe: int, value: int) -> None:
    last = state.probe_last_e4[probe]
    if value == last:
        if state.same_wakes[probe] < STUCK_WAKES:
            state.same_wakes[probe] += 1
    else:
        state.same_wakes[probe] = 0
    plausible = PROBE_LOW_E4 <= value <= PROBE_HIGH_E4 and state.same_wakes[probe] < STUCK_WAKES
    if plausible and PROBE_LOW_E4 <= last <= PROBE_HIGH_E4 and last - value > PROBE_FALL_E4:
        plausible = False
    state.probe_last_e4[probe] = value
    if plausible:
        smooth = state.probe_q4[probe]
        if smooth == NO_VALUE:
            state.probe_q4[probe] = value * 16
        else:
            state.probe_q4[probe] = smooth + ((value * 16 - smooth) >> SMOOTHING_SHIFT)
    if plausible and state.bad_wakes[probe] == 0 and not state.faults & FAULT_BITS[probe]:
        return
    _judge(state, probe, plausible=plausible)
    if state.faults & FAULT_BITS[probe]:
        state.probe_q4[probe] = NO_VALUE


def check_probes(state: State, reading: Reading) -> None:
    """Judge both probes and smooth what is plausible; before a day is closed."""
    _probe(state, SHALLOW, reading.vwc_shallow_e4)
    _probe(state, DEEP, reading.vwc_deep_e4)


def add_air_and_light(state: State, reading: Reading, factor_q12: int) -> None:
    """Judge the rest and add it to the day's sums; ``factor_q12`` is the model's factor on ET."""
    soil, air = reading.soil_temp_c100, reading.air_temp_c100
    plausible = TEMPERATURE_LOW_C100 <= soil <= TEMPERATURE_HIGH_C100
    if plausible and state.soil_count < MAX_DAY_WAKES:
        state.soil_sum += soil
        state.soil_count += 1
    if not plausible or state.bad_wakes[SOIL] or state.faults & FAULT_BITS[SOIL]:
        _judge(state, SOIL, plausible=plausible)
    plausible = TEMPERATURE_LOW_C100 <= air <= TEMPERATURE_HIGH_C100
    if plausible:
        if not state.air_seen:
            state.air_seen = 1
            state.air_low_c100 = state.air_high_c100 = air
        elif air < state.air_low_c100:
            state.air_low_c100 = air
        elif air > state.air_high_c100:
            state.air_high_c100 = air
    if not plausible or state.bad_wakes[AIR] or state.faults & FAULT_BITS[AIR]:
        _judge(state, AIR, plausible=plausible)
    if 0 <= reading.rh_e2 <= 10000 and state.humidity_count < MAX_DAY_WAKES:
        state.humidity_sum += reading.rh_e2
        state.humidity_count += 1
    light = reading.light_w_m2
    plausible = 0 <= light <= LIGHT_HIGH_W_M2
    if plausible and state.light_count < MAX_DAY_WAKES:
        state.light_sum += light
        state.uptake_sum += light * factor_q12
        state.light_count += 1
    if not plausible or state.bad_wakes[LIGHT] or state.faults & FAULT_BITS[LIGHT]:
        _judge(state, LIGHT, plausible=plausible)


def check_battery(state: State, battery_mv: int) -> None:
    """Whether the battery may open a valve, with hysteresis; an unknown voltage changes nothing."""
    if battery_mv == NO_VALUE:
        return
    if battery_mv < BATTERY_LOW_MV:
        state.battery_low = 1
    elif battery_mv >= BATTERY_GOOD_MV:
        state.battery_low = 0


def check_agreement(state: State) -> None:
    """Whether probes and balance tell of the same soil; at dawn, after the observer."""
    if not state.started or not state.anchored or not state.probes_used:
        return
    apart = abs(state.innovation_q10)
    contrary = apart < CONTRARY_Q10 >> 1 if state.disagreeing else apart > CONTRARY_Q10
    state.contrary_dawns = state.contrary_dawns + 1 if contrary else 0
    if state.contrary_dawns >= CONTRARY_DAWNS:
        state.contrary_dawns = 0
        state.disagreeing ^= 1


def c_definitions() -> str:
    """What C must know of this module."""
    return c_constants(
        {
            "SENSOR_SHALLOW": SHALLOW,
            "SENSOR_DEEP": DEEP,
            "SENSOR_SOIL": SOIL,
            "SENSOR_AIR": AIR,
            "SENSOR_LIGHT": LIGHT,
            "PROBE_LOW_E4": PROBE_LOW_E4,
            "PROBE_HIGH_E4": PROBE_HIGH_E4,
            "PROBE_FALL_E4": PROBE_FALL_E4,
            "STUCK_WAKES": STUCK_WAKES,
            "TEMPERATURE_LOW_C100": TEMPERATURE_LOW_C100,
            "TEMPERATURE_HIGH_C100": TEMPERATURE_HIGH_C100,
            "LIGHT_HIGH_W_M2": LIGHT_HIGH_W_M2,
            "BAD_WAKES": BAD_WAKES,
            "BAD_WEIGHT": BAD_WEIGHT,
            "MAX_DAY_WAKES": MAX_DAY_WAKES,
            "GOOD_WAKES": GOOD_WAKES,
            "SMOOTHING_SHIFT": SMOOTHING_SHIFT,
            "BATTERY_LOW_MV": BATTERY_LOW_MV,
            "BATTERY_GOOD_MV": BATTERY_GOOD_MV,
            "CONTRARY_Q10": CONTRARY_Q10,
            "CONTRARY_DAWNS": CONTRARY_DAWNS,
        }
    )
