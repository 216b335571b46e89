"""The irrigation evaluation: rules on made-up mornings, figures on known data, and runs that are done only once."""

import math
import multiprocessing
import os
import re
import signal
from dataclasses import replace
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from server_cases import shared_truth, sums_of
from typer.testing import CliRunner

from nodes.field.fields import FieldYear, sample_fields
from nodes.field.season import Truth
from nodes.field.soils import TEXTURES, Texture
from nodes.field.trial import Morning
from noria.evaluation import controllers, fleet
from noria.evaluation.cli import app
from noria.evaluation.controllers import RULES
from noria.evaluation.groups import Arm, Group
from noria.evaluation.irrigation import PAGE
from noria.evaluation.irrigation_chart import irrigation_chart
from noria.evaluation.ledger import LedgerError, key_of, ledger
from noria.evaluation.protocol import MODEL, PHYSICS, Plan
from noria.evaluation.runs import DailyRun, EvaluationError, NodeRun, Outcome, Run, do_all
from noria.evaluation.statistics import Curve, curve, equal_yield, estimate, paired, water_at, weightings
from noria.evaluation.tables import grids
from noria.pages import with_table
from shared_models.codes import Crop
from shared_models.factory import factory_image
from shared_models.moments import PHI, TARGETS, Snapshot
from shared_models.network import head_weights
from shared_models.settings import SHIPPED_THRESHOLD_PERMILLE

LOAM = TEXTURES[Texture.LOAM]
FIELD = FieldYear("champion-1", "champion", 1, 1999, Crop.MAIZE, Texture.LOAM, date(1999, 5, 1))
MORNING = Morning(
    day=60,
    season_days=132,
    field=FIELD,
    vwc=(0.23, 0.25),
    soaked_vwc=(0.30, 0.34),
    probe_fc=(0.33, 0.35),
    probe_wp=(0.13, 0.15),
    et0_mm=6.0,
    rain_mm=0.0,
    truth=Truth(vwc=(0.22, 0.24), depletion_mm=50.0, taw_mm=160.0, canopy_cover=0.9),
    hydraulics=LOAM,
    ahead=((0.0, 6.0), (0.0, 6.0), (0.0, 6.0)),
)


# Controllers


@pytest.mark.parametrize(
    ("name", "depleted"),
    [
        ("texture", (0.31 - 0.24) / 0.16),
        ("texture, no stop", (0.31 - 0.24) / 0.16),
        ("calibrated", (0.34 - 0.24) / 0.20),
        ("soak-anchored", (0.32 - 0.24) / 0.16),
    ],
)
def test_a_threshold_rule_doses_where_its_own_depletion_passes_its_setting(name, depleted):
    make = RULES[name].make
    assert make(depleted - 0.01)(MORNING) == controllers.DOSE_MM
    assert make(depleted + 0.01)(MORNING) == 0.0


def test_the_raw_threshold_knows_no_soil():
    rule = RULES["raw VWC"].make(0.26)
    clay = replace(MORNING, field=replace(FIELD, texture=Texture.CLAY_LOAM), hydraulics=TEXTURES[Texture.CLAY_LOAM])
    assert rule(MORNING) == rule(clay) == controllers.DOSE_MM
    assert rule(replace(MORNING, vwc=(0.27, 0.27))) == 0.0


@pytest.mark.parametrize("name", sorted(set(RULES) - {"rainfed", "calendar", "texture, no stop", "FAO-56 station"}))
def test_nobody_waters_in_the_last_twentieth_of_the_season(name):
    dry = replace(MORNING, vwc=(0.05, 0.05), truth=replace(MORNING.truth, depletion_mm=150.0), ahead=((0.0, 6.0),) * 3)
    rule = RULES[name].make(RULES[name].settings[0])
    assert rule(replace(dry, day=125)) > 0
    assert rule(replace(dry, day=126)) == 0.0


def test_one_texture_threshold_goes_on_to_the_harvest():
    assert RULES["texture, no stop"].make(0.3)(replace(MORNING, day=131)) == controllers.DOSE_MM


def test_the_calendar_looks_at_nothing_else():
    rule = RULES["calendar"].make(5.0)
    watered = [day for day in range(20) if rule(replace(MORNING, day=day, vwc=(0.4, 0.4)))]
    assert watered == [5, 10, 15]
    assert RULES["rainfed"].make(0.0)(MORNING) == 0.0


def test_the_station_s_balance_is_fao_56_s():
    """Loam, 0.3 m of roots: TAW 48 mm; maize begins at Kc .35."""
    rule = RULES["FAO-56 station"].make(0.1)
    days = [replace(MORNING, day=day, et0_mm=6.0, rain_mm=0.0) for day in range(5)]
    # 2.1 mm a day; roots grow, so that a tenth of TAW is 4.8 mm and a little more each day.
    assert [rule(day) for day in days] == [0.0, 0.0, 0.0, controllers.DOSE_MM, 0.0]
    rainy = RULES["FAO-56 station"].make(0.1)
    assert [rainy(replace(day, rain_mm=2.1)) for day in days] == [0.0] * 5


def test_the_truth_refills_what_is_missing():
    rule = RULES["true state"].make(0.3)
    assert rule(MORNING) == controllers.LARGEST_REFILL_MM
    assert rule(replace(MORNING, truth=replace(MORNING.truth, depletion_mm=49.0, taw_mm=120.0))) == 40.0
    assert rule(replace(MORNING, truth=replace(MORNING.truth, depletion_mm=15.0, taw_mm=48.0))) == 15.0
    assert rule(replace(MORNING, truth=replace(MORNING.truth, depletion_mm=5.0, taw_mm=10.0))) == 8.0
    assert rule(replace(MORNING, truth=replace(MORNING.truth, depletion_mm=47.0))) == 0.0


def test_the_oracle_waits_for_rain_and_doses_before_the_depletion():
    rule = RULES["oracle"].make(0.3)
    assert rule(replace(MORNING, truth=replace(MORNING.truth, depletion_mm=47.0))) == 40.0
    assert rule(replace(MORNING, ahead=((0.0, 6.0), (0.0, 6.0), (60.0, 2.0)))) == 0.0
    assert rule(replace(MORNING, ahead=((0.0, 6.0), (0.0, 6.0), (30.0, 2.0)))) == 20.0
    suffering = replace(MORNING.truth, depletion_mm=70.0)
    assert rule(replace(MORNING, truth=suffering, ahead=((0.0, 6.0), (0.0, 6.0), (80.0, 2.0)))) == 8.0


# Statistics


def test_resamples_draw_whole_fields_and_repeat_with_their_seed():
    clusters = ["a", "a", "b", "c", "c"]
    weights = weightings(clusters, 7, 500)
    assert weights.shape == (501, 5)
    assert weights.sum(axis=1) == pytest.approx(np.ones(501))
    assert weights[0] == pytest.approx(np.full(5, 0.2))
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 4]).all()
    assert (weights[:, 2] != weights[:, 3]).any()
    assert (weights == weightings(clusters, 7, 500)).all()
    assert (weights != weightings(clusters, 8, 500)).any()


def test_an_interval_is_as_wide_as_theory_says_and_a_second_year_does_not_narrow_it():
    water = np.random.default_rng(1).normal(400, 60, 200)
    once = estimate(weightings(list(range(200)), 1) @ water)
    assert once.value == pytest.approx(water.mean())
    assert once.high - once.low == pytest.approx(2 * 1.96 * water.std() / math.sqrt(200), rel=0.1)
    fields = [field for field in range(200) for _ in range(2)]
    twice = estimate(weightings(fields, 1) @ np.repeat(water, 2))
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))


def test_a_small_saving_on_every_field_is_seen_through_large_differences_between_fields():
    rng = np.random.default_rng(2)
    fields = rng.normal(400, 100, 40)
    yields = np.full((1, 40), 0.98)
    weights = weightings(list(range(40)), 1)
    before = curve(fields[None], yields, weights)
    after = curve((0.97 * fields + rng.normal(0, 1, 40))[None], yields, weights)
    result = paired(before, 0, after, 0)
    assert result.water_mm.high < 0
    assert result.at_equal_yield.value == pytest.approx(-0.03, abs=0.002)
    assert result.at_equal_yield.excludes_zero


@pytest.mark.parametrize(
    ("target", "water_mm"), [(0.80, 300), (0.90, 300), (0.925, 350), (0.95, 400), (0.96, 500), (0.97, 600)]
)
def test_the_lower_envelope_leaves_out_what_others_undercut(target, water_mm):
    water, reached = np.array([600.0, 500.0, 400.0, 300.0]), np.array([0.97, 0.94, 0.95, 0.90])
    assert water_at(water, reached, target) == pytest.approx(water_mm)


def test_no_water_buys_a_yield_beyond_the_envelope():
    assert water_at(np.array([300.0, 400.0]), np.array([0.9, 0.95]), 0.96) == math.inf


def line(thirsty_mm: float, dry_mm: float, high: float, low: float) -> Curve:
    return Curve(np.array([[thirsty_mm, dry_mm]] * 3), np.array([[high, low]] * 3))


def test_water_at_equal_yield_is_read_off_the_reference_s_curve():
    result = equal_yield(line(500, 400, 1.0, 0.9), line(420, 300, 0.95, 0.85), 0)
    assert result.reference_mm.value == pytest.approx(450)
    assert result.saving.value == pytest.approx(1 - 420 / 450)
    assert result.reached == 1.0


def test_where_the_reference_cannot_follow_both_are_compared_at_its_best():
    result = equal_yield(line(500, 400, 0.92, 0.90), line(420, 300, 0.96, 0.86), 0)
    assert result.reached == 0.0
    assert result.target.value == 0.92
    assert (result.reference_mm.value, result.candidate_mm.value) == pytest.approx((500, 372))


def test_moving_along_the_reference_s_own_curve_is_no_gain():
    reference = Curve(np.array([[500.0, 440.0, 400.0]] * 3), np.array([[0.99, 0.97, 0.95]] * 3))
    same = line(455, 425, 0.975, 0.965)
    result = paired(reference, 1, same, 0)
    assert result.slope_mm.value == pytest.approx(2500)
    assert result.water_mm.value == pytest.approx(15)
    assert result.at_equal_yield_mm.value == pytest.approx(15 - 2500 * 0.005)


def test_a_flat_curve_does_not_turn_noise_of_yields_into_water():
    reference = Curve(np.array([[500.0, 400.0, 350.0]] * 3), np.array([[0.98, 0.98, 0.98]] * 3))
    result = paired(reference, 1, line(400, 400, 0.9805, 0.98), 0)
    assert result.at_equal_yield_mm.value == pytest.approx(-15.0)


# Groups, tables, picture


def arm(name: str, water_mm: list[float], yields: list[float], shipped: int | None = None, years: int = 6) -> Arm:
    """Every field-year alike, except that each has more water than the one before."""
    outcomes = tuple(
        tuple(Outcome(water + 10 * year, crop, 20, 5.0) for year in range(years))
        for water, crop in zip(water_mm, yields, strict=True)
    )
    return Arm(name, "made up", tuple(float(index) for index in range(len(water_mm))), outcomes, shipped)


CLIMATES = ["champion"] * 3 + ["tunis"] * 3


def group(arms: list[Arm], best: list[float] | None = None) -> Group:
    scopes = {name: [climate == name for climate in CLIMATES] for name in sorted(set(CLIMATES))}
    return Group(arms, best or [10.0] * 6, ["a", "a", "b", "c", "d", "d"], scopes, CLIMATES)


def test_field_years_without_any_harvest_are_counted_and_left_out():
    arms = [arm(PHYSICS, [400, 300], [9.8, 9.0], 0)]
    result = group(arms, [0.0, 10.0, 10.0, 10.0, 10.0, 20.0])
    assert (result.failed, result.field_years, result.clusters) == (1, 5, 4)
    shipped = result.controllers()[0]["settings"][0]
    assert shipped["scopes"]["champion"]["relative_yield"][0] == pytest.approx(0.98)
    assert shipped["worst_place"] == "tunis"
    assert shipped["worst_relative_yield"] == pytest.approx((0.98 + 0.98 + 0.49) / 3, abs=1e-5)


@pytest.fixture(scope="module")
def report():
    """A report of the shape :func:`noria.evaluation.protocol.evaluate` makes, of made-up runs."""
    nodes = [
        arm(PHYSICS, [460, 420, 380], [9.9, 9.8, 9.5], 1),
        arm(MODEL, [450, 410, 370], [9.9, 9.8, 9.5], 1),
    ]
    rules = [arm("rainfed", [0], [4.0]), arm("texture", [560, 500], [9.8, 9.6]), arm("true state", [400], [9.9])]
    made = group([*rules, *nodes])
    section = {
        "field_years": made.field_years,
        "fields": made.clusters,
        "controllers": made.controllers(),
        "equal_yield": [
            made.equal_yield(node, rule) for node in (PHYSICS, MODEL) for rule in ("rainfed", "texture", "true state")
        ],
        "paired": [made.paired(MODEL, PHYSICS)],
    }
    protocol = {"climates": ["champion", "tunis"]}
    return {"protocol": protocol, "judge": section, "second_year": section, "training_worlds": section}


def test_the_tables_tell_the_saving_and_the_change(report):
    controllers_table, climates, _, learned = grids(report)
    rows = {row[0]: row for row in controllers_table.rows}
    assert "rainfed" in rows
    assert rows["texture"][-1].startswith("23.9 %")  # 445 of 585 mm
    assert rows["texture"][2:4] == ("585", ".980 [.980, .980]")
    places = ["all", "champion", "tunis"]
    assert [row[0] for row in climates.rows] == [*places, *(f"training worlds: {place}" for place in places)]
    assert learned.rows[0][1].startswith("-2.2 %")  # 10 of 445 mm
    assert learned.rows[-1][0] == "training worlds: tunis"


def test_the_page_has_a_place_for_every_table(report):
    page = PAGE.read_text(encoding="utf-8")
    for grid in grids(report):
        filled = with_table(page, grid.name, grid.markdown())
        assert grid.markdown() in filled
        assert with_table(filled, grid.name, grid.markdown()) == filled
    with pytest.raises(ValueError, match="no marks of the table learned"):
        with_table("", grids(report)[3].name, grids(report)[3].markdown())


def test_the_picture_has_a_curve_per_controller_and_a_ring_where_it_ships(report):
    svg = ElementTree.fromstring(irrigation_chart(report))
    name = "{http://www.w3.org/2000/svg}"
    rings = [circle for circle in svg.iter(f"{name}circle") if circle.get("fill") == "none"]
    assert len(rings) == 2 * 3  # two nodes in the large panel and in one small panel per climate
    lines = [each.get("points") for each in svg.iter(f"{name}polyline")]
    assert len(lines) == 3 * 3
    width, height = (float(part) for part in svg.get("viewBox").split()[2:])
    for ring in rings:
        assert 0 < float(ring.get("cx")) < width
        assert 0 < float(ring.get("cy")) < height


def test_a_controller_without_a_colour_is_named(report):
    strange = group([arm("divination", [1], [1.0])]).controllers()
    with pytest.raises(ValueError, match="no colour for divination"):
        irrigation_chart({"protocol": report["protocol"], "judge": {"controllers": strange}})


# The fleet


def test_statistics_are_those_of_the_shipped_backbone_under_the_physics():
    image = fleet.statistics_image()
    assert image.backbone_id == factory_image().backbone_id
    assert not head_weights(image)[0].any()


def snapshot_of(seed: int, truth: np.ndarray) -> Snapshot:
    sums = sums_of(seed, truth)
    return Snapshot(sums.gram, sums.moment, sums.energy, sums.count)


def test_the_head_for_a_climate_nobody_measured_learns_from_all_the_others():
    fields = [field for seed in (1, 2) for field in sample_fields(seed, ["champion", "tunis"], 1, 1)]
    fields += [replace(field, climate="elsewhere", name="elsewhere-1") for field in fields[::2]]
    truths = {"champion": shared_truth(7), "tunis": shared_truth(8), "elsewhere": np.zeros((TARGETS, PHI))}
    season = {field: snapshot_of(index, truths[field.climate]) for index, field in enumerate(fields)}
    heads = fleet.other_climates(season)
    assert set(heads) == {fleet.identity(field) for field in fields}
    for climate in truths:
        elsewhere = {field: snapshot for field, snapshot in season.items() if field.climate != climate}
        expected = fleet.round_of(elsewhere)[0].model_id
        assert {heads[fleet.identity(field)].model_id for field in fields if field.climate == climate} == {expected}
    together = {image.model_id for image in fleet.everyone(season).values()}
    assert together == {fleet.round_of(season)[0].model_id}


def test_what_all_farms_have_in_common_passes_the_gate():
    fields = [field for seed in (1, 2) for field in sample_fields(seed, ["champion", "tunis"], 2, 1)]
    season = {field: snapshot_of(index, shared_truth()) for index, field in enumerate(fields)}
    image, evidence = fleet.round_of(season)
    assert evidence.verdict == "passed"
    assert image.model_id != factory_image().model_id
    assert image.backbone_id == factory_image().backbone_id


def test_a_farm_that_a_head_would_hurt_keeps_the_shipped_one():
    fields = [field for seed in range(1, 5) for field in sample_fields(seed, ["champion", "tunis"], 2, 1)]
    content = "4/tunis"
    shipped = head_weights(factory_image())
    season = {
        field: snapshot_of(index, shipped if fleet.site_of(field) == content else shared_truth())
        for index, field in enumerate(fields)
    }
    image, evidence = fleet.round_of(season)
    assert set(evidence.held_back) == {content}
    for field in fields:
        expected = factory_image() if fleet.site_of(field) == content else image
        assert fleet.everyone(season)[fleet.identity(field)].model_id == expected.model_id


# Runs


def test_a_run_is_done_once_and_known_by_everything_it_depends_on(tmp_path):
    field = sample_fields(1, ["champion"], 1, 1)[0]
    run = DailyRun(field, "rainfed", 0.0)
    with ledger(tmp_path / "runs.sqlite") as connection:
        told: list[int] = []
        first = do_all([run, run], connection, 1, told.append)
        assert told == [0, 1]
        told.clear()
        assert do_all([run], connection, 1, told.append) == first
        assert told == [1]
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    others = [
        DailyRun(replace(field, seed=2), "rainfed", 0.0),
        DailyRun(field, "calendar", 0.0),
        replace(run, setting=1),
    ]
    assert len({key_of(each.determinants()) for each in (run, *others)}) == 4


def test_a_run_that_fails_is_named(tmp_path):
    field = sample_fields(1, ["champion"], 1, 1)[0]
    with (
        ledger(tmp_path / "runs.sqlite") as connection,
        pytest.raises(EvaluationError, match=r"champion-1 of seed 1 .* under calendar at 0 failed: ZeroDivisionError"),
    ):
        do_all([DailyRun(field, "calendar", 0.0)], connection, 1, lambda _: None)


def test_a_file_that_is_no_ledger_is_refused_until_told_otherwise(tmp_path):
    path = tmp_path / "runs.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerError, match="--fresh"), ledger(path):
        pass
    with ledger(path, fresh=True) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (0,)


def several_runs() -> list[Run]:
    """Rules, and a node in its first year."""
    fields = sample_fields(1, ["champion", "tunis"], 1, 1)
    rules = [DailyRun(field, rule, 0.4) for field in fields for rule in ("texture", "true state")]
    return [*rules, *(NodeRun(field, 200, fleet.statistics_image().pack()) for field in fields)]


def do_until_killed(path: Path, known: int) -> None:
    """Do the runs in a process that dies at once, as under ``kill -9``, when so many are known."""
    total = 0

    def count(runs: int) -> None:
        nonlocal total
        total += runs
        if total >= known:
            os.kill(os.getpid(), signal.SIGKILL)

    with ledger(path) as connection:
        do_all(several_runs(), connection, 1, count)


def test_runs_killed_and_resumed_are_those_of_an_undisturbed_evaluation(tmp_path):
    broken = tmp_path / "broken.sqlite"
    for known in (2, 5):
        victim = multiprocessing.get_context("spawn").Process(target=do_until_killed, args=(broken, known))
        victim.start()
        victim.join()
        assert victim.exitcode == -signal.SIGKILL
        with ledger(broken) as connection:
            assert connection.execute("SELECT count(*) FROM runs").fetchone() == (known,)
    results = []
    for path in (broken, tmp_path / "whole.sqlite"):
        with ledger(path) as connection:
            results.append(do_all(several_runs(), connection, 1, lambda _: None))
    assert results[0] == results[1]
    assert all(done.state and done.snapshot for run, done in results[0].items() if isinstance(run, NodeRun))


# The command


def test_a_plan_that_cannot_be_run_is_refused():
    with pytest.raises(EvaluationError, match=r"no climate atlantis; there are .*champion"):
        Plan(climates=("atlantis",))
    with pytest.raises(EvaluationError, match="ask for fewer years"):
        Plan(seeds=(1,), climates=("champion",), years=99).field_years()


def test_the_shipped_setting_is_on_the_node_s_curve():
    plan = Plan()
    assert plan.thresholds_permille[plan.shipped] == SHIPPED_THRESHOLD_PERMILLE
    assert list(plan.thresholds_permille) == sorted(plan.thresholds_permille)


def test_quick_looks_at_seen_data_only():
    quick = Plan.quick()
    assert set(quick.seeds) <= {1, 2, 3, 4}
    assert set(quick.climates) == {"champion", "tunis"}
    assert not set(Plan().seeds) & {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("mistake", "answer"),
    [
        (["--seeds", "one"], "whole numbers with commas"),
        (["--climates", "atlantis"], "there are .*champion"),
    ],
)
def test_a_mistake_on_the_command_line_is_answered_with_what_to_do(mistake, answer):
    result = CliRunner().invoke(app, ["irrigation", *mistake])
    assert result.exit_code == 2
    assert re.search(answer, result.stderr)
