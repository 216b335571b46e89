"""The shipped ELF keeps its RTC by the network's time: crystals drift, batteries go flat, networks lie."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from plot import START_S, Ether, Plot, settings

from nodes.emulator.firmware import Firmware
from nodes.emulator.node import EmulatedNode
from nodes.emulator.timekeeping import Rtc
from shared_models.codes import Board, EventCode
from shared_models.frames import Event, Telemetry

DAY = 86400


@dataclass
class Network(Ether):
    """An ether with an opinion about the time."""

    ahead_s: float = 0.0
    answering: bool = True

    def network_time_s(self, time_s: float) -> float:
        return max(time_s + self.ahead_s, 0.0)

    def answers(self, dev_eui: str) -> bool:
        return self.answering

    def corrections(self) -> list[Event]:
        return [event for event in self.decoded(Event) if event.code == EventCode.CLOCK_CORRECTED]


def node_on(firmware: Firmware, **options) -> tuple[EmulatedNode, Network]:
    network = Network()
    page = settings(firmware.board).pack()
    return EmulatedNode(firmware, page, None, Plot(), network, START_S, 3, **options), network


def error_s(node: EmulatedNode) -> float:
    return node.calendar_s - node.time_s


@pytest.mark.parametrize(("board", "crystal_ppm"), [(Board.STM32L072, 30.0), (Board.STM32L432, -45.0)])
def test_a_drifting_crystal_is_trimmed_and_stays_right_within_seconds(firmwares, board, crystal_ppm) -> None:
    node, _ = node_on(firmwares[board], crystal_ppm=crystal_ppm)
    node.run_until(START_S + 7 * DAY)
    assert abs(error_s(node)) > 15
    node.run_until(START_S + 15 * DAY)
    for day in range(16, 30):
        node.run_until(START_S + day * DAY)
        assert abs(error_s(node)) < 3
    assert 4 <= node.modem.commands.count("AT+TIMEREQ=1") <= 6


def test_the_trim_outlives_resets_of_the_node(firmwares) -> None:
    node, _ = node_on(firmwares[Board.STM32L072], crystal_ppm=40.0)
    node.run_until(START_S + 8 * DAY)
    rtc = node._board.rtc
    trim = rtc.values[Rtc.CALR]
    assert trim != 0
    node.power_cycle()
    node.run_until(START_S + 9 * DAY)
    assert rtc.values[Rtc.CALR] == trim
    rtc.values[Rtc.CALR] = 0  # as after a flat backup supply
    node.power_cycle()
    node.run_until(START_S + 10 * DAY)
    assert rtc.values[Rtc.CALR] == trim


def test_a_clock_lost_with_the_battery_is_right_after_the_first_exchange(firmware) -> None:
    node, network = node_on(firmware, calendar_set=False)
    node.run_until(START_S + 2 * 900)
    assert abs(error_s(node)) < 2
    node.run_until(START_S + 2 * DAY)
    assert len(network.corrections()) == 1
    assert abs(network.decoded(Telemetry)[-1].time_s - (START_S + 2 * DAY)) < DAY


def test_a_lost_clock_without_the_networks_time_goes_on_from_its_settings(firmware) -> None:
    node, network = node_on(firmware, calendar_set=False)
    network.answering = False
    node.run_until(START_S + 2 * DAY)
    assert node.wakes >= 190
    assert network.corrections() == []
    network.answering = True
    node.run_until(START_S + 4 * DAY)
    assert abs(error_s(node)) < 2


def test_a_jump_is_believed_when_the_network_says_so_twice(firmwares) -> None:
    node, network = node_on(firmwares[Board.STM32L072])
    node.run_until(START_S + 2 * DAY)
    node._board.rtc._offset_s += 3 * DAY + 7 * 3600
    node.run_until(START_S + 16 * DAY)
    assert abs(error_s(node)) < 2
    assert len(network.corrections()) == 1
    assert node.counters.resets == 1


@pytest.mark.parametrize("ahead_s", [-2e9, 40 * 365 * DAY, -3 * 365 * DAY])
def test_a_hostile_time_is_refused(firmwares, ahead_s) -> None:
    node, network = node_on(firmwares[Board.STM32L432])
    network.ahead_s = ahead_s
    node.run_until(START_S + 6 * DAY)
    assert abs(error_s(node)) < 2
    assert network.corrections() == []
    assert node.wakes == 6 * 96
