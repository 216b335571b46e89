"""Everything that goes wrong in a field, on both boards: it is told, it floods nothing, and it heals."""

from __future__ import annotations

import math

import pytest
from plot import START_S, Plot

from shared_models.codes import EventCode, Mode, Reason
from shared_models.frames import Event, Telemetry, TelemetryFlag

DAY_S = 86_400
PLANTED_S = START_S + 2 * DAY_S + 6 * 3600
BAD_S, HEALED_S, END_S = START_S + 4 * DAY_S, START_S + 8 * DAY_S, START_S + 10 * DAY_S
LONGEST_DOSE_S = 7205


class Faulty(Plot):
    """A plot with one fault between two moments."""

    fault = "none"
    jump = 0

    def _bad(self, time_s: float) -> bool:
        return BAD_S <= time_s < HEALED_S

    def probe_mv(self, channel: int, time_s: float) -> int:
        true_mv = super().probe_mv(channel, time_s)
        sensor, kind = self.fault.rsplit(" ", 1)
        if not self._bad(time_s) or sensor not in ("both", ("shallow", "deep")[channel]):
            return true_mv + int(time_s // 900) % 2  # a probe that lives has noise
        if kind == "jumping":
            self.jump = -self.jump or 600
            return 1100 + self.jump
        return {"disconnected": 0, "shorted": 2945, "stuck": 1033}[kind]

    def soil_temp_c(self, time_s: float) -> float:
        if self.fault == "soil disconnected" and self._bad(time_s):
            return math.nan
        return super().soil_temp_c(time_s)

    def air(self, time_s: float) -> tuple[float, float]:
        if self.fault == "air silent" and self._bad(time_s):
            return math.nan, math.nan
        return super().air(time_s)

    def light_w_m2(self, time_s: float) -> float:
        if self.fault == "light shorted" and self._bad(time_s):
            return 5000.0
        return super().light_w_m2(time_s)


FAULTS = {
    "shallow disconnected": TelemetryFlag.SHALLOW_FAULT,
    "deep disconnected": TelemetryFlag.DEEP_FAULT,
    "both disconnected": TelemetryFlag.SHALLOW_FAULT | TelemetryFlag.DEEP_FAULT,
    "deep shorted": TelemetryFlag.DEEP_FAULT,
    "shallow stuck": TelemetryFlag.SHALLOW_FAULT,
    "both stuck": TelemetryFlag.SHALLOW_FAULT | TelemetryFlag.DEEP_FAULT,
    "deep jumping": TelemetryFlag.DEEP_FAULT,
    "soil disconnected": TelemetryFlag.SOIL_TEMP_FAULT,
    "air silent": TelemetryFlag.AIR_FAULT,
    "light shorted": TelemetryFlag.LIGHT_FAULT,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_sensor_is_told_waters_no_nonsense_and_heals(start, fault: str) -> None:
    plot = Faulty()
    plot.fault = fault
    node, _, ether = start(
        plot=plot, planting_time_s=PLANTED_S, commissioning_days=2, telemetry_period_h=6, threshold_permille=115
    )
    node.run_until(END_S)
    events, telemetry = ether.decoded(Event), ether.decoded(Telemetry)
    told = [event for event in events if event.code is EventCode.SENSOR_FAULT]
    healed = [event for event in events if event.code is EventCode.SENSOR_RECOVERED]
    failed = recovered = TelemetryFlag(0)
    for event in told:
        failed |= TelemetryFlag(event.detail)
    for event in healed:
        recovered |= TelemetryFlag(event.detail)
    assert failed == recovered == FAULTS[fault]
    assert min(event.time_s for event in told) >= BAD_S
    assert min(event.time_s for event in healed) >= HEALED_S
    assert len(told) + len(healed) <= 6, "the same fault is not told over and over"
    assert {bool(report.flags & FAULTS[fault]) for report in telemetry if report.time_s > HEALED_S + DAY_S} == {False}
    if fault.startswith("both"):
        dark = [r for r in telemetry if BAD_S + 3.2 * DAY_S < r.time_s < HEALED_S]
        assert {report.mode for report in dark} == {Mode.BALANCE_ONLY}
    assert telemetry[-1].mode in (Mode.MODEL, Mode.PHYSICS)
    assert not node.valve_open
    assert all(dose <= LONGEST_DOSE_S for dose in plot.doses_s())
    assert len(plot.doses_s()) <= 6, "at most a dose a day"
    assert node.counters.resets == 1


def test_without_probes_air_and_light_nothing_is_watered(start) -> None:
    plot = Plot()
    node, _, ether = start(plot=plot, planting_time_s=PLANTED_S, commissioning_days=2, threshold_permille=30)
    node.run_until(PLANTED_S + DAY_S)
    plot.broken = True
    plot.light_w_m2 = lambda time_s: 5000.0
    doses = len(plot.valve_log)
    node.run_until(PLANTED_S + 6 * DAY_S)
    late = [report for report in ether.decoded(Telemetry) if report.time_s > PLANTED_S + 3 * DAY_S]
    assert {report.last_reason for report in late} == {Reason.SENSOR_FAULT}
    assert len(plot.valve_log) - doses <= 2


def test_a_weak_battery_keeps_the_valve_shut_and_is_told_once(start) -> None:
    node, plot, ether = start(planting_time_s=PLANTED_S, commissioning_days=2, threshold_permille=30)
    node.run_until(PLANTED_S)
    plot.battery = 2250
    opened = len(plot.valve_log)
    node.run_until(PLANTED_S + 5 * DAY_S)
    assert len(plot.valve_log) == opened
    codes = [event.code for event in ether.decoded(Event)]
    assert codes.count(EventCode.LOW_BATTERY) == 1
    assert ether.decoded(Telemetry)[-1].last_reason is Reason.LOW_BATTERY
    plot.battery = 2950
    node.run_until(PLANTED_S + 8 * DAY_S)
    assert EventCode.BATTERY_RECOVERED in [event.code for event in ether.decoded(Event)]
    assert len(plot.valve_log) > opened


class Tired(Plot):
    """A cell whose inner resistance lets the supply collapse under every transmission."""

    ohm = 15.0

    def internal_ohm(self, time_s: float) -> float:
        del time_s
        return self.ohm


def test_a_cell_too_weak_to_transmit_is_asked_ever_more_rarely_and_the_node_lives_on(start) -> None:
    plot = Tired()
    node, _, ether = start(plot=plot, telemetry_period_h=1)
    node.run_until(START_S + 2 * DAY_S)
    assert 3 <= node.counters.resets <= 12, "each brown-out doubles the pause before the next transmission"
    wakes = node.wakes
    assert wakes >= 2 * 96 - 12
    assert not node.valve_open
    plot.ohm = 0.5
    node.run_until(START_S + 4 * DAY_S)
    resets = node.counters.resets
    assert len(ether.decoded(Telemetry)) > 12
    node.run_until(START_S + 5 * DAY_S)
    assert node.counters.resets == resets


def test_a_rotten_model_is_not_run_and_the_physics_waters(start) -> None:
    node, plot, ether = start(planting_time_s=PLANTED_S, commissioning_days=2, threshold_permille=30)
    node.run_until(PLANTED_S - 3600)
    region = bytearray(node.flash)
    region[0x1800 + 300] ^= 0x10
    node.provision_flash(bytes(region))
    node.power_cycle()
    node.run_until(PLANTED_S + 5 * DAY_S)
    last = ether.decoded(Telemetry)[-1]
    assert (last.mode, last.model_version) == (Mode.PHYSICS, 0)
    assert EventCode.MODEL_ROLLED_BACK in [event.code for event in ether.decoded(Event)]
    assert plot.doses_s()


def test_without_a_promise_in_flash_the_valve_stays_shut(start, monkeypatch) -> None:
    node, plot, ether = start(planting_time_s=PLANTED_S, commissioning_days=2, threshold_permille=30)
    node.run_until(PLANTED_S + DAY_S)
    opened = len(plot.valve_log)
    monkeypatch.setattr(node._board.flash, "_operate", lambda address, data, duration_s: None)  # nothing takes
    node.run_until(PLANTED_S + 6 * DAY_S)
    assert len(plot.valve_log) == opened
    codes = [event.code for event in ether.decoded(Event)]
    assert EventCode.STORAGE_FAULT in codes
    assert EventCode.VALVE_FAULT in codes
