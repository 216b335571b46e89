"""The shipped ELF on an emulated board: it wakes on time, sees what is there, waters, and always closes its valve."""

from __future__ import annotations

import pytest
from plot import PLANTING_S, START_S, Ether, Plot

from nodes.emulator.interfaces import Downlink
from nodes.emulator.node import EmulatedNode
from shared_models import frames
from shared_models.codes import EventCode, Mode, Reason
from shared_models.frames import Event, Override, OverrideAction, StatisticsFragment, Telemetry
from shared_models.moments import Snapshot

SOON_S = START_S + 2 * 86400 + 6 * 3600
"""Planting day of a node that shall water soon."""
HANG = b"\xfe\xe7"  # b .


class Diary(Plot):
    """A plot that remembers when it was looked at."""

    def __init__(self, **values: object) -> None:
        super().__init__(**values)
        self.looks: list[float] = []

    def probe_mv(self, channel: int, time_s: float) -> int:
        if channel == 0:
            self.looks.append(time_s)
        return super().probe_mv(channel, time_s)


def thirsty(start, **changes):
    """A node whose soil is dry enough for a dose on its first day after planting."""
    return start(threshold_permille=30, planting_time_s=SOON_S, commissioning_days=2, **changes)


def run_until_watering(node: EmulatedNode, plot: Plot) -> float:
    time_s = SOON_S
    while not node.valve_open:
        time_s += 900
        assert time_s < SOON_S + 6 * 86400, "the node never watered"
        node.run_until(time_s)
    assert plot.valve_log[-1][0]
    return plot.valve_log[-1][1]


def test_it_wakes_every_900_seconds_at_its_phase(start) -> None:
    node, plot, _ = start(plot=Diary())
    node.run_until(START_S + 86400)
    assert node.wakes == len(plot.looks) == 96
    assert {int(time) % 900 for time in plot.looks} == {137}


def test_telemetry_says_what_the_sensors_see(start) -> None:
    node, plot, ether = start(telemetry_period_h=1)
    node.run_until(START_S + 13 * 3600)
    telemetry = ether.decoded(Telemetry)[-1]
    when = telemetry.time_s
    assert telemetry.vwc_shallow_e4 == pytest.approx(plot.vwc * 10000, abs=40)
    assert telemetry.vwc_deep_e4 - telemetry.vwc_shallow_e4 == pytest.approx(200, abs=4)
    assert telemetry.soil_temp_c100 == pytest.approx(plot.soil_temp_c(when) * 100, abs=10)
    assert telemetry.air_temp_c100 == pytest.approx(plot.air(when)[0] * 100, abs=2)
    assert telemetry.battery_mv == pytest.approx(2950, abs=3)
    assert telemetry.mode == Mode.COMMISSIONING
    assert telemetry.model_version == 1
    assert telemetry.backbone_id != 0


def test_a_dose_is_given_for_its_time_and_reported(start) -> None:
    node, plot, ether = thirsty(start)
    opened = run_until_watering(node, plot)
    node.run_until(opened + 3 * 3600)
    assert not node.valve_open
    assert plot.doses_s()[-1] == pytest.approx(7200, abs=5)
    watered = [event for event in ether.decoded(Event) if event.code == EventCode.WATERED]
    assert (watered[-1].dose_e1_mm, watered[-1].reason) == (200, Reason.DEPLETED)


def test_power_lost_in_mid_dose_closes_the_valve_and_takes_the_water_off_the_books(start) -> None:
    node, plot, ether = thirsty(start, telemetry_period_h=1)
    opened = run_until_watering(node, plot)
    node.run_until(opened + 1800)
    assert node.valve_open
    node.power_cycle()
    assert not node.valve_open
    assert plot.doses_s()[-1] == pytest.approx(1800, abs=1)
    node.run_until(opened + 3 * 3600)
    assert len(plot.doses_s()) == 1
    assert ether.decoded(Event)[-1].code == EventCode.BOOTED
    assert ether.decoded(Telemetry)[-1].water_season_e1_mm == pytest.approx(50, abs=2)


def test_a_hung_core_is_reset_by_the_watchdog_with_the_valve_closed(start, firmware) -> None:
    node, plot, _ = thirsty(start)
    opened = run_until_watering(node, plot)
    spot = firmware.symbols["noria_clock_now_s"] & ~1
    healthy = bytes(node._board.engine.mem_read(spot, 2))
    node._board.engine.mem_write(spot, HANG)
    node._board.engine.ctl_flush_tb()
    node.run_until(opened + 1000)
    assert node.counters.watchdog_resets >= 1
    assert not node.valve_open
    assert plot.doses_s()[-1] < 940
    node._board.engine.mem_write(spot, healthy)
    node._board.engine.ctl_flush_tb()
    wakes = node.wakes
    node.run_until(opened + 7200)
    assert node.wakes > wakes + 5


def test_a_farmers_stop_closes_the_valve_at_the_next_exchange(start) -> None:
    node, plot, ether = thirsty(start, telemetry_period_h=1)
    opened = run_until_watering(node, plot)
    stop = Override(OverrideAction.STOP, int(opened) + 5 * 86400)
    ether.queue.append(Downlink(13, stop.encode()))
    node.run_until(opened + 7000)
    assert not node.valve_open
    assert plot.doses_s()[-1] < 4000
    assert EventCode.SETTINGS_APPLIED in [event.code for event in ether.decoded(Event)]


def test_noise_on_the_modem_line_harms_nothing(start, firmware) -> None:
    class Noisy(Ether):
        """Shouts nonsense into the line after every frame."""

        def uplink(self, *frame, **flags) -> list[Downlink]:
            noise = [b"\xff\x00\x80garbage\r\n", b"+EVT:RX_1:-1:1:UNICAST:201:ABC\r\n", b"x" * 900, b"+EVT:RX_1:::\r\n"]
            node.say_on_modem_line(
                noise[len(self.uplinks) % len(noise)] + b"AT_\x01\r\n+EVT:RX_1:1:1:UNICAST:999:00\r\n"
            )
            return super().uplink(*frame, **flags)

    ether = Noisy()
    node, plot, _ = start(ether=ether, telemetry_period_h=1)
    node.run_until(START_S + 86400)
    assert node.wakes == 96
    assert node.counters.resets == 1
    assert len(ether.decoded(Telemetry)) >= 22
    del plot, firmware


def test_broken_sensors_are_reported_once_and_nothing_is_watered_on_nonsense(start) -> None:
    node, plot, ether = start(telemetry_period_h=6)
    node.run_until(START_S + 86400)
    plot.broken = True
    node.run_until(START_S + 2 * 86400)
    telemetry = ether.decoded(Telemetry)[-1]
    assert telemetry.sensor_fault
    assert [event.code for event in ether.decoded(Event)].count(EventCode.SENSOR_FAULT) in (1, 2, 3)
    plot.broken = False
    node.run_until(START_S + 3 * 86400)
    assert EventCode.SENSOR_RECOVERED in [event.code for event in ether.decoded(Event)]


def test_statistics_arrive_whole_at_a_slow_data_rate(start) -> None:
    # A short season, whose initial stage, from which no window counts, is over in four days.
    node, _, ether = start(data_rate=0, statistics_period_h=48, threshold_permille=900, season_days=20)
    node.run_until(PLANTING_S + 11 * 86400)
    fragments = ether.decoded(StatisticsFragment)
    assert fragments
    last = [fragment for fragment in fragments if fragment.session == fragments[-1].session]
    snapshot = Snapshot.decode(frames.join_statistics(last))
    assert snapshot.count[0] > 0
    assert max(len(payload) for _, _, payload in ether.uplinks) <= 51


def test_without_a_model_the_physics_decides(start) -> None:
    node, plot, ether = thirsty(start, model=b"")
    run_until_watering(node, plot)
    node.run_until(SOON_S + 3 * 86400)
    telemetry = ether.decoded(Telemetry)[-1]
    assert (telemetry.mode, telemetry.model_version, telemetry.backbone_id) == (Mode.PHYSICS, 0, 0)


def test_a_node_with_a_flat_backup_supply_finds_a_time_and_goes_on(firmware, start) -> None:
    reference, plot, ether = start()
    settings_page = reference.settings.pack()
    node = EmulatedNode(firmware, settings_page, None, plot, ether, START_S, 3, calendar_set=False)
    node.run_until(START_S + 86400)
    first = ether.decoded(Telemetry)[0].time_s
    assert abs(first - (reference.settings.planting_time_s - 8 * 86400)) < 86400
    assert node.wakes >= 94


def test_one_coin_cell_lasts_years(start) -> None:
    node, _, _ = start(data_rate=3)
    node.run_until(START_S + 3 * 86400)
    assert node.energy.projected_life_years > 5
    assert set(node.energy.consumers_uah) >= {"core stop", "modem sleep", "modem transmit", "probes", "self-discharge"}


def test_the_same_node_lived_twice_is_the_same_node(start) -> None:
    lives = []
    for _ in range(2):
        node, _, ether = thirsty(start)
        node.run_until(START_S + 2 * 86400)
        lives.append((node.fingerprint(), ether.uplinks, node.cycles))
    assert lives[0] == lives[1]
