"""The field neither loses nor invents water, shows nothing before its cause, and is the same for the same seed."""

from __future__ import annotations

from datetime import date
from itertools import pairwise
from math import isnan
from pathlib import Path

import pytest

from nodes.field.battery import battery_mv
from nodes.field.character import Character
from nodes.field.climates import CLIMATES
from nodes.field.fao56 import extraterrestrial_radiation_mj_m2
from nodes.field.season import CropSeason, Plot, reference_harvest
from nodes.field.sky import Sky
from nodes.field.soils import TEXTURES, Texture
from nodes.field.weather import Weather
from nodes.field.world import FieldWorld
from nodes.scenario import DAY_S, Scenario, load_scenario
from shared_models.codes import Crop

SMALL = load_scenario(Path(__file__).parents[2] / "noria" / "scenarios" / "small.toml").with_seed(7)
FARM = SMALL.farms[0]
PLANTING_S = SMALL.planting_time_s(FARM)


def field(scenario: Scenario = SMALL, **changes: object) -> FieldWorld:
    farm = scenario.farms[0]
    return FieldWorld(scenario, farm, farm.nodes[0].model_copy(update=changes))


def irrigated_mm(world: FieldWorld) -> float:
    return world._season._water_mm


# Weather


def test_extraterrestrial_radiation_agrees_with_fao_56_example_8() -> None:
    assert extraterrestrial_radiation_mj_m2(-20.0, 246) == pytest.approx(32.2, abs=0.1)


@pytest.mark.parametrize("name", sorted(name for name, climate in CLIMATES.items() if not climate.radiation_measured))
def test_derived_weather_is_physical(name: str) -> None:
    weather = Weather(name, date(2001, 3, 1), date(2001, 10, 30))
    for day in weather.days:
        sky_mj = extraterrestrial_radiation_mj_m2(weather.latitude_deg, day.day.timetuple().tm_yday)
        assert 0.1 * sky_mj < day.radiation_mj_m2 < 0.8 * sky_mj
        assert day.minimum_c - 8 <= day.dew_point_c <= day.minimum_c < day.maximum_c


def test_a_record_is_not_read_beyond_its_end() -> None:
    with pytest.raises(ValueError, match="outside the record"):
        Weather("tunis", date(2002, 5, 1), date(2002, 6, 1))


def test_the_days_light_adds_up_to_the_days_sum_and_temperature_touches_both_ends() -> None:
    weather = Weather("champion", date(2001, 5, 1), date(2001, 5, 12))
    sky = Sky(weather)
    for index in range(2, 10):
        midnight = Sky(weather)._origin_s + index * DAY_S
        times = [midnight + 300 * step for step in range(288)]
        assert sum(sky.radiation_w_m2(time) for time in times) * 300 / 1e6 == pytest.approx(
            weather.days[index].radiation_mj_m2, rel=2e-3
        )
        temperatures = [sky.air_temperature_c(time) for time in times]
        assert max(temperatures) == pytest.approx(weather.days[index].maximum_c, abs=0.05)
        assert min(temperatures[:180]) == pytest.approx(weather.days[index].minimum_c, abs=0.05)
        assert all(5 <= sky.relative_humidity(time) <= 100 for time in times)
        assert max(abs(b - a) for a, b in pairwise(temperatures)) < 0.6


def test_soil_is_later_and_calmer_than_air() -> None:
    sky = Sky(Weather("champion", date(2001, 4, 1), date(2001, 5, 12)))
    times = [sky._origin_s + 35 * DAY_S + 900 * step for step in range(96)]
    air, soil = [sky.air_temperature_c(t) for t in times], [sky.soil_temperature_c(t) for t in times]
    assert max(soil) - min(soil) < (max(air) - min(air)) / 2
    assert soil.index(max(soil)) > air.index(max(air)) + 12


# Commissioning


def test_a_soak_drains_to_half_a_percent_above_the_drained_limit() -> None:
    biases = []
    for number in range(60):
        for texture in (Texture.SANDY_LOAM, Texture.CLAY_LOAM):
            character = Character.draw(3, f"{number:016x}", texture)
            for probe in (0, 1):
                days = [5 + step / 32 for step in range(96)]
                mean = sum(character.draining_vwc(probe, day) for day in days) / len(days)
                biases.append(100 * (mean - character.hydraulics.field_capacity))
    mean = sum(biases) / len(biases)
    spread = (sum((bias - mean) ** 2 for bias in biases) / len(biases)) ** 0.5
    assert mean == pytest.approx(0.5, abs=0.25)
    assert 0.6 < spread < 1.4


def test_soil_water_is_continuous_where_aquacrop_takes_over() -> None:
    world = field()
    step_s = PLANTING_S + 4 * 3600
    before = [world.vwc(layer, step_s - 1) for layer in (0, 1)]
    after = [world.vwc(layer, step_s + 1) for layer in (0, 1)]
    assert after == pytest.approx(before, abs=1e-3)


# Water


def test_the_crop_gets_exactly_what_the_valve_gives() -> None:
    world = field()
    flow = world.character.flow_factor
    day_s = PLANTING_S + 5 * DAY_S
    world.valve(True, day_s + 600)
    world.valve(False, day_s + 600 + 7200)
    world.truth(day_s + 5 * 3600)
    assert world.water_mm(day_s + 5 * 3600) == pytest.approx(2 * 8.0 * flow)
    assert irrigated_mm(world) == pytest.approx(2 * 8.0 * flow)


def test_water_after_ten_counts_for_the_next_day() -> None:
    world = field()
    ten_s = PLANTING_S + 5 * DAY_S + 4 * 3600
    world.valve(True, ten_s - 1800)
    world.valve(False, ten_s + 5400)
    flow = world.character.flow_factor
    assert irrigated_mm(world) == pytest.approx(0.5 * 8.0 * flow)
    world.truth(ten_s + DAY_S)
    assert irrigated_mm(world) == pytest.approx(2.0 * 8.0 * flow)
    assert world.water_mm(ten_s + DAY_S) == pytest.approx(irrigated_mm(world))


def test_a_valve_left_open_over_days_floods_and_is_metered() -> None:
    world = field()
    ten_s = PLANTING_S + 3 * DAY_S + 4 * 3600
    world.valve(True, ten_s)
    assert world.water_mm(ten_s + 2 * DAY_S) == pytest.approx(48 * 8.0 * world.character.flow_factor)
    assert irrigated_mm(world) == pytest.approx(48 * 8.0 * world.character.flow_factor)


def test_repeating_a_valve_command_changes_nothing() -> None:
    once, twice = field(), field()
    start = PLANTING_S + DAY_S
    for world, times in ((once, 1), (twice, 3)):
        for repeat in range(times):
            world.valve(True, start + 10 * repeat)
        for repeat in range(times):
            world.valve(False, start + 3600 + 10 * repeat)
    assert twice.water_mm(start + 7200) == pytest.approx(once.water_mm(start + 7200))


def test_wetting_arrives_after_ten_and_only_where_water_was_given() -> None:
    watered, left_dry = field(), field()
    dawn_s = PLANTING_S + 25 * DAY_S
    watered.valve(True, dawn_s)
    watered.valve(False, dawn_s + 13_500)
    ten_s = dawn_s + 4 * 3600
    assert watered.vwc(0, ten_s - 1) == pytest.approx(left_dry.vwc(0, ten_s - 1))
    # AquaCrop fills the compartment above first and lets it drain on the next day.
    assert watered.vwc(0, ten_s + 2 * DAY_S - 1) > left_dry.vwc(0, ten_s + 2 * DAY_S - 1) + 0.05
    assert watered.vwc(1, ten_s + 2 * DAY_S - 1) == pytest.approx(left_dry.vwc(1, ten_s + 2 * DAY_S - 1), abs=0.02)


def test_a_dry_spell_dries_by_day_and_rests_by_night() -> None:
    world = field()
    rested = dried = 0
    for day in range(6, 20):
        dawn_s = PLANTING_S + day * DAY_S
        before, evening, next_dawn = (world.vwc(0, dawn_s + hours * 3600) for hours in (4.001, 17, 23.9))
        if evening < before:
            dried += 1
            rested += abs(next_dawn - evening) < 1e-9
    assert dried > 5
    assert rested == dried


# Sensors


def test_a_reading_depends_on_time_and_seed_and_not_on_how_often_it_is_taken() -> None:
    eager, lazy = field(), field()
    times = [SMALL.start_time_s + 900 * step for step in range(2000)]
    for time in times[::3]:
        eager.probe_mv(0, time)
        eager.air(time)
        eager.light_w_m2(time)
    last = times[-1]
    assert eager.probe_mv(1, last) == lazy.probe_mv(1, last)
    assert eager.air(last) == lazy.air(last)
    other = field(SMALL.with_seed(8))
    assert other.probe_mv(0, last) != lazy.probe_mv(0, last)
    assert other.character != lazy.character


def test_probes_follow_their_transfer_with_bounded_error() -> None:
    world = field()
    character = world.character
    for step in range(600):
        time = SMALL.start_time_s + 3600 * step
        for channel in (0, 1):
            reading = (world.probe_mv(channel, time) - 300) * 2.5 / 1e4
            ideal = character.probe_gain[channel] * world.vwc(channel, time) + character.probe_offset[channel]
            assert abs(reading - ideal) < 0.04


def test_broken_sensors_are_silent_and_stuck_ones_repeat_themselves() -> None:
    faults = [
        {"part": "probe_shallow", "kind": "broken", "from_day": 2, "to_day": 4},
        {"part": "probe_deep", "kind": "stuck", "from_day": 2},
        {"part": "air", "kind": "broken", "from_day": 2},
        {"part": "soil_temperature", "kind": "broken", "from_day": 2, "to_day": 4},
        {"part": "soil_temperature", "kind": "stuck", "from_day": 4},
    ]
    plan = SMALL.model_dump()
    plan["farms"][0]["nodes"][0]["faults"] = faults
    world = field(Scenario.model_validate(plan))
    day_s = [SMALL.start_time_s + day * DAY_S + 60 for day in range(6)]
    assert world.probe_mv(0, day_s[1]) > 300
    deep = world.probe_mv(1, day_s[1])
    assert world.probe_mv(0, day_s[3]) == 0
    assert {world.probe_mv(1, day_s[3] + 900 * step) for step in range(20)} == {deep}
    assert all(isnan(value) for value in world.air(day_s[3]))
    assert isnan(world.soil_temp_c(day_s[3]))
    assert world.probe_mv(0, day_s[5]) > 300
    assert len({world.soil_temp_c(day_s[5] + 900 * step) for step in range(20)}) == 1


@pytest.mark.parametrize(("kind", "hours"), [("broken", 0.0), ("stuck", 48.0)])
def test_a_broken_valve_gives_nothing_and_a_stuck_one_does_not_close(kind: str, hours: float) -> None:
    plan = SMALL.model_dump()
    plan["farms"][0]["nodes"][0]["faults"] = [{"part": "valve", "kind": kind, "from_day": 0}]
    world = field(Scenario.model_validate(plan))
    world.valve(True, PLANTING_S)
    world.valve(False, PLANTING_S + 3600)
    assert world.water_mm(PLANTING_S + 2 * DAY_S) == pytest.approx(hours * 8.0 * world.character.flow_factor)


def test_a_battery_follows_the_charge_drawn_from_it() -> None:
    world, drawn = field(), [0.0]
    world.attach_battery(lambda: drawn[0])
    voltages = []
    for drawn[0] in (0.0, 50_000.0, 150_000.0, 220_000.0, 300_000.0):
        voltages.append(world.battery_mv(SMALL.start_time_s))
    assert voltages == sorted(voltages, reverse=True)
    assert voltages[0] == 3200
    assert battery_mv(1e9) == 0


# Seasons


def test_more_water_is_better_than_none_and_references_use_the_same_field() -> None:
    world = field()
    result = world.finish(SMALL.end_time_s)
    assert result.water_mm == 0.0
    assert not result.ripe
    # Nobody watered: the field's own season is the rainfed one, to the last digit.
    assert result.yield_t_ha == result.rainfed_yield_t_ha
    assert result.calendar_yield_t_ha > result.rainfed_yield_t_ha
    assert result.calendar_water_mm == 11 * 25.0


def test_a_season_in_steps_is_a_season_of_aquacrop() -> None:
    weather = Weather("champion", date(2001, 4, 1), date(2001, 12, 1))
    soil = TEXTURES[Texture.LOAM]
    plot = Plot(Crop.TOMATO, soil, date(2001, 5, 3), (soil.field_capacity, soil.field_capacity))
    calendar = reference_harvest(weather, plot, 200, watered=True)
    assert calendar.season_days == 110
    assert calendar.water_mm == 21 * 25.0
    rainfed = reference_harvest(weather, plot, 200, watered=False)
    assert 0 < rainfed.yield_t_ha < calendar.yield_t_ha
    season = CropSeason(weather, plot)
    taw = []
    while not season.finished:
        season.step(0.0)
        taw.append(season.truth().taw_mm)
    assert season.finish() == rainfed
    assert max(taw) <= (soil.field_capacity - soil.wilting_point) * 1000 + 1e-6
