"""What a frame costs the air is what Semtech's calculator and the regional parameters say."""

from __future__ import annotations

import pytest

from shared_models.airtime import (
    MAX_PAYLOAD,
    airtime_s,
    downlink_budget_s,
    payload_limit_bytes,
    spreading_factor,
)


@pytest.mark.parametrize(
    ("data_rate", "payload", "milliseconds", "within"),
    [(0, 51, 2793.5, 0.1), (5, 51, 118.0, 0.1), (5, 1, 46.3, 0.1), (3, 51, 390.1, 0.6), (0, 38, 2465.8, 0.1)],
)
def test_airtime_agrees_with_published_figures(
    data_rate: int, payload: int, milliseconds: float, within: float
) -> None:
    # 125 kHz, CR 4/5, 8 preamble symbols, explicit header, CRC, low data rate optimisation.
    assert airtime_s(data_rate, payload) * 1000 == pytest.approx(milliseconds, abs=within)


def test_airtime_grows_with_payload_and_spreading() -> None:
    for data_rate, limit in enumerate(MAX_PAYLOAD):
        times = [airtime_s(data_rate, size) for size in range(limit + 1)]
        assert times == sorted(times)
        assert not data_rate or times[0] < airtime_s(data_rate - 1, 0)
        assert spreading_factor(data_rate) == 12 - data_rate


def test_an_unknown_data_rate_has_the_smallest_payload() -> None:
    assert [payload_limit_bytes(dr) for dr in (None, -1, 0, 3, 5, 9)] == [51, 51, 51, 115, 222, 51]


def test_a_gateways_hour_is_thirty_six_seconds_on_uplink_channels_and_ten_times_that_on_rx2() -> None:
    assert (downlink_budget_s("rx1"), downlink_budget_s("rx2")) == (36.0, 360.0)
    assert downlink_budget_s("rx1", 24 * 3600) == 864.0
