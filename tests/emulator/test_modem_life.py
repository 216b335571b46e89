"""The shipped ELF and a modem with moods: it joins, loses its network, breaks, and the node goes on deciding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from plot import PLANTING_S, START_S, Ether, Plot, settings

from nodes.emulator.firmware import Firmware
from nodes.emulator.interfaces import Downlink
from nodes.emulator.modem import FACTORY_SETTINGS, Cure, Fault
from nodes.emulator.node import EmulatedNode
from shared_models import frames
from shared_models.codes import Board, EventCode, FPort
from shared_models.frames import Event, Override, OverrideAction, StatisticsFragment, Telemetry
from shared_models.moments import Snapshot

FACTORY_MODEL = Path(__file__).resolve().parents[2] / "shared_models/factory/model-1.bin"
DAY = 86400
WAKE = 900
IDENTITY = {Board.STM32L072: 0x1FF8_0050, Board.STM32L432: 0x1FFF_7590}


@dataclass
class Network(Ether):
    """An ether whose network can be away; it remembers who asked to join, and when."""

    away: bool = False
    requests: list[float] = field(default_factory=list)

    def uplink(self, dev_eui: str, time_s: float, *frame, **flags) -> list[Downlink]:
        if self.away:
            return []
        if not frame[1]:  # the module's own, to fetch what is pending
            return [self.queue.pop(0)] if self.queue else []
        return super().uplink(dev_eui, time_s, *frame, **flags)

    def join(self, dev_eui: str, time_s: float, data_rate: int) -> bool:
        self.requests.append(time_s)
        return not self.away

    def answers(self, dev_eui: str) -> bool:
        return not self.away

    def codes(self) -> list[EventCode]:
        return [EventCode(event.code) for event in self.decoded(Event)]


Switch = Callable[..., tuple[EmulatedNode, Plot, Network]]


def switch_on(firmware: Firmware, *, data_rate: int = 3, joined: bool = True, **changes: object):
    plot, network = Plot(), Network()
    page = settings(firmware.board, **changes).pack()
    return (
        EmulatedNode(firmware, page, FACTORY_MODEL.read_bytes(), plot, network, START_S, data_rate, joined=joined),
        plot,
        network,
    )


@pytest.fixture
def life(firmware: Firmware) -> Switch:
    """On each board."""
    return lambda **options: switch_on(firmware, **options)


@pytest.fixture
def long_life(firmwares: dict[Board, Firmware]) -> Switch:
    """On one board: many days."""
    return lambda **options: switch_on(firmwares[Board.STM32L072], **options)


def test_a_new_modem_gets_its_identity_once_and_joins(life) -> None:
    app_key = bytes(range(16))
    node, _, network = life(joined=False, join_eui="70b3d57ed0000001", app_key=app_key)
    node.run_until(START_S + WAKE)
    told = node.modem.settings
    assert (told["DEVEUI"], told["APPEUI"], told["APPKEY"]) == (
        node.dev_eui.upper(),
        "70B3D57ED0000001",
        app_key.hex().upper(),
    )
    assert (told["NJM"], told["CLASS"], told["BAND"], told["LPM"]) == ("1", "A", "4", "1")
    assert len(network.requests) == 1
    assert network.codes()[0] == EventCode.BOOTED
    written = node.modem.settings_written
    node.modem.restart()
    node.run_until(START_S + 2 * DAY)
    assert len(network.requests) == 2
    assert node.modem.settings_written == written, "the modem's flash is spared"


def test_a_modem_that_lost_its_memory_is_provisioned_again_whenever_power_failed(life) -> None:
    node, _, network = life(telemetry_period_h=1)
    node.run_until(START_S + 2 * WAKE)
    # A provisioning that power interrupted: everything but the identity, which is written last.
    node.modem.settings |= FACTORY_SETTINGS
    node.modem.settings["APPKEY"] = 32 * "7"
    node.modem.restart()
    node.run_until(START_S + 3 * 3600)
    assert node.modem.settings["APPKEY"] == node.settings.app_key.hex().upper()
    assert node.modem.settings["DEVEUI"] == node.dev_eui.upper()
    assert node.modem.joined
    assert len(network.decoded(Telemetry)) >= 2


def test_without_a_network_it_goes_on_watering_and_asks_ever_more_rarely(long_life) -> None:
    soon_s = START_S + 2 * DAY + 6 * 3600
    away, plot, network = long_life(
        joined=False, data_rate=0, threshold_permille=30, planting_time_s=soon_s, commissioning_days=2
    )
    network.away = True
    away.run_until(START_S + 14 * DAY)
    assert away.wakes == 14 * 96
    assert len(plot.doses_s()) >= 2
    first_day = [time for time in network.requests if time < START_S + DAY]
    assert 5 <= len(first_day) <= 8
    late = [time for time in network.requests if time > START_S + 4 * DAY]
    gaps = [after - before for before, after in pairwise(late)]
    assert 6 <= len(late) <= 10
    assert min(gaps) >= DAY - 30
    assert max(gaps) <= 1.5 * DAY + WAKE
    hourly = sum(1.5 for time in network.requests if time < START_S + 3600)
    assert hourly < 36, "LoRaWAN's limit of join requests in the first hour, s"
    there, _, _ = long_life(data_rate=0, threshold_permille=30, planting_time_s=soon_s, commissioning_days=2)
    there.run_until(START_S + 14 * DAY)
    assert away.energy.total_uah < 1.2 * there.energy.total_uah

    network.away = False
    away.run_until(START_S + 16 * DAY)
    assert network.decoded(Telemetry)[0].time_s > START_S + 13 * DAY, "the newest telemetry, not a fortnight of it"
    assert EventCode.BOOTED not in network.codes()[1:]
    assert 1 <= len(network.codes()) <= 10


def test_two_nodes_of_one_farm_do_not_ask_at_the_same_moments(firmwares) -> None:
    moments = []
    for identity in (b"1", b"2"):
        node, _, network = switch_on(firmwares[Board.STM32L072], joined=False)
        node._board.engine.mem_write(IDENTITY[Board.STM32L072], 32 * identity)
        network.away = True
        node.run_until(START_S + 4 * DAY)
        moments.append({round(time / 60) for time in network.requests})
    assert len(moments[0] & moments[1]) < min(map(len, moments)) / 2


def test_a_session_lost_in_a_reset_of_the_modem_is_joined_anew_and_no_frame_is_lost(life) -> None:
    node, _, network = life(telemetry_period_h=1)
    node.run_until(START_S + 6 * 3600)
    before = len(network.decoded(Telemetry))
    node.modem.restart()
    node.run_until(START_S + 12 * 3600)
    assert len(network.requests) == 1
    assert len(network.decoded(Telemetry)) == before + 6


def test_a_network_that_answers_no_check_for_eight_days_is_joined_anew(long_life) -> None:
    node, _, network = long_life()
    node.run_until(START_S + 2 * DAY)
    network.away = True
    node.run_until(START_S + 8 * DAY)
    assert network.requests == []
    node.run_until(START_S + 12 * DAY)
    assert network.requests != []
    network.away = False
    node.run_until(START_S + 16 * DAY)
    assert node.modem.joined
    assert max(telemetry.time_s for telemetry in network.decoded(Telemetry)) > START_S + 15 * DAY
    asked = node.modem.commands.count("AT+LINKCHECK=1")
    assert 10 <= asked <= 16, "once a day"


@pytest.mark.parametrize("fault", [Fault.SILENT, Fault.GARBAGE, Fault.BABBLING, Fault.REFUSING])
@pytest.mark.parametrize("cure", [Cure.COMMAND, Cure.LINE])
def test_a_modem_that_makes_no_sense_is_reset_and_that_is_reported(firmwares, fault, cure) -> None:
    board = Board.STM32L432 if cure is Cure.COMMAND else Board.STM32L072
    node, _, network = switch_on(firmwares[board], telemetry_period_h=1)
    node.run_until(START_S + 3 * 3600)
    node.modem.break_down(fault, cure)
    node.run_until(START_S + 9 * 3600)
    assert node.wakes == 9 * 4
    assert node.counters.resets == 1
    restarted = [event for event in network.decoded(Event) if event.code == EventCode.MODEM_RESTARTED]
    assert [event.detail for event in restarted] == [1 if cure is Cure.COMMAND else 2]
    assert network.decoded(Telemetry)[-1].time_s >= START_S + 8 * 3600 - WAKE


@pytest.mark.parametrize(("fault", "days"), [(Fault.SILENT, 6), (Fault.BABBLING, 3)])
def test_a_dead_modem_costs_little_and_is_still_tried(long_life, fault, days) -> None:
    node, _, network = long_life(telemetry_period_h=1)
    node.run_until(START_S + 3600)
    healthy, _, _ = long_life(telemetry_period_h=1)
    node.modem.break_down(fault)
    for run in (node, healthy):
        run.run_until(START_S + days * DAY)
    assert node.wakes == days * 96
    assert 7 <= node.modem.resets <= 8 + days
    # What the microcontroller spends on asking; the modem's own babble is not its fault.
    spent, normal = (run.energy.consumers_uah for run in (node, healthy))
    assert spent["core run"] < 1.2 * normal["core run"]
    node.modem.heal()
    node.run_until(START_S + (days + 2) * DAY)
    assert EventCode.MODEM_RESTARTED in network.codes()
    assert network.decoded(Telemetry)[-1].time_s > START_S + (days + 1) * DAY + 22 * 3600


def test_a_busy_modem_is_waited_for(life) -> None:
    node, _, network = life(telemetry_period_h=2)
    node.run_until(START_S + 3600)
    node.modem.break_down(Fault.BUSY)
    node.run_until(START_S + 5 * 3600)
    before = len(network.uplinks)
    node.modem.heal()
    node.run_until(START_S + 6 * 3600)
    assert len(network.uplinks) > before
    assert node.modem.resets == 0
    assert EventCode.MODEM_RESTARTED not in network.codes()


def test_a_frame_in_which_the_modem_reset_itself_is_sent_again(life) -> None:
    node, _, network = life(telemetry_period_h=24)
    node.modem.break_down(Fault.FLAT)
    node.run_until(START_S + 2 * WAKE)
    assert network.uplinks == []
    node.modem.heal()
    node.run_until(START_S + 12 * 3600)
    assert network.codes().count(EventCode.BOOTED) == 1


def test_a_data_rate_that_falls_in_mid_exchange_cuts_the_rest_anew(long_life) -> None:
    # A short season, whose initial stage, from which no window counts, is over in four days.
    node, _, network = long_life(statistics_period_h=48, threshold_permille=900, season_days=20)

    class Slowing(Network):
        def uplink(self, dev_eui: str, time_s: float, f_port: int, *frame, **flags) -> list[Downlink]:
            if f_port == FPort.STATISTICS:
                node.modem.data_rate = 0  # as the network's answer to this frame would tell it to
            return super().uplink(dev_eui, time_s, f_port, *frame, **flags)

    node.modem._radio = network = Slowing()
    node.run_until(PLANTING_S + 11 * DAY)
    lengths = [len(payload) for _, f_port, payload in network.uplinks if f_port == FPort.STATISTICS]
    assert lengths[0] > 51
    assert max(lengths[1:]) <= 51
    fragments = network.decoded(StatisticsFragment)
    anew = [fragment for fragment in fragments if fragment.session == fragments[-1].session][-fragments[-1].count :]
    assert Snapshot.decode(frames.join_statistics(anew)).count[0] > 0


def test_what_the_modem_fetches_by_itself_is_heard(life) -> None:
    node, _, network = life(telemetry_period_h=1)
    stop = Override(OverrideAction.STOP, START_S + 5 * DAY)
    package_version = bytes([0])
    network.queue += [
        Downlink(FPort.SETTINGS, stop.encode(), pending=True),
        Downlink(FPort.FRAGMENTATION, package_version),
    ]
    node.run_until(START_S + 4 * 3600)
    assert EventCode.SETTINGS_APPLIED in network.codes()
    assert FPort.FRAGMENTATION in [f_port for _, f_port, _ in network.uplinks]


def test_a_weak_battery_sends_one_frame_a_wake(life, firmware) -> None:
    node, _, network = life(telemetry_period_h=1)
    node.run_until(START_S + 3600)
    node._board.engine.mem_write(firmware.symbols["link"] + 1, b"\x01")  # noria_link_t.sparing
    network.uplinks.clear()
    node.run_until(START_S + DAY)
    wakes = [int(time) // WAKE for time, _, _ in network.uplinks]
    assert len(network.decoded(Telemetry)) >= 20
    assert len(wakes) == len(set(wakes))
