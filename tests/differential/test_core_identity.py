"""Invariant I5: the firmware's C and the Python reference give identical bits, on good days and on bad ones."""

from __future__ import annotations

import random

import numpy as np
import pytest
from core_cases import PLANTING_S, BucketField, random_model, settings, spoil

from nodes.hostcore import HostNode, forward, verify
from shared_models.codes import Board, Crop, Mode
from shared_models.moments import CLASSES, MAX_WINDOWS, TARGETS, Snapshot
from shared_models.network import BIAS_LIMIT, Layer, ModelImage, quantise_head, zero_head
from shared_models.reference import NodeReference, Outcome, Reading
from shared_models.settings import Settings
from shared_models.state import State
from shared_models.windows import FORECAST_AFTER


class Twins:
    """The reference and the C core, fed alike and compared after every wake."""

    def __init__(self, page: Settings, *, sanitize: bool = False) -> None:
        self.python = NodeReference(page)
        self.c = HostNode(page, sanitize=sanitize)
        self.wakes = 0

    def wake(self, reading: Reading, image: ModelImage | None) -> Outcome:
        outcome = self.python.wake(reading, image)
        assert self.c.wake(reading, image) == outcome, f"wake {self.wakes}"
        if outcome.dawn or outcome.decided or self.wakes % 16 == 0:
            self.compare()
        self.wakes += 1
        return outcome

    def compare(self) -> None:
        if self.python.state.pack() != self.c.state_bytes:
            c, python = self.c.state, self.python.state
            differing = {
                name: (getattr(python, name), getattr(c, name))
                for name in State.__slots__
                if getattr(python, name) != getattr(c, name)
            }
            raise AssertionError(f"wake {self.wakes}: {differing}")
        assert self.python.snapshot().encode() == self.c.encode_snapshot()

    def reset(self) -> None:
        """A reset: what the store kept is all there is."""
        self.python = NodeReference(self.python.settings, State.unpack(self.python.state.pack()))

    def override(self, kind: int, value: int) -> None:
        assert self.python.override(kind, value) == self.c.override(kind, value)

    def rival(self, image: ModelImage | None) -> None:
        self.python.rival(image)
        self.c.rival(image)

    def cut_short(self, missing_s: int) -> None:
        self.python.cut_short(missing_s)
        self.c.cut_short(missing_s)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_season_in_a_field_is_identical_bit_for_bit(seed: int) -> None:
    image = quantise_head(random_model(seed), np.random.default_rng(seed).normal(0, 0.02, (4, 9)))
    world, twins = BucketField(seed), Twins(settings(crop=list(Crop)[seed]))
    for _, readings in world.days(140):
        for reading in readings:
            outcome = twins.wake(reading, image)
            world.irrigate(outcome)
            if outcome.dawn:
                twins.rival(zero_head(image))
    twins.compare()
    record = twins.python.probation
    assert record.rival_energy == record.baseline_energy != record.model_energy, "a zero head is the physics"
    assert world.water_mm > 100
    assert twins.python.snapshot().count[0] > 50
    assert Snapshot.decode(twins.c.encode_snapshot()).count.tolist() == twins.python.snapshot().count.tolist()


def test_a_new_heads_record_is_identical_whatever_the_head_and_the_sums() -> None:
    rng = np.random.default_rng(4)
    base, twins = random_model(5), Twins(settings(), sanitize=True)
    readings = [reading for _, day in BucketField(5).days(40) for reading in day]
    twins.wake(readings[0], base)
    for reading in readings[1:120]:
        fresh = twins.python.state.model_tag
        windows = int(rng.choice([0, 1, 60, MAX_WINDOWS]))
        phi = np.concatenate([rng.integers(0, 256, (3, 8)), np.ones((3, 1), np.int64)], axis=1)
        state = twins.python.state
        state.gram = (phi.T @ phi * windows // 3)[np.triu_indices(9)].tolist() * CLASSES
        state.moment = [int(value) for value in rng.integers(-255 * 127, 255 * 127 + 1, TARGETS * 9) * windows]
        state.energy = [int(value) for value in rng.integers(0, 127**2 + 1, TARGETS) * windows]
        state.count = [windows] * CLASSES
        twins.c.state_bytes = state.pack()
        head = Layer(
            rng.choice([-128, -1, 0, 1, 127], (4, 8)).astype(np.int8),
            rng.choice([-BIAS_LIMIT, -5, 0, 70_000, BIAS_LIMIT], 4).astype(np.int32),
            int(rng.integers(1 << 30, 1 << 31)),
            -int(rng.choice([0, 5, 9, 31])),
            base.second.output_zero,
            0,
        )
        twins.wake(reading, base.with_head(head))
        twins.compare()
        if twins.python.state.model_tag != fresh and windows >= FORECAST_AFTER:
            assert twins.python.state.forecast_windows == [windows] * CLASSES


def test_a_season_of_broken_sensors_resets_and_new_models_is_identical() -> None:
    rng, rivals = random.Random(8), random.Random(9)
    first, other = random_model(7), random_model(8)
    images = [first, quantise_head(first, np.full((4, 9), 0.01)), zero_head(first), other, None]
    world, twins, modes = BucketField(3, rain_chance=0.3), Twins(settings(), sanitize=True), set()
    image: ModelImage | None = first
    dead: str | None = None
    for day, readings in world.days(150):
        if rng.random() < 0.08:
            dead = rng.choice(["vwc_shallow_e4", "vwc_deep_e4", "both", "air_temp_c100", "light_w_m2", None])
        if rng.random() < 0.05:
            image = rng.choice(images)
        skipped = rng.random() < 0.05
        for reading in readings:
            if skipped and rng.random() < 0.9:
                continue
            for name in ("vwc_shallow_e4", "vwc_deep_e4") if dead == "both" else (dead,) if dead else ():
                setattr(reading, name, rng.choice([-32768, 7300]))
            spoil(reading, rng, 0.02)
            reading.battery_mv = 2250 if day % 40 == 39 else 2900
            outcome = twins.wake(reading, image)
            world.irrigate(outcome)
            if outcome.dawn and rivals.random() < 0.5:
                twins.rival(rivals.choice(images))
            modes.add(outcome.mode)
            if outcome.open_s and rng.random() < 0.3:
                twins.cut_short(rng.randrange(2 * outcome.open_s))
            if rng.random() < 0.002:
                twins.override(rng.randrange(5), rng.choice([0, 150, 1000, 2000, reading.time_s + 86_400]))
            if rng.random() < 0.002:
                twins.reset()
        twins.compare()
        if day == 149:
            break
    assert modes == set(Mode)


def random_page(rng: random.Random) -> Settings:
    start = rng.randrange(0, 23)
    return settings(
        board=rng.choice(list(Board)),
        crop=rng.choice(list(Crop)),
        planting_time_s=PLANTING_S + rng.randrange(-20, 20) * 86_400,
        season_days=rng.choice([1, 30, 130, 400]),
        utc_offset_min=rng.choice([-840, -1, 0, 60, 840]),
        application_rate_e2_mm_h=rng.choice([1, 500, 65_535]),
        dose_e1_mm=rng.choice([1, 200, 1000]),
        threshold_permille=rng.choice([1, 200, 1000]),
        awc_prior_permille=rng.choice([0, 1, 150, 400]),
        max_on_s=rng.choice([1, 14_400, 86_400]),
        min_interval_h=rng.choice([0, 20, 255]),
        daily_cap_mm=rng.choice([0, 40, 255]),
        seasonal_cap_mm=rng.choice([0, 100, 65_535]),
        window_start_h=start,
        window_end_h=rng.randrange(start + 1, 25),
        telemetry_period_h=rng.choice([1, 24, 255]),
        statistics_period_h=rng.choice([1, 168, 65_535]),
        root_depth_max_cm=rng.choice([10, 30, 100, 300]),
    )


@pytest.mark.parametrize("seed", range(12))
def test_any_readings_under_any_settings_are_identical_and_without_undefined_behaviour(seed: int) -> None:
    rng = random.Random(seed)
    twins = Twins(random_page(rng), sanitize=True)
    images = [random_model(seed), random_model(seed + 100, scale=0.9), None]
    time_s, image = PLANTING_S - 10 * 86_400, images[0]
    for _ in range(2500):
        jump = rng.random()
        time_s += 900 if jump < 0.9 else rng.choice([0, 43_200, 86_400, 40 * 86_400, -86_400, -900])
        time_s %= 1 << 32
        if rng.random() < 0.001:
            time_s = rng.choice([0, 1, (1 << 32) - 1, PLANTING_S, 30_000])
        if rng.random() < 0.01:
            image = rng.choice(images)
        values = [rng.randrange(-400, 7201), rng.randrange(-400, 7201), 2000, rng.randrange(-4000, 6500), 5000]
        reading = spoil(Reading(time_s, *values, light_w_m2=rng.randrange(0, 1601)), rng, 0.01)
        reading.battery_mv = rng.choice([3000, 2450, 2449, 2300, 2299, 0, -32768])
        outcome = twins.wake(reading, image)
        assert outcome.open_s <= twins.python.settings.max_on_s
        if rng.random() < 0.01:
            twins.override(rng.randrange(1, 4), rng.choice([1, 1000, time_s, (time_s + 90_000) % (1 << 32)]))
        if rng.random() < 0.01:
            twins.cut_short(rng.randrange(1 << 32))
    twins.compare()


def test_the_engine_in_c_equals_the_reference_for_random_and_extreme_models() -> None:
    inputs = np.random.default_rng(1).integers(-128, 128, (500, 24)).astype(np.int8)
    inputs = np.concatenate([inputs, np.full((1, 24), -128, np.int8), np.full((1, 24), 127, np.int8)])
    for seed, scale in enumerate([2.0**-20, 0.0005, 0.003, 0.02, 0.4, 0.999]):
        image = random_model(seed, scale)
        expected, got = image.forward(inputs), forward(image, inputs, sanitize=True)
        assert np.array_equal(expected[0], got[0])
        assert np.array_equal(expected[1], got[1])


def test_c_accepts_a_model_image_exactly_when_python_does() -> None:
    rng = random.Random(2)
    packed = random_model(1).pack()
    assert verify(packed)
    for _ in range(300):
        damaged = bytearray(packed)
        for _ in range(rng.choice([1, 1, 3])):
            damaged[rng.randrange(len(packed))] ^= 1 << rng.randrange(8)
        try:
            ModelImage.unpack(bytes(damaged))
            accepted = True
        except ValueError:
            accepted = False
        # C leaves the backbone's hash to the update code, so it may accept what only the hash betrays.
        assert verify(bytes(damaged), sanitize=True) or not accepted
