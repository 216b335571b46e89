"""A head's forecasts have to earn their place on the very field, horizon by horizon."""

from __future__ import annotations

import numpy as np
import pytest
from core_cases import random_model

from shared_models import windows
from shared_models.moments import CLASSES
from shared_models.network import ModelImage, head_weights, quantise_head
from shared_models.state import DAWNS, State
from shared_models.windows import FORECAST_AFTER, forecasts_better

LOSS_E4, AVERAGE_E4 = 20, 30
"""What the soil loses in a day, and what its average says."""


def dry_down(outputs: list[int], days: int, state: State | None = None) -> tuple[State, list[list[bool]]]:
    """A node whose head says ``outputs`` every day; whether its forecasts were better, day by day."""
    state, better = state or State(), []
    state.dry_rate_q4 = AVERAGE_E4 * 16
    state.outputs = outputs
    for day in range(days):
        probe = [9000 - LOSS_E4 * (day - back) for back in range(DAWNS)]
        state.dawn_e4 = [*probe, *probe]
        windows.finish(state, 1, calm=day > 0, uptake=0, mean_e4=probe[0])
        windows.begin(state, [0] * 8, known=True)
        better.append([forecasts_better(state, k) for k in range(CLASSES)])
    return state, better


def test_a_head_that_knows_the_field_earns_every_horizon_after_enough_windows() -> None:
    _, better = dry_down([0, 10, 10, 10], FORECAST_AFTER + 6)
    for k in range(CLASSES):
        earned = [day for day, flags in enumerate(better) if flags[k]]
        assert earned[0] == FORECAST_AFTER + k, "windows end on day k + 1 at the earliest"
        assert earned[-1] == len(better) - 1


@pytest.mark.parametrize("outputs", [[0, 0, 0, 0], [0, -10, -10, -10], [0, 25, 25, 25]])
def test_a_head_that_is_no_better_than_the_average_never_does(outputs: list[int]) -> None:
    _, better = dry_down(outputs, 3 * FORECAST_AFTER)
    assert not any(flag for flags in better for flag in flags)


def test_each_horizon_stands_for_itself() -> None:
    _, better = dry_down([0, -40, 10, 60], 3 * FORECAST_AFTER)
    assert better[-1] == [False, True, False]


def test_a_head_that_was_right_once_loses_its_say_in_a_season_unlike_that() -> None:
    """A record that forgets: what three good months made, one bad one unmakes; a whole record would take as long."""
    state, better = dry_down([0, 10, 10, 10], 90)
    assert all(better[-1])
    state.calm = [0] * CLASSES
    _, better = dry_down([0, -10, -10, -10], 45, state)
    assert better[5] == [True] * CLASSES
    assert better[-1] == [False] * CLASSES


def test_a_lead_that_a_single_window_makes_is_luck() -> None:
    state, _ = dry_down([0, 0, 0, 0], 2 * FORECAST_AFTER)
    windows.score_forecast(state, 0, 100)
    assert state.forecast_lead[0] == 0
    state.start_forecast[0] = 60
    windows.score_forecast(state, 0, 100)
    assert state.forecast_lead[0] > 0
    assert not forecasts_better(state, 0)
    for _ in range(3):
        windows.score_forecast(state, 0, 100)
    assert forecasts_better(state, 0)


def test_the_worst_lead_fits_the_record() -> None:
    state = State()
    state.start_forecast[0] = -128
    for _ in range(2000):
        windows.score_forecast(state, 0, 127)
    assert -(1 << 31) <= state.forecast_lead[0] < 0
    assert state.forecast_spread[0] < 1 << 32
    State.unpack(state.pack())


def test_a_new_head_earns_by_what_it_would_have_said_of_the_seasons_windows() -> None:
    """A head of constants, for these days excited no unit: 10 steps are the truth of every horizon."""
    state, _ = dry_down([0, 0, 0, 0], 2 * FORECAST_AFTER)
    for steps, earned in ((10, True), (5, True), (21, False), (-10, False), (0, False)):
        windows.credit(state, head_of_constants(steps))
        assert [forecasts_better(state, k) for k in range(CLASSES)] == [earned] * CLASSES, steps


@pytest.mark.parametrize("days", [1, FORECAST_AFTER])
def test_of_too_few_windows_a_head_inherits_its_predecessors_record(days: int) -> None:
    state, better = dry_down([0, 10, 10, 10], 2 * FORECAST_AFTER)
    assert all(better[-1])
    windows.reset(state)
    dry_down([0, 10, 10, 10], days, state)
    record = list(state.forecast_lead)
    windows.reset_trust(state)
    windows.credit(state, head_of_constants(-10))
    assert state.forecast_lead == record
    windows.reset_forecasts(state)
    assert not any(forecasts_better(state, k) for k in range(CLASSES)), "a new backbone has no predecessor"


@pytest.mark.parametrize("seed", range(8))
def test_a_new_heads_lead_is_that_of_all_the_windows_behind_the_sums(seed: int) -> None:
    rng = np.random.default_rng(seed)
    phi = np.concatenate([rng.integers(0, 200, (90, 8)), np.ones((90, 1), np.int64)], axis=1)
    truth = rng.normal(0, 0.08, 9)
    y = np.clip(np.rint(phi @ truth + rng.normal(0, 12, 90)), -127, 127).astype(int)
    image = quantise_head(random_model(seed), np.stack([np.zeros(9), *[truth + rng.normal(0, 0.02, 9)] * CLASSES]))
    said = phi @ head_weights(image)[1]
    leads = y**2 - (y - said) ** 2
    gram = (phi.T @ phi)[np.triu_indices(9)]
    lead, spread = windows.record_of(image, 0, gram.tolist(), (phi.T @ y).tolist(), int(y @ y), len(y))
    assert lead == pytest.approx(leads.sum(), abs=0.005 * float((said**2).sum()) + 0.05 * float(np.abs(y).sum()))
    assert spread == pytest.approx(4 * (said**2).sum() * (y**2).mean() / 256, rel=0.02), "from sums it is an estimate"


def head_of_constants(steps: int) -> ModelImage:
    """A model whose forecasts of all horizons are ``steps`` whatever it sees."""
    rows = np.zeros((4, 9))
    rows[1:, -1] = steps
    return quantise_head(random_model(1), rows)
