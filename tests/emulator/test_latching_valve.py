"""A node with a latching valve, which stays where its last pulse put it: whatever happens, it ends up closed."""

from __future__ import annotations

import pytest
from plot import START_S, Plot

from shared_models.codes import EventCode, ResetCause, Valve
from shared_models.frames import Event

SOON_S = START_S + 2 * 86400 + 6 * 3600
HANG = b"\xfe\xe7"  # b .


@pytest.fixture
def thirsty(start):
    """A node that waters on its first day after planting, and the moment its valve opened."""

    def begin(plot: Plot | None = None):
        node, plot, ether = start(
            plot=plot,
            valve=Valve.LATCHING,
            threshold_permille=30,
            planting_time_s=SOON_S,
            commissioning_days=2,
            telemetry_period_h=1,
        )
        time_s = SOON_S
        while not node.valve_open:
            time_s += 300
            assert time_s < SOON_S + 6 * 86400, "the node never watered"
            node.run_until(time_s)
        return node, plot, ether, plot.valve_log[-1][1]

    return begin


def test_a_dose_takes_two_pulses_and_is_as_long_as_with_a_held_valve(thirsty) -> None:
    node, plot, _, opened = thirsty()
    node.run_until(opened + 3 * 3600)
    assert not node.valve_open
    assert plot.doses_s() == [pytest.approx(7200, abs=5)]


def test_a_reset_in_mid_dose_closes_it_at_once(thirsty) -> None:
    node, plot, ether, opened = thirsty()
    node.run_until(opened + 1800)
    assert node.valve_open
    node.power_cycle()
    assert node.valve_open, "a latching valve does not know of resets"
    node.run_until(node.time_s + 2)
    assert not node.valve_open
    assert plot.doses_s()[-1] == pytest.approx(1802, abs=3)
    node.run_until(opened + 3 * 3600)
    booted = [event for event in ether.decoded(Event) if event.code is EventCode.BOOTED]
    assert booted[-1].reset_cause in (ResetCause.POWER_ON, ResetCause.BROWN_OUT)


def test_a_hung_core_is_reset_and_the_valve_closed(thirsty, firmware) -> None:
    node, plot, ether, opened = thirsty()
    node.run_until(opened + 100)
    spot = firmware.symbols["noria_policy_decide"] & ~1
    healthy = bytes(node._board.engine.mem_read(spot, 2))
    node._board.engine.mem_write(spot, HANG)
    node._board.engine.ctl_flush_tb()
    node.run_until(opened + 1000)
    assert node.counters.watchdog_resets >= 1
    assert not node.valve_open
    assert plot.doses_s()[-1] < 1000
    node._board.engine.mem_write(spot, healthy)
    node._board.engine.ctl_flush_tb()
    node.run_until(opened + 7200)
    booted = [event for event in ether.decoded(Event) if event.code is EventCode.BOOTED]
    assert booted[-1].reset_cause is ResetCause.WATCHDOG


class Sagging(Plot):
    """A cell that sags below the detector's threshold under every transmission, and recovers."""

    def internal_ohm(self, time_s: float) -> float:
        del time_s
        return 9.0


def test_the_sag_of_a_transmission_ends_no_dose(thirsty) -> None:
    node, plot, ether, opened = thirsty(Sagging())
    uplinks = len(ether.uplinks)
    node.run_until(opened + 3 * 3600)
    assert len(ether.uplinks) > uplinks
    assert plot.doses_s() == [pytest.approx(7200, abs=5)]
    assert node.counters.resets == 1


def test_a_supply_that_falls_while_it_is_open_closes_it_while_there_is_still_enough(thirsty) -> None:
    node, plot, ether, opened = thirsty()
    node.run_until(opened + 1000)
    assert node.valve_open
    plot.battery = 2100
    node.run_until(opened + 1100)
    assert not node.valve_open
    assert plot.doses_s()[-1] < 1100
    assert node.counters.resets == 1
    plot.battery = 2950
    node.run_until(opened + 4000)
    assert EventCode.LOW_BATTERY in [event.code for event in ether.decoded(Event)]
