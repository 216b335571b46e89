"""Corners of the core that no season reaches by itself: C and the reference go round them alike."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest
from core_cases import PLANTING_S, BucketField, random_model, settings
from test_core_identity import Twins

from nodes.hostcore import library
from shared_models.codes import Mode, Reason
from shared_models.fixed import NO_VALUE
from shared_models.reference import NodeReference, Reading
from shared_models.state import State

PROBES = ("vwc_shallow_e4", "vwc_deep_e4")


def wakes(world: BucketField, days: int) -> Iterator[tuple[int, Reading]]:
    for day, readings in world.days(days):
        for reading in readings:
            yield day, reading


def live(twins: Twins, world: BucketField, days: int, dead: tuple[str, ...] = (), image=None) -> list[Reason]:
    """Days in a field without some of the sensors; the reasons given."""
    reasons = []
    for _, reading in wakes(world, days):
        for name in dead:
            setattr(reading, name, NO_VALUE)
        outcome = twins.wake(reading, image)
        world.irrigate(outcome)
        if outcome.decided:
            reasons.append(Reason(outcome.reason))
    twins.compare()
    return reasons


def inject(twins: Twins, **changes: object) -> None:
    """Both go on from the same changed memory."""
    state = State.unpack(twins.python.state.pack())
    for name, value in changes.items():
        setattr(state, name, value)
    twins.python = NodeReference(twins.python.settings, state)
    twins.c.state_bytes = state.pack()


@pytest.mark.parametrize("dead", [PROBES[:1], PROBES[1:], PROBES], ids=["shallow", "deep", "both"])
def test_a_node_planted_with_a_probe_missing_lives_without_its_limit(dead: tuple[str, ...]) -> None:
    twins = Twins(settings(), sanitize=True)
    live(twins, BucketField(4, rain_chance=0.0), 40, dead)
    known = [twins.python.state.upper_limit_e4[index] != NO_VALUE for index, name in enumerate(PROBES)]
    assert known == [name not in dead for name in PROBES]


def test_without_probes_air_and_light_no_water_is_given() -> None:
    twins = Twins(settings(), sanitize=True)
    reasons = live(twins, BucketField(4, rain_chance=0.0), 60, (*PROBES, "air_temp_c100", "light_w_m2"))
    assert Reason.SENSOR_FAULT in reasons
    assert Reason.DEPLETED not in reasons


def test_a_valve_that_would_open_for_less_than_a_second_stays_closed() -> None:
    twins = Twins(settings(application_rate_e2_mm_h=65_535, dose_e1_mm=1), sanitize=True)
    reasons = live(twins, BucketField(5, rain_chance=0.0), 60)
    assert Reason.OUTSIDE_WINDOW in reasons
    assert twins.python.state.water_season_um == 0


def test_another_season_starts_the_books_anew() -> None:
    twins = Twins(settings(), sanitize=True)
    live(twins, BucketField(6), 80, image=random_model(1))
    assert twins.python.state.water_season_um > 0
    old = twins.python.state.pack()
    twins = Twins(settings(season=2025, planting_time_s=PLANTING_S + 100 * 86_400), sanitize=True)
    twins.python = NodeReference(twins.python.settings, State.unpack(old))
    twins.c.state_bytes = old
    live(twins, BucketField(6, first_day=75), 3, image=random_model(1))
    state = twins.python.state
    assert (state.season, state.started, state.water_season_um) == (2025, 0, 0)


@pytest.mark.parametrize(("model_energy", "distrusted"), [(0, 0), (1 << 30, 1)])
def test_a_head_set_aside_comes_back_when_it_is_the_better_one(model_energy: int, distrusted: int) -> None:
    image, world = random_model(2), BucketField(7, rain_chance=0.0)
    twins = Twins(settings(), sanitize=True)
    days = wakes(world, 120)
    for day, reading in days:
        twins.wake(reading, image)
        if day == 60:
            break
    inject(twins, distrusted=1, trust_windows=12, model_energy=model_energy, baseline_energy=1 << 20)
    before = twins.python.state.probation_windows
    for _, reading in days:
        world.irrigate(twins.wake(reading, image))
        if twins.python.state.probation_windows != before:
            break
    twins.compare()
    assert twins.python.state.distrusted == distrusted


def test_probes_that_contradict_the_balance_are_set_aside_and_taken_back() -> None:
    twins, world, seen = Twins(settings(), sanitize=True), BucketField(8, rain_chance=0.0), []
    for day, reading in wakes(world, 90):
        # Pulled half out of the soil for twelve days: below what any water balance would believe.
        drop = min(max(reading.time_s - PLANTING_S - 40 * 86_400, 0) // 900 * 40, 1200) if day < 52 else 0
        for name in PROBES:
            setattr(reading, name, max(getattr(reading, name) - drop, 0))
        world.irrigate(twins.wake(reading, random_model(1)))
        seen.append(twins.python.state.disagreeing)
    twins.compare()
    assert (seen[0], max(seen), seen[-1]) == (0, 1, 0)


def test_a_memory_that_could_not_be_is_not_gone_on_from() -> None:
    twins = Twins(settings())
    live(twins, BucketField(1), 20)
    right = twins.python.state
    accepts = library(sanitize=True).noria_core_is_valid

    def accepted(**changes: int) -> bool:
        state = State.unpack(right.pack())
        for name, value in changes.items():
            setattr(state, name, value)
        return bool(accepts(ctypes.create_string_buffer(state.pack())))

    assert accepted()
    assert accepted(mode=max(Mode), root_depth_mm=3000)
    wrong = {
        "initialised": (0, 2),
        "mode": (max(Mode) + 1,),
        "probes_used": (4,),
        "awc_e4": (0, 32_767),
        "root_depth_mm": (0, -1, 3001),
        "depletion_um": (-1,),
        "dose_today_um": (-1,),
    }
    for name, values in wrong.items():
        for value in values:
            assert not accepted(**{name: value}), (name, value)
