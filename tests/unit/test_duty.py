"""A site's downlinks keep to their share of the air, and nodes that had to wait go first."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.clock import Clock
from gateway.config import DownlinkSection
from gateway.duty import Duty
from gateway.store import Store
from shared_models.airtime import airtime_s

START_S = 1_777_593_600


class Air:
    """A store, a clock and a budget."""

    def __init__(self, folder: Path, **limits: object) -> None:
        self.store, self.clock = Store(folder / "gateway.db"), Clock("simulated", START_S)
        self.duty = Duty(self.store, self.clock, DownlinkSection(**limits))

    def send(self, taken_s: float, *, waited: bool = False) -> bool:
        if not self.duty.has_room(taken_s, waited=waited):
            return False
        self.duty.sent(taken_s)
        return True

    def hold(self, dev_eui: str) -> None:
        self.store.execute(
            "INSERT OR IGNORE INTO assignments (campaign, sequence, action, version, model_id, received_s)"
            " VALUES (1, 1, 'run', 2, 3, 0)"
        )
        self.store.execute(
            "INSERT INTO updates (campaign, dev_eui, state, changed_s, held_s) VALUES (1, ?, 'sending', 0, ?)",
            (dev_eui, self.clock.now_s()),
        )


@pytest.mark.parametrize(("limits", "budget_s"), [({}, 36), ({"window": "rx2"}, 360), ({"airtime_s_per_hour": 9}, 9)])
def test_an_hour_holds_what_the_duty_cycle_allows(tmp_path: Path, limits: dict[str, object], budget_s: float) -> None:
    air = Air(tmp_path, **limits)
    sent = 0
    while air.send(1.5):
        sent += 1
    assert sent == int(budget_s / 1.5)
    air.clock.advance(START_S + 3600)
    assert air.send(1.5)
    assert air.store.counters()["downlink_airtime_ms"] == 1500 * (sent + 1)


def test_a_budget_below_one_frame_delays_but_never_stops_for_good(tmp_path: Path) -> None:
    air = Air(tmp_path, airtime_s_per_hour=1)
    assert air.send(2.8)
    assert not air.send(2.8)
    air.clock.advance(START_S + 3600)
    assert air.send(2.8)


def test_the_last_half_is_for_those_that_had_to_wait(tmp_path: Path) -> None:
    air = Air(tmp_path, airtime_s_per_hour=10)
    air.hold("aa")
    assert [air.send(1) for _ in range(6)] == [True] * 5 + [False]
    assert [air.send(1, waited=True) for _ in range(6)] == [True] * 5 + [False]


def test_what_waits_at_the_network_server_counts(tmp_path: Path) -> None:
    air = Air(tmp_path, airtime_s_per_hour=10, queued=2)
    air.store.execute("INSERT INTO in_flight VALUES ('aa', 'x', ?, 0, NULL, 1, 9.5)", (START_S,))
    assert not air.duty.has_room(1, waited=False)
    assert air.duty.has_room(0.4, waited=False)
    air.store.execute("INSERT INTO in_flight VALUES ('bb', 'y', ?, 0, NULL, 1, 0)", (START_S,))
    assert not air.duty.has_room(0.4, waited=False), "as many as may wait at once"


def test_a_frame_costs_what_its_window_sends_it_at(tmp_path: Path) -> None:
    first, second = Air(tmp_path), Air(tmp_path / "second", window="rx2")
    assert first.duty.airtime_s(5, 51) == airtime_s(5, 51)
    assert first.duty.airtime_s(None, 51) == second.duty.airtime_s(5, 51) == airtime_s(0, 51)
