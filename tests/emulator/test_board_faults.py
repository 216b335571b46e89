"""What a field does to a board: a supply that fails, flash torn in mid-write, sensors and cores that fail."""

from __future__ import annotations

import pytest
from plot import START_S, Plot

from nodes.emulator.flash import PowerCutError
from shared_models.codes import Board, ResetCause
from shared_models.frames import Telemetry


class WeakPlot(Plot):
    """A plot whose battery has an inner resistance."""

    ohm = 15.0

    def internal_ohm(self, time_s: float) -> float:
        del time_s
        return self.ohm


def cause(node, firmware) -> ResetCause:
    """What the firmware has noted."""
    return ResetCause(node._board.engine.mem_read(firmware.symbols["reset_cause"], 1)[0])


def let_fault(node, firmware) -> None:
    """The core takes a fault at its next instruction."""
    node._board._pc = firmware.symbols["noria_board_fault"] | 1
    node._board._asleep = False


def test_a_node_knows_why_it_started(start, firmware) -> None:
    node, _, _ = start()
    node.run_until(START_S + 60)
    assert cause(node, firmware) == ResetCause.POWER_ON
    let_fault(node, firmware)
    node.run_until(START_S + 120)
    assert cause(node, firmware) == ResetCause.WATCHDOG
    node.power_cycle(calendar_kept=False)
    node.run_until(START_S + 180)
    assert cause(node, firmware) == ResetCause.POWER_ON


def test_a_fault_closes_the_valve_at_once_and_waits_for_the_watchdog(start, firmware) -> None:
    node, _, _ = start()
    node.run_until(START_S + 60)
    node._board.gpiob.write(0x18, 1 << 1)
    assert node.valve_open
    let_fault(node, firmware)
    node.run_until(START_S + 61)
    assert not node.valve_open
    assert node.counters.watchdog_resets == 0
    node.run_until(START_S + 120)
    assert node.counters.watchdog_resets == 1
    node.run_until(START_S + 4000)
    assert node.wakes >= 4


def test_a_transmission_that_a_tired_battery_cannot_bear_is_a_brown_out_not_the_end(start, firmware) -> None:
    node, plot, ether = start(plot=WeakPlot(), telemetry_period_h=1)
    node.run_until(START_S + 6 * 3600)
    assert node.counters.brown_outs > 0
    assert node.counters.watchdog_resets == 0
    assert (
        cause(node, firmware)
        == {Board.STM32L072: ResetCause.POWER_ON, Board.STM32L432: ResetCause.BROWN_OUT}[firmware.board]
    )
    plot.ohm = 1.0
    resets, frames = node.counters.resets, len(ether.uplinks)
    node.run_until(START_S + 30 * 3600)
    assert node.counters.resets == resets
    assert len(ether.uplinks) > frames + 20


def test_a_flat_battery_holds_the_node_until_it_is_changed(start) -> None:
    node, plot, _ = start()
    node.run_until(START_S + 3600)
    plot.battery = 1500
    wakes = node.wakes
    node.run_until(START_S + 2 * 3600)
    assert node.wakes <= wakes + 1
    plot.battery = 3000
    node.run_until(START_S + 4 * 3600)
    assert node.wakes >= wakes + 7


@pytest.mark.parametrize("fault", ["silent", "corrupt", "stuck"])
def test_an_air_sensor_that_fails_is_missing_not_believed(start, fault) -> None:
    node, _, ether = start(telemetry_period_h=1)
    node.run_until(START_S + 7200)
    setattr(node.i2c_bus if fault == "stuck" else node.air_sensor, fault, True)
    node.run_until(START_S + 12 * 3600)
    assert ether.decoded(Telemetry)[-1].sensor_fault
    assert node.wakes == 48
    setattr(node.i2c_bus if fault == "stuck" else node.air_sensor, fault, False)
    node.run_until(START_S + 24 * 3600)
    assert not ether.decoded(Telemetry)[-1].sensor_fault
    assert node.counters.resets == 1


def test_flash_torn_in_any_program_leaves_a_node_that_starts(start, firmware) -> None:
    nmis = 0
    for operation in (0, 1, 7, 20, 40):
        node, _, _ = start(telemetry_period_h=1)
        node.cut_power_at(operation, torn=True, seed=operation + 1)
        with pytest.raises(PowerCutError):
            node.run_until(START_S + 9 * 86400)
        node.power_cycle()
        wakes = node.wakes
        node.run_until(node.time_s + 7200)
        assert node.wakes >= wakes + 7
        assert node.counters.watchdog_resets == 0
        nmis += node.counters.nmis
    assert (nmis > 0) == (firmware.board == Board.STM32L432)


def test_an_nmi_that_flash_did_not_raise_ends_in_the_watchdog(start, firmware) -> None:
    node, _, _ = start()
    node.run_until(START_S + 60)
    node._board._nmi_pending = True
    node.run_until(START_S + 120)
    assert node.counters.watchdog_resets == 1
    assert cause(node, firmware) == ResetCause.WATCHDOG
