"""Decisions: one a day, within every cap, with a reason; the farmer's word above them."""

from __future__ import annotations

import itertools

import pytest
from core_cases import PLANTING_S, BucketField, settings

from shared_models.codes import Mode, Reason
from shared_models.policy import STAGE_THRESHOLDS_Q4, threshold_permille
from shared_models.reference import NodeReference, Outcome, Reading


def run(node: NodeReference, world: BucketField, days: int) -> list[tuple[Reading, Outcome]]:
    wakes = []
    for _, readings in world.days(days):
        for reading in readings:
            outcome = node.wake(reading)
            world.irrigate(outcome)
            wakes.append((reading, outcome))
    return wakes


def thirsty(**changes: object) -> tuple[NodeReference, list[tuple[Reading, Outcome]]]:
    node = NodeReference(settings(**changes))
    return node, run(node, BucketField(1, rain_chance=0.0), 138)


def given(wakes: list[tuple[Reading, Outcome]]) -> list[tuple[int, int]]:
    """(time, dose) of every dose."""
    return [(reading.time_s, outcome.dose_e1_mm) for reading, outcome in wakes if outcome.open_s]


def test_there_is_one_decision_a_day_at_dawn_and_every_one_has_its_reason() -> None:
    _, wakes = thirsty()
    decisions = [(reading, outcome) for reading, outcome in wakes if outcome.decided]
    assert len(decisions) == 138
    assert all((reading.time_s - 37) % 86_400 == 6 * 3600 for reading, _ in decisions)
    reasons = {outcome.reason for _, outcome in decisions}
    assert reasons == {Reason.COMMISSIONING, Reason.NOT_NEEDED, Reason.DEPLETED, Reason.SEASON_ENDING}


def test_the_threshold_follows_the_crops_stage_and_the_demand() -> None:
    node = NodeReference(settings(threshold_permille=200))
    state = node.state
    state.et0_average_um = 5000
    planted = (PLANTING_S - 6 * 3600) // 86_400

    def on(day: int) -> int:
        state.day = planted + day
        return threshold_permille(state, node.settings)

    stages = [on(day) for day in (5, 40, 80, 120)]
    assert stages == [200 * q4 // 16 for q4 in STAGE_THRESHOLDS_Q4]
    assert stages == sorted(stages)
    state.et0_average_um = 9000
    assert on(40) == pytest.approx(0.68 * 200, abs=1), "table 22: p falls by .04 for each mm/d"
    state.et0_average_um = 2000
    assert on(40) == pytest.approx(1.24 * 200, abs=1)
    state.mode = Mode.BALANCE_ONLY
    assert on(40) == pytest.approx(1.5 * 1.24 * 200, abs=2)
    node.settings = settings(threshold_permille=1000)
    assert on(120) == 900


def test_no_water_before_planting_nor_in_the_last_twentieth_of_the_season() -> None:
    _, wakes = thirsty()
    days = [(time_s - PLANTING_S) // 86_400 for time_s, _ in given(wakes)]
    assert min(days) > 0
    assert max(days) < 130 * 0.95


def test_a_dose_is_what_the_open_valve_gives() -> None:
    _, wakes = thirsty(application_rate_e2_mm_h=800)
    doses = [outcome for _, outcome in wakes if outcome.open_s]
    assert doses
    assert {outcome.open_s for outcome in doses} == {9000}
    assert {outcome.dose_e1_mm for outcome in doses} == {200}


def test_the_valve_never_stays_open_past_its_limit_or_the_window() -> None:
    node, wakes = thirsty(application_rate_e2_mm_h=200, max_on_s=7200)
    assert {outcome.open_s for _, outcome in wakes if outcome.open_s} == {7200}
    assert {dose for _, dose in given(wakes)} == {40}
    assert node.state.water_season_um == sum(4000 for _ in given(wakes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"min_interval_h": 96}, Reason.MINIMUM_INTERVAL),
        ({"seasonal_cap_mm": 60}, Reason.SEASONAL_CAP),
        ({"daily_cap_mm": 0}, Reason.DAILY_CAP),
    ],
)
def test_each_cap_holds_and_is_the_reason_given(changes: dict[str, object], reason: Reason) -> None:
    node, wakes = thirsty(threshold_permille=100, **changes)
    assert reason in {outcome.reason for _, outcome in wakes if outcome.decided}
    times = [time_s for time_s, _ in given(wakes)]
    assert all(b - a >= node.settings.min_interval_h * 3600 for a, b in itertools.pairwise(times))
    assert node.state.water_season_um <= node.settings.seasonal_cap_mm * 1000
    if reason == Reason.DAILY_CAP:
        assert not times


def test_a_node_that_wakes_after_the_window_says_so() -> None:
    node = NodeReference(settings(threshold_permille=50))
    world = BucketField(1, rain_chance=0.0)
    reasons = []
    for day, readings in world.days(60):
        for reading in readings if day < 20 else readings[24:]:
            outcome = node.wake(reading)
            if outcome.decided and day >= 20:
                reasons.append(outcome.reason)
                assert not outcome.open_s
    assert Reason.OUTSIDE_WINDOW in reasons


def test_the_farmers_stop_holds_until_its_time_and_closes_the_valve() -> None:
    node = NodeReference(settings(threshold_permille=100))
    world = BucketField(1, rain_chance=0.0)
    run(node, world, 30)
    until = PLANTING_S + 40 * 86_400
    assert node.override(1, until)
    world.first_day = 22
    wakes = run(node, world, 30)
    stopped = [outcome for reading, outcome in wakes if reading.time_s < until]
    assert all(outcome.close for outcome in stopped)
    assert not any(outcome.open_s for outcome in stopped)
    assert Reason.OVERRIDE_STOP in {outcome.reason for outcome in stopped if outcome.decided}
    assert any(outcome.open_s for reading, outcome in wakes if reading.time_s >= until)


def test_the_farmers_dose_is_given_at_the_next_wake_within_the_caps() -> None:
    node = NodeReference(settings())
    world = BucketField(1)
    run(node, world, 20)
    noon = Reading(PLANTING_S + 11 * 86_400 + 77 * 900, 3300, 2500, 1900, 2000, 6000, 500)
    assert node.override(2, 600)
    outcome = node.wake(noon)
    assert outcome.reason == Reason.OVERRIDE_WATER
    assert outcome.dose_e1_mm == 400, "the daily cap of 40 mm"
    assert node.override(2, 100)
    noon.time_s += 900
    outcome = node.wake(noon)
    assert (outcome.open_s, outcome.reason) == (0, Reason.DAILY_CAP)


@pytest.mark.parametrize(("kind", "value"), [(0, 0), (2, 0), (2, 1001), (4, 1), (255, 7)])
def test_orders_that_make_no_sense_are_refused(kind: int, value: int) -> None:
    assert not NodeReference(settings()).override(kind, value)


def test_a_dose_cut_short_counts_for_what_it_gave() -> None:
    node = NodeReference(settings())
    world = BucketField(1, rain_chance=0.0)
    for _, readings in world.days(60):
        for reading in readings:
            outcome = node.wake(reading)
            if outcome.open_s:
                node.cut_short(outcome.open_s // 2)
                assert node.state.dose_today_um == pytest.approx(10_000, rel=0.01)
                assert node.state.water_season_um == pytest.approx(10_000, rel=0.01)
                node.cut_short(10 * outcome.open_s)
                assert node.state.dose_today_um == node.state.water_season_um == 0
                return
    raise AssertionError("no dose was given")


def test_telemetry_goes_daily_at_dawn_and_statistics_weekly() -> None:
    _, wakes = thirsty()
    telemetry = [reading.time_s for reading, outcome in wakes if outcome.send_telemetry]
    assert len(telemetry) == 138
    assert not any(outcome.send_statistics for _, outcome in wakes), "no model, no statistics"


def test_watering_is_refused_before_planting_even_to_the_farmer() -> None:
    node = NodeReference(settings())
    world = BucketField(1)
    run(node, world, 3)
    node.override(2, 100)
    world.first_day = -5
    wakes = run(node, world, 1)
    assert not given(wakes)
    assert wakes[0][1].reason == Reason.COMMISSIONING
    assert wakes[0][1].mode == Mode.COMMISSIONING
