"""Controllers on trial: one field-year from the soak to the harvest, judged by AquaCrop.

A controller is a function asked once a day (:func:`run_daily`) or the node's own core in C, woken every quarter of an
hour (:func:`run_node`). Both stand in the world of :class:`nodes.field.world.FieldWorld`: what is given until 10:00
reaches AquaCrop's step of that day, through the same emitters, and the probes show the same errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from nodes.field.fields import COMMISSIONING_DAYS, FieldYear
from nodes.field.season import Truth
from nodes.field.sensing import SLOTS_PER_DAY
from nodes.field.soils import Hydraulics
from nodes.field.year import Valve, Year
from nodes.hostcore import HostNode, Records, outcome_of
from nodes.scenario import DAWN, DAY_S, WAKE_PERIOD_S
from shared_models.codes import Board
from shared_models.moments import Snapshot
from shared_models.network import ModelImage
from shared_models.reference import Outcome
from shared_models.settings import Settings
from shared_models.state import STATE_STRUCT, State

APPLICATION_RATE_E2_MM_H = 800
"""Nominal, 0.01 mm/h."""
AHEAD_DAYS = 3
PROBES = ("vwc_shallow_e4", "vwc_deep_e4")
NO_CHANGES: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Morning:
    """What a daily controller may look at at 06:00 local; which of it a controller uses is its own honesty."""

    day: int
    """Days after planting; 0 is the day of planting."""
    season_days: int
    """Planting to harvest as the farmer reckons."""
    field: FieldYear
    vwc: tuple[float, float]
    """Both probes as sensed at this dawn (uncalibrated, drifting, noisy), m³/m³ by their nominal curve."""
    soaked_vwc: tuple[float, float]
    """Mean sensed reading on days 6 to 8 after the commissioning soak, m³/m³: the anchor that a node would learn."""
    probe_fc: tuple[float, float]
    """Field capacity in each probe's own units, m³/m³: what a perfect calibration on site would tell."""
    probe_wp: tuple[float, float]
    """Wilting point likewise."""
    et0_mm: float
    """The station's measured ET0 of the day just passed."""
    rain_mm: float
    """The station's measured rain of the day just passed."""
    truth: Truth
    """Depletion, TAW and canopy as AquaCrop has them."""
    hydraulics: Hydraulics
    """The true soil."""
    ahead: tuple[tuple[float, float], ...]
    """Rain and ET0 of today and the next two days, mm, as they will be measured: for an oracle."""


Controller: TypeAlias = Callable[[Morning], float]
"""Asked every morning; answers with the water to give today, mm, by the nominal rate."""


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What came of a field-year."""

    water_mm: float
    """What the valve truly gave."""
    doses: int
    yield_t_ha: float
    """Dry matter."""
    days: int
    """AquaCrop days lived, planting to maturity or early death."""
    drained_mm: float
    """Deep percolation below the profile, mm."""


@dataclass(frozen=True, slots=True)
class NodeTrial:
    """What came of a field-year under the node's core."""

    result: TrialResult
    state: bytes
    """The core's record at the end, as the store would save it."""
    snapshot: Snapshot
    """Its statistics."""


def run_daily(field: FieldYear, controller: Controller) -> TrialResult:
    """A season under a controller that is asked at 06:00 every day.

    Water goes through the field's true emitters like the node's: who asks for 12 mm gets 12 mm times the flow factor.

    Args:
        field: where and when.
        controller: answers with mm; what is not positive is no water.
    """
    year = Year(field)
    character, season = year.character, year.season
    soil, flow = character.hydraulics, character.flow_factor
    soaked_vwc = year.soaked_vwc()
    water_mm, doses = 0.0, 0
    while not season.finished:
        day = season.days
        yesterday, *ahead = year.weather.days[year.planting_index + day - 1 : year.planting_index + day + AHEAD_DAYS]
        asked_mm = controller(
            Morning(
                day=day,
                season_days=field.season_days,
                field=field,
                vwc=year.sensed_vwc(field.planting_time_s + field.wake_phase_s + day * DAY_S),
                soaked_vwc=soaked_vwc,
                probe_fc=character.probe_units(soil.field_capacity),
                probe_wp=character.probe_units(soil.wilting_point),
                et0_mm=yesterday.et0_mm,
                rain_mm=yesterday.rain_mm,
                truth=season.truth(),
                hydraulics=soil,
                ahead=tuple((each.rain_mm, each.et0_mm) for each in ahead),
            )
        )
        given_mm = max(asked_mm, 0.0) * flow
        water_mm += given_mm
        doses += given_mm > 0
        year.ground.step(given_mm)
    return _result(year, water_mm, doses)


def run_node(
    field: FieldYear,
    image: ModelImage | None,
    *,
    changes: Mapping[str, int] = NO_CHANGES,
    state: bytes | None = None,
    on_dawn: Callable[[State, Outcome], None] | None = None,
) -> NodeTrial:
    """A season under the node's core in C, from the commissioning soak to the crop's end.

    Args:
        field: where and when.
        image: the model it carries; None leaves it to the physics.
        changes: fields of :class:`shared_models.settings.Settings` that differ from what a farmer would set up.
        state: the record with which the node's last year ended; None is a new node.
        on_dawn: called with the core's record and the wake's outcome at every dawn.

    Raises:
        ValueError: ``state`` is no record of this core.
    """
    year = Year(field)
    settings = replace(farmers_settings(field), **changes)  # type: ignore[arg-type]
    node = HostNode(settings)
    if state is not None:
        if len(state) != STATE_STRUCT.size:
            raise ValueError(f"a core's record has {STATE_STRUCT.size} bytes, not {len(state)}; run the last year anew")
        node.state_bytes = state
    times_s, readings, errors = year.sky_readings()
    valve = Valve(settings.application_rate_e2_mm_h / 100, year.character.flow_factor)
    begin = 0
    while not year.season.finished:
        due_s = year.ground.due_s
        end = int(np.searchsorted(times_s, due_s))
        today = slice(begin, end)
        for channel, name in enumerate(PROBES):
            readings[name][today] = year.probe_readings_e4(channel, times_s[today], errors[channel, today])
        outcomes = _wake(node, readings[today], image, on_dawn)
        for at in np.flatnonzero(outcomes["open_s"]):
            valve.open(float(times_s[begin + at]), float(outcomes["open_s"][at]))
        year.ground.step(valve.given_mm(due_s))
        begin = end
    return NodeTrial(_result(year, valve.water_mm, valve.doses), node.state_bytes, node.snapshot())


def farmers_settings(field: FieldYear) -> Settings:
    """The settings page as a farmer would set it up, texture unknown."""
    return Settings(
        dev_eui=field.dev_eui,
        board=Board.STM32L072,
        crop=field.crop,
        planting_time_s=field.node_planting_time_s,
        season_days=field.season_days,
        season=field.season,
        wake_phase_s=field.wake_phase_s,
        application_rate_e2_mm_h=APPLICATION_RATE_E2_MM_H,
        commissioning_days=COMMISSIONING_DAYS,
    )


def _wake(
    node: HostNode,
    readings: Records,
    image: ModelImage | None,
    on_dawn: Callable[[State, Outcome], None] | None,
) -> Records:
    """All these wakes; who wants to look at the core after each dawn gets it then."""
    if on_dawn is None:
        return node.wake_many(readings, image)
    slots = readings["time_s"] // WAKE_PERIOD_S % SLOTS_PER_DAY
    parts = np.split(readings, np.flatnonzero(slots == DAWN.hour * SLOTS_PER_DAY // 24) + 1)
    outcomes = []
    for part in parts:
        outcomes.append(node.wake_many(part, image))
        if len(part) and outcomes[-1][-1]["dawn"]:
            on_dawn(node.state, outcome_of(outcomes[-1][-1].tobytes()))
    return np.concatenate(outcomes)


def _result(year: Year, water_mm: float, doses: int) -> TrialResult:
    """The books of a finished season."""
    harvest = year.season.finish()
    return TrialResult(water_mm, doses, harvest.yield_t_ha, harvest.season_days, harvest.drained_mm)
