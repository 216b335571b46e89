"""The day's close: FAO-56 root-zone balance, rain inferred from the probes, and the observer.

At each dawn the crop's ET of the day is taken from the depletion's complement, own doses and inferred rain are
added (eq. 85), and the observer pulls the result toward what the probes say: Dr += 0.35·(Dr,probe − Dr). Probes
count relative to their own drained upper limit, their *anchor*: the mean dawn reading of days 6 to 8 after a soak,
averaged over the soaks of the years. A node that never saw a soak anchors itself after the first rain that reaches
the deep probe and is left to drain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from shared_models import agronomy
from shared_models.fixed import EXP_ONE, NO_VALUE, clamp, day_number, move_toward, quotient
from shared_models.layout import c_constants
from shared_models.moments import TARGET_LIMITS
from shared_models.state import DAWNS, State

if TYPE_CHECKING:
    from shared_models.settings import Settings

DEEP_WEIGHT = 7
"""Tenths; the rest is the shallow probe's."""
OBSERVER_GAIN_Q10 = 358
UNANCHORED_GAIN_Q10 = 51
"""Without an anchor "full" is the wettest morning so far, mostly wetter than drained soil: hardly believed."""
RISE_E4 = 150
"""A rise at a probe that means water arrived."""
CALM_RISE_E4 = 50
"""A rise beyond the noise of a smoothed probe: not a dry-down."""
DRYING_E4 = 15
"""A day that rises less counts as drying for the dry-rate average."""
SHALLOW_STORE_MM, DEEP_STORE_MM = 250, 350
"""Soil that each probe stands for when rain is inferred."""
DEEP_RESET_RISE_E4, DEEP_RESET_MARGIN_E4 = 100, 150
ANCHOR_DAYS = 6
"""Days of drainage before a dawn reading counts; earlier ones read too high."""
ANCHOR_DAWNS = 3
SOAK_MARGIN_E4 = 300
"""A later season's drained readings so far below the anchor are no soak: the soil was not filled."""
MOVED_E4 = 500
"""So far above it, the probe stands elsewhere than it did: the old anchor is forgotten."""
MOST_SOAKS = 3
"""Soaks that count in the mean; probes drift, so older ones fade."""
DRAINED_DAWNS = 3
"""Undisturbed dawns after water reached the deep probe until a node without an anchor takes the reading for one."""
TOP_HEAVY_Q2 = 5
"""Uptake at the probes' depths over the root zone's mean, 1/4: roots take more from above."""
LIGHT_WAKES = 48
"""Fewer in a day: its light is not known."""
DARK_Q4_W_M2 = 48
"""A mean below 3 W/m² is a covered or broken sensor."""
MISSED_DAYS = 10
MOST_ET_UM = 20_000
"""More crop ET in a day does not occur; bounds a sum."""
MIN_ET_UM = 500
"""Less crop ET in a day says nothing about uptake."""


class Day(NamedTuple):
    """What the close of a day says to the statistics."""

    calm: bool
    """An undisturbed dry-down between two dawns with both probes."""
    uptake: int
    """What model and observer took beyond the physics' ETc, relative to it, in head steps."""
    mean_e4: int
    """Mean of both probes now, or NO_VALUE."""
    anchored_now: bool


def _deficit_e4(state: State, probes: int) -> int:
    """Water missing below the upper limit, weighted over ``probes`` (1 shallow, 2 deep)."""
    shallow = state.upper_limit_e4[0] - state.dawn_e4[0]
    deep = state.upper_limit_e4[1] - state.dawn_e4[DAWNS]
    if probes == 1:
        return shallow
    if probes == 2:
        return deep
    return quotient(DEEP_WEIGHT * deep + (10 - DEEP_WEIGHT) * shallow, 10)


def close_day(state: State, settings: Settings, days: int) -> Day:
    """Close the day that ends at this dawn, ``days`` after the last; ``state.day`` is already the new day."""
    planted = state.day - planting_day(settings)
    _close_air(state)
    known = _push_dawn(state, days)
    _close_light(state)
    factor_q12 = quotient(state.uptake_sum, state.light_sum) if state.light_sum > 0 else EXP_ONE
    anchored_now = _learn_upper_limit(state, settings, planted)
    shallow_rise, deep_rise = _rises(state)
    _dry_rate(state, shallow_rise, deep_rise)
    state.kc_e3 = agronomy.crop_coefficient_e3(settings.crop, planted, settings.season_days)
    depth_before = state.root_depth_mm
    state.root_depth_mm = agronomy.root_depth_mm(settings.crop, planted, settings.root_depth_max_cm)
    mean = NO_VALUE
    if state.probes_used == 3:
        mean = (state.dawn_e4[0] + state.dawn_e4[DAWNS]) >> 1
    if not state.started:
        if planted >= 0:
            _start(state)
        calm, uptake, et_um = False, 0, 0
    else:
        both = shallow_rise != NO_VALUE and deep_rise != NO_VALUE
        calm = both and days == 1 and max(shallow_rise, deep_rise) <= CALM_RISE_E4 and state.dose_today_um == 0
        et_um, corrected_um = _advance(state, days, depth_before, factor_q12, shallow_rise, deep_rise)
        calm = calm and known and bool(state.anchored) and et_um >= MIN_ET_UM
        uptake = _label(corrected_um, et_um) if calm else 0
    _watch_drainage(state, days, et_um, shallow_rise, deep_rise)
    if not state.anchored and state.drained_dawns > DRAINED_DAWNS:
        _anchor_after_rain(state)
        anchored_now = True
    _clear(state)
    return Day(calm, uptake, mean, anchored_now)


def _label(beyond_um: int, et_um: int) -> int:
    """What was taken beyond the physics' ETc, relative to it, in head steps of 1/256."""
    return clamp(quotient(beyond_um * 256, et_um), -TARGET_LIMITS[0], TARGET_LIMITS[0])


def planting_day(settings: Settings) -> int:
    """The day number of planting."""
    return day_number(settings.planting_time_s, settings.utc_offset_min)


def taw_um(state: State) -> int:
    """TAW at the present root depth."""
    return agronomy.total_available_um(state.awc_e4, state.root_depth_mm)


def _close_air(state: State) -> None:
    if state.air_seen:
        state.air_mean_c100 = (state.air_low_c100 + state.air_high_c100) >> 1
        state.air_range_c100 = state.air_high_c100 - state.air_low_c100
    if state.soil_count:
        state.soil_mean_c100 = quotient(state.soil_sum, state.soil_count)
    else:
        state.soil_mean_c100 = state.air_mean_c100
    if state.humidity_count:
        state.humidity_mean_e2 = quotient(state.humidity_sum, state.humidity_count)
    state.humidity_average_e2 = move_toward(state.humidity_average_e2, state.humidity_mean_e2, 410)


def _push_dawn(state: State, days: int) -> bool:
    """Shift the dawn readings and add today's; whether ET of the day is measured, not guessed."""
    state.probes_used = 0
    for probe in (0, 1):
        past = state.dawn_e4[probe * DAWNS : (probe + 1) * DAWNS]
        smooth = state.probe_q4[probe]
        now = NO_VALUE
        if smooth != NO_VALUE:
            now = (smooth + 8) >> 4
            state.probes_used |= 1 << probe
        gap = min(days - 1, DAWNS - 1)
        state.dawn_e4[probe * DAWNS : (probe + 1) * DAWNS] = ([now] + [NO_VALUE] * gap + past)[:DAWNS]
    return bool(state.air_seen) and state.light_count >= LIGHT_WAKES


def _close_light(state: State) -> None:
    """ET0 of the day, or the running average where light or air is not known."""
    if state.light_count >= LIGHT_WAKES:
        light_q4 = quotient(state.light_sum * 16, state.light_count)
        if light_q4 >= DARK_Q4_W_M2:
            state.light_mean_q4 = light_q4
            state.et0_um = agronomy.reference_et_um(state.air_mean_c100, light_q4)
            state.et0_average_um = move_toward(state.et0_average_um, state.et0_um, 410)
            return
    state.et0_um = state.et0_average_um


def _learn_upper_limit(state: State, settings: Settings, planted: int) -> bool:
    """The anchor after a soak; without one what drained rain says, and before that a running estimate."""
    anchored_now = False
    if not state.started:
        if planted > -ANCHOR_DAWNS and state.day - state.first_day >= ANCHOR_DAYS and state.probes_used == 3:
            for probe in (0, 1):
                state.anchor_sum[probe] += state.dawn_e4[probe * DAWNS]
            state.anchor_count += 1
        if planted >= 0 and state.anchor_count >= 2:
            anchored_now = _anchor_after_soak(state)
    if not state.anchored:
        for probe in (0, 1):
            now, before = state.dawn_e4[probe * DAWNS], state.dawn_e4[probe * DAWNS + 1]
            if now == NO_VALUE:
                continue
            if state.upper_limit_e4[probe] == NO_VALUE:
                state.upper_limit_e4[probe] = now
            elif before != NO_VALUE:
                state.upper_limit_e4[probe] = max(state.upper_limit_e4[probe], min(now, before))
    if settings.awc_prior_permille:
        awc = settings.awc_prior_permille * 10
    else:
        limits = [limit for limit in state.upper_limit_e4 if limit != NO_VALUE]
        awc = agronomy.AWC_DEFAULT_E4
        if len(limits) == 2:
            awc = (limits[0] + limits[1]) >> 2
        elif limits:
            awc = limits[0] >> 1
    state.awc_e4 = clamp(awc, agronomy.AWC_LOW_E4, agronomy.AWC_HIGH_E4)
    return anchored_now


def _anchor_after_soak(state: State) -> bool:
    """Take the commissioning's drained readings into the anchor, unless this season's soil was never filled."""
    drained = [quotient(total, state.anchor_count) for total in state.anchor_sum]
    change = [new - old for new, old in zip(drained, state.upper_limit_e4, strict=True)]
    if not state.anchored or max(change) > MOVED_E4:
        state.soaks = 0
    elif min(change) < -SOAK_MARGIN_E4:
        return False
    state.soaks = min(state.soaks + 1, MOST_SOAKS)
    if state.soaks == 1:
        state.upper_limit_e4 = drained
    else:
        old = state.upper_limit_e4
        state.upper_limit_e4 = [old[probe] + quotient(change[probe], state.soaks) for probe in (0, 1)]
    state.anchored = 1
    return True


def _anchor_after_rain(state: State) -> None:
    """The drained reading with what the crop has drunk since the rain put back."""
    drunk_e4 = quotient(state.drained_et_um * 10 * TOP_HEAVY_Q2 >> 2, state.root_depth_mm)
    state.upper_limit_e4 = [state.dawn_e4[probe * DAWNS] + drunk_e4 for probe in (0, 1)]
    state.anchored = 1


def _watch_drainage(state: State, days: int, et_um: int, shallow_rise: int, deep_rise: int) -> None:
    """Count the undisturbed dawns since water last reached the deep probe; after the day's ET is known."""
    if days > 1 or NO_VALUE in (shallow_rise, deep_rise):
        state.drained_dawns = 0
    elif deep_rise > DEEP_RESET_RISE_E4:
        state.drained_dawns = 1
        state.drained_et_um = 0
    elif max(shallow_rise, deep_rise) > CALM_RISE_E4 or state.dose_today_um:
        state.drained_dawns = 0
    elif state.drained_dawns:
        state.drained_dawns = min(state.drained_dawns + 1, DRAINED_DAWNS + 1)
        state.drained_et_um += min(et_um, MOST_ET_UM)


def _rises(state: State) -> tuple[int, int]:
    """Change of each probe since the dawn before, or NO_VALUE."""
    dawn = state.dawn_e4
    shallow = NO_VALUE if NO_VALUE in (dawn[0], dawn[1]) else dawn[0] - dawn[1]
    deep = NO_VALUE if NO_VALUE in (dawn[DAWNS], dawn[DAWNS + 1]) else dawn[DAWNS] - dawn[DAWNS + 1]
    return shallow, deep


def _dry_rate(state: State, shallow_rise: int, deep_rise: int) -> None:
    if NO_VALUE in (shallow_rise, deep_rise):
        return
    change = (shallow_rise + deep_rise) >> 1
    if change < DRYING_E4:
        state.dry_rate_q4 = move_toward(state.dry_rate_q4, max(-change, 0) * 16, 256)
        state.et0_dry_um = move_toward(state.et0_dry_um, state.et0_um, 256)
        state.wetting_q4 = min(state.wetting_q4 + 16, 4000)
    else:
        state.wetting_q4 = 0


def _probe_depletion_um(state: State) -> int:
    """Dr as the probes see it."""
    deficit = clamp(_deficit_e4(state, state.probes_used), 0, state.awc_e4)
    return quotient(deficit * state.root_depth_mm, 10)


def _start(state: State) -> None:
    """Planting: the balance begins at what the probes say."""
    state.started = 1
    if state.probes_used:
        deficit = _deficit_e4(state, state.probes_used)
        state.initial_deficit_e4 = clamp(deficit, 0, state.awc_e4 >> 1)
        state.depletion_um = _probe_depletion_um(state)
    else:
        state.initial_deficit_e4 = state.awc_e4 >> 2
        state.depletion_um = taw_um(state) >> 2


def _advance(
    state: State, days: int, depth_before: int, factor_q12: int, shallow_rise: int, deep_rise: int
) -> tuple[int, int]:
    """One day of the balance and the observer's correction.

    Returns:
        The physics' ETc, µm, and what model and observer together took from the root zone beyond it, µm: that,
        relative to ETc, is what a perfect head would have said.
    """
    taw = taw_um(state)
    et_um = agronomy.crop_et_um(state.et0_um, state.kc_e3, state.depletion_um, taw)
    used_um = (et_um * (factor_q12 >> 2) >> 10) * clamp(days, 1, MISSED_DAYS)
    depletion = state.depletion_um + used_um - state.dose_today_um
    depletion += quotient(state.initial_deficit_e4 * (state.root_depth_mm - depth_before), 10)
    rained = False
    if max(shallow_rise, deep_rise) > RISE_E4:
        water = quotient(max(shallow_rise, 0) * SHALLOW_STORE_MM + max(deep_rise, 0) * DEEP_STORE_MM, 10)
        water += (used_um * 614 >> 10) - state.dose_today_um
        if water > 0:
            depletion -= water
            rained = water > 1000
    probes = state.probes_used
    if not probes:
        state.innovation_q10 = 0
        state.depletion_um = clamp(depletion, 0, taw)
        return et_um, 0
    observed = _probe_depletion_um(state)
    near_limit = probes & 2 and state.dawn_e4[DAWNS] > state.upper_limit_e4[1] - DEEP_RESET_MARGIN_E4
    if deep_rise > DEEP_RESET_RISE_E4 and near_limit:
        depletion = min(depletion, observed)
    depletion = clamp(depletion, 0, taw)
    innovation = observed - depletion
    state.innovation_q10 = clamp(quotient((innovation >> 4) * 1024, max(taw >> 4, 1)), -1024, 1024)
    if not rained:
        state.innovation_average_q10 = move_toward(state.innovation_average_q10, state.innovation_q10, 256)
    gain = OBSERVER_GAIN_Q10 if state.anchored else UNANCHORED_GAIN_Q10
    correction_um = innovation * gain >> 10
    state.depletion_um = clamp(depletion + correction_um, 0, taw)
    return et_um, used_um - et_um + correction_um


def _clear(state: State) -> None:
    state.light_sum = state.uptake_sum = state.light_count = 0
    state.humidity_sum = state.humidity_count = 0
    state.soil_sum = state.soil_count = 0
    state.air_seen = 0
    state.dose_today_um = 0


def c_definitions() -> str:
    """What C must know of this module."""
    return c_constants(
        {
            "DEEP_WEIGHT": DEEP_WEIGHT,
            "OBSERVER_GAIN_Q10": OBSERVER_GAIN_Q10,
            "UNANCHORED_GAIN_Q10": UNANCHORED_GAIN_Q10,
            "RISE_E4": RISE_E4,
            "CALM_RISE_E4": CALM_RISE_E4,
            "DRYING_E4": DRYING_E4,
            "SHALLOW_STORE_MM": SHALLOW_STORE_MM,
            "DEEP_STORE_MM": DEEP_STORE_MM,
            "DEEP_RESET_RISE_E4": DEEP_RESET_RISE_E4,
            "DEEP_RESET_MARGIN_E4": DEEP_RESET_MARGIN_E4,
            "ANCHOR_DAYS": ANCHOR_DAYS,
            "ANCHOR_DAWNS": ANCHOR_DAWNS,
            "SOAK_MARGIN_E4": SOAK_MARGIN_E4,
            "MOVED_E4": MOVED_E4,
            "MOST_SOAKS": MOST_SOAKS,
            "DRAINED_DAWNS": DRAINED_DAWNS,
            "TOP_HEAVY_Q2": TOP_HEAVY_Q2,
            "MOST_ET_UM": MOST_ET_UM,
            "LIGHT_WAKES": LIGHT_WAKES,
            "DARK_Q4_W_M2": DARK_Q4_W_M2,
            "MISSED_DAYS": MISSED_DAYS,
            "MIN_ET_UM": MIN_ET_UM,
        }
    )
