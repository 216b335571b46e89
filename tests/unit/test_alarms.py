"""A battery too weak for the valve, probes that contradict the balance, a clock set back: noticed and got over."""

from __future__ import annotations

import pytest
from core_cases import PLANTING_S, BucketField, random_model, settings

from shared_models.codes import Mode, Reason
from shared_models.fixed import NO_VALUE
from shared_models.network import zero_head
from shared_models.plausibility import BATTERY_GOOD_MV, BATTERY_LOW_MV, CONTRARY_DAWNS, check_battery
from shared_models.reference import NodeReference, Outcome
from shared_models.state import State

DAY_S = 86_400


def season(node: NodeReference, world: BucketField, days: int, *, battery_mv=lambda day: 2900, spoil=lambda day, r: r):
    """Live for ``days`` and yield each wake's day and outcome."""
    image = zero_head(random_model(1))
    for day, readings in world.days(days):
        for reading in readings:
            reading.battery_mv = battery_mv(day)
            outcome: Outcome = node.wake(spoil(day, reading), image)
            world.irrigate(outcome)
            yield day, outcome


def test_a_weak_battery_opens_no_valve_until_it_is_strong_again():
    node, world = NodeReference(settings()), BucketField(4, rain_chance=0.0)
    doses, reasons, changes = {}, {}, []
    for day, outcome in season(node, world, 75, battery_mv=lambda day: 2250 if 30 <= day < 45 else 2900):
        doses[day] = doses.get(day, 0) + outcome.dose_e1_mm
        if outcome.decided:
            reasons[day] = outcome.reason
        if outcome.battery_changed:
            changes.append((day, outcome.battery_low))
    assert changes == [(30, 1), (45, 0)]
    assert sum(doses[day] for day in range(30, 45)) == 0
    assert Reason.LOW_BATTERY in {reasons[day] for day in range(30, 45)}
    assert sum(doses[day] for day in range(45, 60)) > 0


def test_a_farmers_dose_is_not_given_on_a_weak_battery_either():
    node, world = NodeReference(settings()), BucketField(4, rain_chance=0.0)
    for day, outcome in season(node, world, 20, battery_mv=lambda day: 2000):
        if day == 5 and outcome.dawn:
            assert node.override(2, 100)
        assert outcome.open_s == 0
    assert node.state.pending_water_e1_mm == 0


@pytest.mark.parametrize(
    ("before", "millivolts", "after"),
    [
        (0, BATTERY_LOW_MV, 0),
        (0, BATTERY_LOW_MV - 1, 1),
        (1, BATTERY_GOOD_MV - 1, 1),
        (1, BATTERY_GOOD_MV, 0),
        (1, NO_VALUE, 1),
        (0, NO_VALUE, 0),
    ],
)
def test_the_battery_has_hysteresis_and_an_unknown_voltage_says_nothing(before: int, millivolts: int, after: int):
    state = State()
    state.battery_low = before
    check_battery(state, millivolts)
    assert state.battery_low == after


def test_probes_pulled_out_of_the_soil_silence_the_model_until_they_are_back():
    node, world = NodeReference(settings()), BucketField(6, rain_chance=0.3)

    def pulled(day, reading):
        if 40 <= day < 52:
            reading.vwc_shallow_e4, reading.vwc_deep_e4 = 20 + reading.time_s % 7, 25 + reading.time_s % 5
        return reading

    changes, modes = [], {}
    for day, outcome in season(node, world, 80, spoil=pulled):
        modes.setdefault(day, set()).add(outcome.mode)
        if outcome.agreement_changed:
            changes.append((day, outcome.disagreeing))
    (began, first), (ended, second) = changes
    assert (first, second) == (1, 0)
    assert 40 + CONTRARY_DAWNS <= began < 52 < ended
    assert modes[began + 1] == {Mode.PHYSICS}
    assert modes[ended + 1] == {Mode.MODEL}


def test_a_clock_set_back_by_a_year_holds_up_neither_water_nor_reports():
    node = NodeReference(settings())
    node.state.initialised, node.state.day = 1, 20_100
    now_s = PLANTING_S + 30 * DAY_S
    for name in ("last_dose_s", "last_telemetry_s", "last_statistics_s"):
        setattr(node.state, name, now_s + 365 * DAY_S)
    readings = next(readings for day, readings in BucketField(1, first_day=30).days(1))
    sent = sum(node.wake(reading).send_telemetry for reading in readings)
    readings = next(readings for day, readings in BucketField(1, first_day=31).days(1))
    sent += sum(node.wake(reading).send_telemetry for reading in readings)
    assert sent == 1
    assert node.state.last_dose_s < now_s + DAY_S
