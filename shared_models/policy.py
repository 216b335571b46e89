"""The decision: one a day, at the first wake of the watering window, and the farmer's word above it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared_models.agronomy import growth_stage
from shared_models.balance import DRAINED_DAWNS, planting_day, taw_um
from shared_models.codes import Mode, Reason
from shared_models.fixed import c_table, clamp, elapsed_s, quotient
from shared_models.layout import c_constants
from shared_models.state import State

if TYPE_CHECKING:
    from shared_models.reference import Outcome
    from shared_models.settings import Settings

OVERRIDE_STOP, OVERRIDE_WATER, OVERRIDE_RESUME = 1, 2, 3
STAGE_THRESHOLDS_Q4 = (13, 16, 16, 20)
"""The setting's multiple, 1/16, in the initial, development, mid-season and late stage: a canopy that is being built
suffers first, a ripening crop last."""
DEMAND_Q10_PER_MM = 82
"""By so much less of TAW may be depleted for each mm/d of ET0 above :data:`USUAL_ET0_UM`: table 22's footnote,
p + 0.04·(5 - ETc), as a share of p = 0.5."""
USUAL_ET0_UM = 5000
DEMAND_LOW_Q10, DEMAND_HIGH_Q10 = 614, 1434
HIGHEST_THRESHOLD_PERMILLE = 900
CAUTIOUS_DOSE_E1_MM = 120
"""Most water at once where no probe watches."""
MAX_DOSE_E1_MM = 1000
NO_ET_FAULTS = 16 | 32
"""Air and light both at fault: no ET either."""


def threshold_permille(state: State, settings: Settings) -> int:
    """Depletion that triggers a dose today, of TAW.

    The farmer's setting is meant for a crop in development at :data:`USUAL_ET0_UM`. It follows the crop's stage and,
    as FAO-56 does (table 22), the demand of the last days; it is half as much again where no probe watches.
    """
    stage = growth_stage(state.day - planting_day(settings), settings.season_days)
    demand_q10 = 1024 + quotient((USUAL_ET0_UM - clamp(state.et0_average_um, 0, 20000)) * DEMAND_Q10_PER_MM, 1000)
    threshold = settings.threshold_permille * STAGE_THRESHOLDS_Q4[stage] >> 4
    threshold = threshold * clamp(demand_q10, DEMAND_LOW_Q10, DEMAND_HIGH_Q10) >> 10
    if state.mode == Mode.BALANCE_ONLY:
        threshold += threshold >> 1
    return clamp(threshold, 1, HIGHEST_THRESHOLD_PERMILLE)


def choose_mode(state: State, planted: int, *, has_model: bool) -> int:
    """What to decide with."""
    if planted < 0 or not state.started:
        return Mode.COMMISSIONING
    if not state.probes_used:
        return Mode.BALANCE_ONLY
    return Mode.MODEL if has_model and not state.distrusted and not state.disagreeing else Mode.PHYSICS


def forget_the_future(state: State, time_s: int) -> None:
    """After the clock was set back, what was done at a later time was done now: nothing waits for it to come again."""
    for name in ("last_dose_s", "last_telemetry_s", "last_statistics_s"):
        if elapsed_s(time_s, getattr(state, name)) < 0:
            setattr(state, name, time_s)


def override(state: State, kind: int, value: int) -> bool:
    """A farmer's order: stop until a time, water a dose (0.1 mm) now, or resume; whether it was understood."""
    if kind == OVERRIDE_STOP:
        state.stop_until_s = value
        state.pending_water_e1_mm = 0
    elif kind == OVERRIDE_WATER and 0 < value <= MAX_DOSE_E1_MM:
        state.pending_water_e1_mm = value
        state.stop_until_s = 0
    elif kind == OVERRIDE_RESUME:
        state.stop_until_s = 0
        state.pending_water_e1_mm = 0
    else:
        return False
    return True


def decide(state: State, settings: Settings, outcome: Outcome, time_s: int) -> None:
    """Take today's decision when it is due, or carry out the farmer's."""
    clock_s = ((time_s + settings.utc_offset_min * 60) & 0xFFFFFFFF) % 86400
    planted = state.day - planting_day(settings)
    if state.stop_until_s and elapsed_s(time_s, state.stop_until_s) >= 0:
        state.stop_until_s = 0
    if state.pending_water_e1_mm:
        dose, state.pending_water_e1_mm = state.pending_water_e1_mm, 0
        reason = _calendar(state, settings, planted, last_days=False)
        outcome.decided = 1
        if reason == Reason.NOT_NEEDED:
            _water(state, settings, outcome, dose, settings.max_on_s, Reason.OVERRIDE_WATER, time_s)
        else:
            state.last_reason = reason
        return
    if state.decided or clock_s < settings.window_start_h * 3600:
        return
    state.decided = 1
    outcome.decided = 1
    left_s = settings.window_end_h * 3600 - clock_s
    reason = _judge(state, settings, planted, left_s, time_s)
    if reason != Reason.DEPLETED:
        state.last_reason = reason
        return
    dose = settings.dose_e1_mm
    if state.mode == Mode.BALANCE_ONLY:
        dose = min(dose, CAUTIOUS_DOSE_E1_MM)
    _water(state, settings, outcome, dose, min(left_s, settings.max_on_s), reason, time_s)


def _calendar(state: State, settings: Settings, planted: int, *, last_days: bool) -> Reason:
    """Whether the season allows water at all."""
    if not state.started or planted < 0:
        return Reason.COMMISSIONING
    if planted >= settings.season_days:
        return Reason.SEASON_OVER
    if last_days and planted * 20 >= settings.season_days * 19:
        return Reason.SEASON_ENDING
    return Reason.NOT_NEEDED


def _judge(state: State, settings: Settings, planted: int, left_s: int, time_s: int) -> Reason:
    """Today's reason; DEPLETED means water."""
    reason = _calendar(state, settings, planted, last_days=True)
    if reason != Reason.NOT_NEEDED:
        return reason
    if state.stop_until_s:
        return Reason.OVERRIDE_STOP
    if state.mode == Mode.BALANCE_ONLY and state.faults & NO_ET_FAULTS == NO_ET_FAULTS:
        return Reason.SENSOR_FAULT
    if state.depletion_um * 1000 <= taw_um(state) * threshold_permille(state, settings):
        return Reason.NOT_NEEDED
    if left_s <= 0:
        return Reason.OUTSIDE_WINDOW
    if state.last_dose_s and elapsed_s(time_s, state.last_dose_s) < settings.min_interval_h * 3600:
        return Reason.MINIMUM_INTERVAL
    if not state.anchored and 0 < state.drained_dawns <= DRAINED_DAWNS:
        # Water has reached the deep probe: once it has drained, the node knows what full is.
        return Reason.MINIMUM_INTERVAL
    return Reason.DEPLETED


def _water(
    state: State, settings: Settings, outcome: Outcome, dose_e1_mm: int, longest_s: int, reason: Reason, time_s: int
) -> None:
    """Open the valve for a dose within every cap; the dose is what the on-time gives."""
    rate = settings.application_rate_e2_mm_h
    daily_um = settings.daily_cap_mm * 1000 - state.dose_today_um
    seasonal_um = settings.seasonal_cap_mm * 1000 - state.water_season_um
    if rate == 0:
        state.last_reason = Reason.VALVE_FAULT
        return
    if state.battery_low:
        state.last_reason = Reason.LOW_BATTERY
        return
    if daily_um <= 0:
        state.last_reason = Reason.DAILY_CAP
        return
    if seasonal_um <= 0:
        state.last_reason = Reason.SEASONAL_CAP
        return
    dose_um = min(dose_e1_mm, MAX_DOSE_E1_MM) * 100
    dose_um = min(dose_um, daily_um, seasonal_um)
    open_s = min(quotient(dose_um * 360, rate), longest_s)
    if open_s == 0:
        state.last_reason = Reason.OUTSIDE_WINDOW
        return
    given_um = quotient(open_s * rate, 360)
    state.dose_today_um += given_um
    state.water_season_um += given_um
    state.last_dose_s = time_s
    state.last_reason = reason
    outcome.open_s = open_s
    outcome.dose_e1_mm = quotient(given_um + 50, 100)


def cut_short(state: State, settings: Settings, missing_s: int) -> None:
    """The valve closed ``missing_s`` before its time: that water was not given."""
    missing_um = min(quotient(min(missing_s, 86400) * settings.application_rate_e2_mm_h, 360), state.dose_today_um)
    state.dose_today_um -= missing_um
    state.water_season_um -= min(missing_um, state.water_season_um)


def c_definitions() -> str:
    """What C must know of this module."""
    table = c_table("uint8_t", "noria_stage_thresholds_q4", STAGE_THRESHOLDS_Q4)
    return f"#ifdef NORIA_WANT_STAGE_THRESHOLDS\n{table}#endif\n" + c_constants(
        {
            "DEMAND_Q10_PER_MM": DEMAND_Q10_PER_MM,
            "USUAL_ET0_UM": USUAL_ET0_UM,
            "DEMAND_LOW_Q10": DEMAND_LOW_Q10,
            "DEMAND_HIGH_Q10": DEMAND_HIGH_Q10,
            "HIGHEST_THRESHOLD_PERMILLE": HIGHEST_THRESHOLD_PERMILLE,
            "OVERRIDE_STOP": OVERRIDE_STOP,
            "OVERRIDE_WATER": OVERRIDE_WATER,
            "OVERRIDE_RESUME": OVERRIDE_RESUME,
            "CAUTIOUS_DOSE_E1_MM": CAUTIOUS_DOSE_E1_MM,
            "MAX_DOSE_E1_MM": MAX_DOSE_E1_MM,
            "NO_ET_FAULTS": NO_ET_FAULTS,
        }
    )
