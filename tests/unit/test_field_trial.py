"""Trials judge alike however they are run: the fast path is the slow one, and nobody gets water that did not flow."""

from __future__ import annotations

import builtins
from dataclasses import replace
from datetime import timedelta

import aquacrop.solution.root_zone_water as root_zone_water
import numpy as np
import pytest

from nodes.field.climates import CLIMATES
from nodes.field.fields import COMMISSIONING_DAYS, PLANTING_SPREAD_DAYS, FieldYear, sample_fields
from nodes.field.season import CropSeason, Plot, Truth, reference_harvest
from nodes.field.sensing import Sensing
from nodes.field.sky import Sky
from nodes.field.trial import Morning, farmers_settings, run_daily, run_node
from nodes.field.weather import Weather
from nodes.field.world import FieldWorld
from nodes.hostcore import READINGS, HostNode
from nodes.scenario import DAY_S, EARLIEST_YEAR, WAKE_PERIOD_S, Scenario
from shared_models.codes import Crop
from shared_models.factory import factory_image
from shared_models.fixed import NO_VALUE
from shared_models.reference import Outcome, Reading
from shared_models.state import State


def field_in_recent_year(crop: Crop) -> FieldYear:
    """A scenario knows no year before 2000."""
    fields = sample_fields(1, ["champion"], 3, 6)
    return next(field for field in fields if field.crop is crop and field.year >= EARLIEST_YEAR)


SOYBEAN, POTATO = field_in_recent_year(Crop.SOYBEAN), field_in_recent_year(Crop.POTATO)


def slow_world(field: FieldYear) -> FieldWorld:
    """The same field-year as a scenario has it, with the drift of its year."""
    scenario = Scenario.model_validate(
        {
            "name": "one-field",
            "seed": field.seed,
            "start": field.planting - timedelta(days=COMMISSIONING_DAYS),
            "days": 200,
            "farms": [
                {
                    "site": "farm",
                    "climate": field.climate,
                    "application_id": "6f0d3c0e-52a1-4c7e-9d0b-0a51c7a20001",
                    "nodes": [
                        {
                            "name": "node",
                            "dev_eui": field.dev_eui,
                            "board": "stm32l072",
                            "crop": field.crop.name.lower(),
                            "soil": field.texture,
                        }
                    ],
                }
            ],
        }
    )
    world = FieldWorld(scenario, scenario.farms[0], scenario.farms[0].nodes[0])
    first, last = field.planting - timedelta(days=60), field.planting + timedelta(days=220)
    sky = Sky(Weather(field.climate, first, last))
    world._sensing = Sensing(field.seed, field.dev_eui, world.character, sky, field.start_time_s, 230, field.year)
    return world


def reading(world: FieldWorld, time_s: int, node_time_s: int) -> Reading:
    """What the core's sensors.c makes of these outputs on a fresh cell."""

    def vwc_e4(output_mv: int) -> int:
        return int((output_mv - 300) * 5 / 2) if 100 <= output_mv <= 2960 else NO_VALUE

    temperature_c, humidity = world.air(time_s)
    return Reading(
        time_s=node_time_s,
        vwc_shallow_e4=vwc_e4(world.probe_mv(0, time_s)),
        vwc_deep_e4=vwc_e4(world.probe_mv(1, time_s)),
        soil_temp_c100=10 * (round(500 + 10 * world.soil_temp_c(time_s)) - 500),
        air_temp_c100=round(100 * temperature_c),
        rh_e2=round(100 * humidity),
        light_w_m2=round(2 * world.light_w_m2(time_s)) // 2,
    )


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        (SOYBEAN, {"threshold_permille": 350, "dose_e1_mm": 120}),
        # Decided at nine, the dose flows on after AquaCrop's step.
        (POTATO, {"threshold_permille": 300, "window_start_h": 9, "window_end_h": 13}),
    ],
    ids=["soybean", "potato"],
)
def test_a_days_wakes_at_once_are_a_season_of_single_wakes(field: FieldYear, changes: dict[str, int]) -> None:
    image = factory_image()
    fast = run_node(field, image, changes=changes)
    world, node = slow_world(field), HostNode(replace(farmers_settings(field), **changes), sanitize=True)  # type: ignore[arg-type]
    calendar_s = field.node_planting_time_s - field.planting_time_s
    ten_s = field.planting_time_s + 4 * 3600
    time_s, closes_s, doses, crossing = field.start_time_s + field.wake_phase_s, 0, 0, 0
    while not world._season.finished:
        if closes_s and closes_s <= time_s:
            world.valve(False, closes_s)
            closes_s = 0
        outcome = node.wake(reading(world, time_s, time_s + calendar_s), image)
        if world._season.finished:
            break
        state = node.state_bytes
        if outcome.open_s:
            world.valve(True, time_s)
            closes_s = time_s + outcome.open_s
            doses += 1
            crossing += (time_s - ten_s) // DAY_S != (closes_s - ten_s) // DAY_S
        time_s += WAKE_PERIOD_S
    last_step_s = ten_s + (world.days_after_planting - 1) * DAY_S
    assert fast.result.days == world.days_after_planting == field.season_days
    assert fast.result.doses == doses > 5
    assert (crossing > 5) == ("window_start_h" in changes)
    assert fast.result.water_mm == world.water_mm(last_step_s)
    assert fast.result.yield_t_ha == world._season.finish().yield_t_ha
    assert fast.result.drained_mm == world._season.finish().drained_mm
    assert fast.state == state
    node.state_bytes = state
    assert (fast.snapshot.gram == node.snapshot().gram).all()


def test_who_looks_at_every_dawn_changes_nothing() -> None:
    days, image = [], factory_image()
    watched = run_node(SOYBEAN, image, on_dawn=lambda state, outcome: days.append((state.day, outcome.dawn)))
    left_alone = run_node(SOYBEAN, image)
    assert (watched.result, watched.state) == (left_alone.result, left_alone.state)
    first_dawn = (SOYBEAN.node_planting_time_s - 6 * 3600) // DAY_S - COMMISSIONING_DAYS + 1
    assert days == [(first_dawn + each, 1) for each in range(COMMISSIONING_DAYS + SOYBEAN.season_days - 1)]


def test_a_node_goes_on_in_its_fields_next_year_and_anchors_again() -> None:
    first = run_node(POTATO, factory_image())
    anchored = []

    def look(state: State, outcome: Outcome) -> None:
        assert state.season == POTATO.season + 1
        if outcome.anchored_now:
            anchored.append(state.day)

    second = run_node(POTATO.following, factory_image(), state=first.state, on_dawn=look)
    planting_day = (POTATO.following.node_planting_time_s - 6 * 3600) // DAY_S
    assert len(anchored) == 1
    assert abs(anchored[0] - planting_day) <= 1
    assert second.result.doses > 5
    with pytest.raises(ValueError, match="run the last year anew"):
        run_node(POTATO.following, None, state=first.state[:-1])


def test_only_readings_as_c_has_them_are_taken() -> None:
    node, readings = HostNode(farmers_settings(SOYBEAN)), np.zeros(8, READINGS)
    readings["time_s"] = SOYBEAN.node_planting_time_s + WAKE_PERIOD_S * np.arange(8)
    for wrong in (readings[::2], readings["time_s"]):
        with pytest.raises(TypeError, match="contiguous"):
            node.wake_many(wrong)
    assert len(node.wake_many(readings)) == 8


# Daily controllers


def test_a_daily_controllers_water_is_what_its_emitters_give() -> None:
    asked = iter([0.0, 12.0, -3.0, 7.0])
    result = run_daily(SOYBEAN, lambda _: next(asked, 0.0))
    assert result.water_mm == 19.0 * SOYBEAN.character.flow_factor
    assert result.doses == 2
    assert result.days == SOYBEAN.season_days


def test_without_water_a_trial_is_the_rainfed_field() -> None:
    character = SOYBEAN.character
    soaked_days = COMMISSIONING_DAYS + 4 / 24
    plot = Plot(SOYBEAN.crop, character.hydraulics, SOYBEAN.planting, character.soaked_vwc(soaked_days))
    weather = Weather("champion", SOYBEAN.planting, SOYBEAN.planting + timedelta(days=220))
    rainfed = reference_harvest(weather, plot, 0, watered=False)
    result = run_daily(SOYBEAN, lambda _: 0.0)
    assert (result.yield_t_ha, result.drained_mm) == (rainfed.yield_t_ha, rainfed.drained_mm)


def test_a_morning_tells_of_the_day_just_passed_and_shows_the_probes_as_they_are() -> None:
    mornings: list[Morning] = []

    def look(morning: Morning) -> float:
        mornings.append(morning)
        return 15.0 if morning.day % 6 == 5 else 0.0

    run_daily(POTATO, look)
    assert [each.day for each in mornings] == list(range(POTATO.season_days))
    planting = POTATO.planting
    days = {day.day: day for day in Weather("champion", planting - timedelta(days=1), planting + timedelta(200)).days}
    character = POTATO.character
    for morning in mornings:
        today = planting + timedelta(days=morning.day)
        yesterday = days[today - timedelta(days=1)]
        assert (morning.rain_mm, morning.et0_mm) == (yesterday.rain_mm, yesterday.et0_mm)
        ahead = [days[today + timedelta(days=each)] for each in range(3)]
        assert morning.ahead == tuple((day.rain_mm, day.et0_mm) for day in ahead)
        if morning.day:
            # A dawn after the step: the soil has come to rest where AquaCrop left it.
            for shown, true in zip(morning.vwc, map(character.probe_units, morning.truth.vwc), strict=True):
                assert min(abs(shown - each) for each in true) < 0.03
    for soaked, full in zip(mornings[0].soaked_vwc, mornings[0].probe_fc, strict=True):
        assert abs(soaked - full) < 0.05
    assert mornings[0].truth.depletion_mm < 10


# Fields


def test_a_fields_draw_depends_on_nothing_else() -> None:
    everything = sample_fields(2, per_climate=4, years=3)
    assert len(everything) == len(CLIMATES) * 4 * 3
    few = sample_fields(2, ["tunis", "champion"], 2, 2)
    assert set(few) <= set(everything)
    assert [each.name for each in few[:4]] == ["tunis-1", "tunis-1", "tunis-2", "tunis-2"]
    for first, second, third in zip(everything[::3], everything[1::3], everything[2::3], strict=True):
        assert (first.following, second.following) == (second, third)
        assert len({each.year for each in (first, second, third)}) == 3
        assert first.character == second.character
        assert first.node_planting_time_s < second.node_planting_time_s < third.node_planting_time_s
    others = sample_fields(3, per_climate=4, years=1)
    assert all(mine.character != other.character for mine, other in zip(everything[::3], others, strict=True))


def test_plantings_are_the_regions_within_days_and_crops_take_turns() -> None:
    for field in sample_fields(4, per_climate=5, years=1):
        plantings = CLIMATES[field.climate].plantings
        number = int(field.name.rpartition("-")[2])
        usual = plantings[(number - 1) % len(plantings)]
        assert field.crop is usual.crop
        assert abs(field.planting - usual.on(field.year)) <= timedelta(days=PLANTING_SPREAD_DAYS)


def test_a_record_is_used_up_before_a_year_comes_again() -> None:
    fields = sample_fields(1, ["tunis"], 1, 23)
    assert len({field.year for field in fields}) == 23
    with pytest.raises(ValueError, match="ask for fewer years"):
        _ = fields[-1].following


@pytest.mark.parametrize("climate", ["cordoba", "hyderabad"])
def test_seasons_that_span_the_new_year_are_lived_to_their_end(climate: str) -> None:
    for field in sample_fields(1, [climate], 3, 1):
        trial = run_node(field, None)
        assert (field.planting + timedelta(days=trial.result.days)).year == field.year + 1
        assert trial.result.days == field.season_days


# AquaCrop


def test_faster_rounding_gives_aquacrops_own_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    character = SOYBEAN.character
    plot = Plot(SOYBEAN.crop, character.hydraulics, SOYBEAN.planting, character.soaked_vwc(8.0))
    weather = Weather("champion", SOYBEAN.planting, SOYBEAN.planting + timedelta(days=220))

    def season(*, plain: bool) -> tuple[list[Truth], float]:
        lived, truths = CropSeason(weather, plot), []
        if plain:
            monkeypatch.setattr(root_zone_water, "round", builtins.round)
        while not lived.finished:
            lived.step(20.0 if lived.days % 7 == 6 else 0.0)
            truths.append(lived.truth())
        return truths, lived.finish().yield_t_ha

    assert season(plain=True) == season(plain=False)
