"""The node's clock against a network's: drift found within the resolution of seconds, mad times refused."""

from __future__ import annotations

import ctypes
import random
from dataclasses import dataclass, field

import pytest
from update_cases import LIBRARY

from shared_models.codes import Board, Crop
from shared_models.settings import Settings

DAY, WEEK, YEAR = 86400, 7 * 86400, 31_557_600
PLANTING_S = 1_778_306_400
PAGE = Settings(
    dev_eui="a1b2c3d4e5f60718",
    board=Board.STM32L072,
    crop=Crop.MAIZE,
    planting_time_s=PLANTING_S,
    season_days=120,
    season=2026,
).pack()


class Keeper(ctypes.Structure):
    _fields_ = (
        ("asked_s", ctypes.c_uint32),
        ("believed_s", ctypes.c_uint32),
        ("suspected_s", ctypes.c_uint32),
        ("suspicion_s", ctypes.c_int32),
        ("trim_q4", ctypes.c_int16),
        ("left_s", ctypes.c_int8),
        ("state", ctypes.c_uint8),
    )


class Correction(ctypes.Structure):
    _fields_ = (("step_s", ctypes.c_int32), ("trim_ppm", ctypes.c_int32), ("believed", ctypes.c_bool))


LIBRARY.noria_timekeeper_sync.restype = Correction
LIBRARY.noria_timekeeper_due.restype = ctypes.c_bool
LIBRARY.noria_timekeeper_trusts.restype = ctypes.c_bool


@dataclass
class Clock:
    """An RTC with a crystal, and a node that looks after it once a day."""

    drift_ppm: float = 0.0
    lost: bool = False
    error_s: float = 0.0
    time_s: float = float(PLANTING_S)
    keeper: Keeper = field(default_factory=Keeper)
    trim_ppm: int = 0
    questions: int = 0

    def __post_init__(self) -> None:
        self.trim_ppm = LIBRARY.noria_timekeeper_boot(ctypes.byref(self.keeper), not self.lost)

    @property
    def trusted(self) -> bool:
        return LIBRARY.noria_timekeeper_trusts(ctypes.byref(self.keeper))

    def told(self, network_s: float) -> Correction:
        """The network answers now."""
        rtc_s = ctypes.c_uint32(int(self.time_s + self.error_s))
        correction = LIBRARY.noria_timekeeper_sync(
            ctypes.byref(self.keeper), PAGE, rtc_s, ctypes.c_uint32(int(network_s))
        )
        self.trim_ppm = correction.trim_ppm
        self.error_s += correction.step_s
        return correction

    def live(self, days: int, network_s=lambda time_s: time_s) -> None:
        """Ask when it is time to; ``network_s`` returns 0 for no answer."""
        for _ in range(days):
            self.time_s += DAY
            self.error_s += DAY * (self.drift_ppm + self.trim_ppm) / 1e6
            if LIBRARY.noria_timekeeper_due(
                ctypes.byref(self.keeper), ctypes.c_uint32(int(self.time_s + self.error_s))
            ):
                self.questions += 1
                self.told(network_s(self.time_s))


@pytest.mark.parametrize("drift_ppm", [-140.0, -30.0, 0.4, 30.0, 140.0])
def test_drift_is_trimmed_away_within_weeks(drift_ppm: float) -> None:
    clock = Clock(drift_ppm)
    noise = random.Random(1)
    clock.live(28, lambda time_s: time_s + noise.uniform(-0.5, 0.5))
    assert clock.trim_ppm == pytest.approx(-drift_ppm, abs=2.0)
    for _ in range(8):
        clock.live(7, lambda time_s: time_s + noise.uniform(-0.5, 0.5))
        assert abs(clock.error_s) < 3.0


def test_it_asks_daily_while_in_doubt_and_then_weekly() -> None:
    clock = Clock(lost=True)
    clock.live(10, lambda _: 0)
    assert clock.questions == 10
    assert not clock.trusted
    clock.live(1)
    assert clock.trusted
    clock.questions = 0
    clock.live(70)
    assert clock.questions == 10


def test_a_network_without_the_time_is_asked_once_a_day_at_most() -> None:
    clock = Clock(30.0)
    clock.live(365, lambda _: 0)
    assert clock.questions <= 365
    assert clock.trim_ppm == 0
    clock.live(1)
    assert abs(clock.error_s) < 2


def test_one_mad_time_is_not_believed_by_a_clock_that_runs() -> None:
    clock = Clock()
    clock.live(8)
    for lie_s in (4000, -4000, 90 * DAY, -90 * DAY):
        assert not clock.told(clock.time_s + lie_s).believed
        clock.live(1)
        assert abs(clock.error_s) < 1


def test_a_second_opinion_counts_only_half_a_day_later() -> None:
    clock = Clock(error_s=-50 * DAY)
    assert not clock.told(clock.time_s).believed
    for _ in range(11):
        clock.time_s += 3600
        assert not clock.told(clock.time_s).believed
    clock.time_s += 3600
    correction = clock.told(clock.time_s)
    assert (correction.believed, correction.step_s) == (True, 50 * DAY)
    assert correction.trim_ppm == 0, "a step says nothing about the crystal"


def test_two_opinions_that_differ_are_no_confirmation() -> None:
    clock = Clock()
    clock.live(8)
    for day in range(30):
        clock.time_s += DAY
        assert not clock.told(clock.time_s + 5000 + 500 * day).believed


@pytest.mark.parametrize("network_s", [0, 1, 86_400, PLANTING_S - YEAR - DAY, PLANTING_S + 20 * YEAR + DAY, 2**32 - 1])
@pytest.mark.parametrize("lost", [False, True])
def test_times_far_from_the_fields_are_never_believed(lost: bool, network_s: int) -> None:  # noqa: FBT001
    clock = Clock(lost=lost)
    for _ in range(3):
        clock.time_s += DAY
        assert not clock.told(network_s).believed
    assert clock.trusted is not lost


def test_a_lost_clock_believes_the_first_plausible_time() -> None:
    clock = Clock(error_s=-400 * DAY, lost=True)
    correction = clock.told(clock.time_s)
    assert (correction.believed, correction.step_s) == (True, 400 * DAY)
    assert clock.trusted


def test_steps_within_the_hour_do_not_teach_a_drift_no_crystal_has() -> None:
    clock = Clock()
    clock.live(8)
    for _ in range(20):
        clock.time_s += WEEK
        assert clock.told(clock.time_s + clock.error_s + 3000).step_s == 3000
        assert clock.trim_ppm == 0


def test_no_answer_whatever_breaks_its_bounds() -> None:
    chance = random.Random(7)
    clock = Clock(lost=True)
    for _ in range(20_000):
        clock.time_s = min(clock.time_s + chance.choice([1, 60, DAY, WEEK, YEAR // 4]), 2**32 - 1 - clock.error_s)
        answer = chance.choice(
            [chance.getrandbits(32), int(clock.time_s + clock.error_s) + chance.randint(-5000, 5000)]
        )
        correction = clock.told(answer & 0xFFFFFFFF)
        assert -300 <= correction.trim_ppm <= 300
        told_s = clock.time_s + clock.error_s
        if correction.believed:
            assert PLANTING_S - YEAR - 2 <= told_s <= PLANTING_S + 20 * YEAR + 2
        clock.time_s, clock.error_s = float(PLANTING_S), min(max(told_s, PLANTING_S), 4e9) - PLANTING_S
