"""Measured stations: whole records, values that can be true, light that comes from the file and not from ET0."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from statistics import fmean
from zipfile import ZipFile

import pytest

from nodes.field.climates import CLIMATES, Climate
from nodes.field.crops import FIELD_CROPS
from nodes.field.fao56 import (
    dew_point_c,
    extraterrestrial_radiation_mj_m2,
    penman_monteith_mm,
    saturation_vapour_pressure_kpa,
)
from nodes.field.season import Plot, reference_harvest
from nodes.field.soils import TEXTURES, Texture
from nodes.field.spreadsheet import first_sheet
from nodes.field.stations import STATIONS, W_M2_TO_MJ_M2, StationError, Wheel, ensure, measurements
from nodes.field.weather import Weather, derived_radiation_mj_m2, measured_record
from nodes.field.world import FieldWorld
from nodes.scenario import DAY_S, Scenario, load_scenario

EVERY = sorted(CLIMATES)
MEASURED = sorted(STATIONS)
SMALL = load_scenario(Path(__file__).parents[2] / "noria" / "scenarios" / "small.toml")


def whole(name: str) -> Weather:
    return Weather(name, CLIMATES[name].first, CLIMATES[name].last)


def seasons(climate: Climate) -> list[tuple[date, date]]:
    """Planting and end of every season of every crop of the region that the record holds, commissioning included."""
    found = []
    for planting in climate.plantings:
        for year in range(climate.first.year, climate.last.year + 1):
            begin = planting.on(year)
            end = begin + timedelta(days=FIELD_CROPS[planting.crop].season_days + 2)
            if begin - timedelta(days=38) >= climate.first and end <= climate.last:
                found.append((begin, end))
    return found


# Formulas


def test_penman_monteith_agrees_with_fao_56_example_18() -> None:
    above_mj = extraterrestrial_radiation_mj_m2(50.8, 187)
    assert above_mj == pytest.approx(41.09, abs=0.02)
    et0_mm = penman_monteith_mm(12.3, 21.5, 1.409, 22.07, 2.078, elevation_m=100, extraterrestrial_mj_m2=above_mj)
    assert et0_mm == pytest.approx(3.88, abs=0.01)


def test_dew_point_undoes_saturation() -> None:
    # FAO-56 annex 2, table 2.3.
    assert saturation_vapour_pressure_kpa(15.0) == pytest.approx(1.705, abs=1e-3)
    for temperature_c in (-20.0, 0.0, 15.0, 30.0):
        assert dew_point_c(saturation_vapour_pressure_kpa(temperature_c)) == pytest.approx(temperature_c)


def test_penman_monteith_agrees_with_what_the_keepers_of_a_record_computed_from_it() -> None:
    station = STATIONS["bedrock"]
    with ZipFile(ensure(station.wheel)) as archive:
        rows = [row for row in first_sheet(archive.read(station.files[0])) if {"ETo (mm)", "TDew (C)"} <= row.keys()]
    assert len(rows) > 1700
    for row in rows:
        # Their sky is clearer in dry air; that in FAO-56 eq. 37 is not. Theirs stands in for ours here.
        clear_mj = row["Rso (w/m2)"] * W_M2_TO_MJ_M2
        et0_mm = penman_monteith_mm(
            row["TMin (C)"],
            row["TMax (C)"],
            saturation_vapour_pressure_kpa(row["TDew (C)"]),
            row["Rs (w/m2)"] * W_M2_TO_MJ_M2,
            row["ws_2m (m/s)"],
            elevation_m=station.elevation_m,
            extraterrestrial_mj_m2=clear_mj / (0.75 + 2e-5 * station.elevation_m),
        )
        assert et0_mm == pytest.approx(row["ETo (mm)"], abs=0.005)


# Records


@pytest.mark.parametrize("name", EVERY)
def test_a_record_holds_every_day_it_claims(name: str) -> None:
    climate, frame = CLIMATES[name], measured_record(name)
    days = [stamp.date() for stamp in frame.Date]
    assert days == [climate.first + timedelta(days=index) for index in range(len(days))]
    assert days[-1] == climate.last
    assert not frame.isna().any(axis=None)
    assert (frame.MinTemp < frame.MaxTemp).all()
    assert frame.Precipitation.between(0, 300).all()
    assert frame.ReferenceET.between(0.1, 12).all()


@pytest.mark.parametrize("name", EVERY)
def test_every_crop_of_a_region_has_seasons_in_its_record(name: str) -> None:
    climate = CLIMATES[name]
    for planting in climate.plantings:
        assert sum((begin.month, begin.day) == (planting.month, planting.day) for begin, _ in seasons(climate)) >= 3


@pytest.mark.parametrize("name", MEASURED)
def test_measured_weather_is_physical(name: str) -> None:
    weather = whole(name)
    clearness = []
    for day in weather.days:
        above_mj = extraterrestrial_radiation_mj_m2(weather.latitude_deg, day.day.timetuple().tm_yday)
        clearness.append(day.radiation_mj_m2 / above_mj)
        assert -30 < day.dew_point_c < day.maximum_c + 1e-9
    assert 0.005 < min(clearness) < 0.15
    assert 0.7 < max(clearness) <= 0.85
    assert (fmean(clearness) > 0.55) == (name != "wageningen")


@pytest.mark.parametrize("name", MEASURED)
def test_light_is_the_files_and_not_et0s(name: str) -> None:
    shift = CLIMATES[name].dated_years_later
    noted = {day.day.replace(year=day.day.year + shift): day for day in measurements(name)}
    weather = whole(name)
    same, unlike = 0, 0
    for day in weather.days:
        same += day.radiation_mj_m2 == pytest.approx(noted[day.day].radiation_mj_m2)
        above_mj = extraterrestrial_radiation_mj_m2(weather.latitude_deg, day.day.timetuple().tm_yday)
        derived_mj = derived_radiation_mj_m2(day.et0_mm, day.mean_c, above_mj)
        unlike += abs(derived_mj / day.radiation_mj_m2 - 1) > 0.05
    # The rest is interpolated.
    assert same > 0.98 * len(weather.days)
    assert unlike > 0.6 * len(weather.days)


def test_a_state_line_that_poses_as_a_day_is_not_one() -> None:
    noted = {day.day: day for day in measurements("wageningen")}
    # The first of two lines for the 43rd day of 1989 says 1 kJ/m², the second 1,880.
    assert noted[date(1989, 2, 12)].radiation_mj_m2 == pytest.approx(1.88)
    assert min(day.radiation_mj_m2 for day in noted.values()) == pytest.approx(0.1)


# Seasons


@pytest.mark.parametrize(
    ("name", "index"), [(name, index) for name in EVERY for index in range(len(CLIMATES[name].plantings))]
)
def test_aquacrop_grows_what_is_planted_there(name: str, index: int) -> None:
    climate = CLIMATES[name]
    planting = climate.plantings[index]
    soil = TEXTURES[Texture.LOAM]
    begin = next(begin for begin, _ in seasons(climate) if (begin.month, begin.day) == (planting.month, planting.day))
    weather = Weather.covering(name, begin - timedelta(days=30), begin + timedelta(days=215))
    plot = Plot(planting.crop, soil, begin, (soil.field_capacity, soil.field_capacity))
    harvest = reference_harvest(weather, plot, 215, watered=True)
    assert harvest.season_days == pytest.approx(FIELD_CROPS[planting.crop].season_days, abs=8)


@pytest.mark.parametrize("name", EVERY)
def test_a_node_can_stand_in_every_climate(name: str) -> None:
    begin, _ = seasons(CLIMATES[name])[-1]
    plan = SMALL.model_dump()
    plan["start"] = begin - timedelta(days=SMALL.commissioning_days)
    plan["farms"] = [plan["farms"][0] | {"climate": name}]
    scenario = Scenario.model_validate(plan)
    farm = scenario.farms[0]
    world = FieldWorld(scenario, farm, farm.nodes[0])
    noon_s = scenario.planting_time_s(farm) + 20 * DAY_S + 6 * 3600
    air_c, humidity = world.air(noon_s)
    assert -5 < air_c < 45
    assert 5 <= humidity <= 100
    assert world.light_w_m2(noon_s) > 20
    assert world.light_w_m2(noon_s + 12 * 3600) < 5
    assert 300 < world.probe_mv(0, noon_s) < 3000


# Fetching


def test_a_wheel_that_is_not_the_pinned_one_is_refused_and_not_kept(tmp_path) -> None:
    trusted = STATIONS["bedrock"].wheel
    with pytest.raises(StationError, match="cannot download gridwxcomp"):
        ensure(Wheel(trusted.package, trusted.version, "0" * 64), tmp_path)
    assert not list(tmp_path.iterdir())
