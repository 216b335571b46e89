"""The whole firmware on the host: modems that misbehave, sensors that fail, resets at bad moments."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from conftest import FACTORY_MODEL
from plot import PLANTING_S, START_S, Ether, Plot, settings

from nodes.emulator.interfaces import Downlink
from nodes.hostnode import HostedNode
from shared_models.codes import Board, EventCode, Reason
from shared_models.frames import Event, Override, OverrideAction, Telemetry, TelemetryFlag, decode_uplink

SOON_S = START_S + 2 * 86400 + 6 * 3600
DRY = {"threshold_permille": 30, "planting_time_s": SOON_S, "commissioning_days": 2}
JOINED, RATE, OK = "AT+NJS=1\r\n\r\nOK", "AT+DR=3\r\n\r\nOK", "OK"
SENT = "OK\r\n\r\n+EVT:TX_DONE"


@dataclass
class Dialogue:
    """A modem that answers each command as told, and notes what it was sent."""

    answers: dict[str, str | bytes | None]
    heard: list[str] = field(default_factory=list)
    sent: list[tuple[int, bytes]] = field(default_factory=list)
    due: float = math.inf
    frames: int = 0
    air_s: float = 0.0
    resets: int = 0
    now: Callable[[], float] = lambda: 0.0
    say: Callable[[bytes, float], None] = lambda data, time: None
    _line: str = ""

    def __call__(self, node: HostedNode) -> Dialogue:
        self.now = node.now
        return self

    def byte(self, value: int) -> None:
        if value not in b"\r\n":
            self._line += chr(value)
            return
        line, self._line = self._line, ""
        if not line:
            return
        self.heard.append(line)
        if line.startswith("AT+SEND="):
            port, data = line.removeprefix("AT+SEND=").split(":")[:2]
            self.sent.append((int(port), bytes.fromhex(data)))
        known = [command for command in self.answers if line.startswith(command)]
        answer = self.answers[max(known, key=len)] if known else OK
        if answer is not None:
            data = answer if isinstance(answer, bytes) else answer.encode()
            self.say(b"\r\n" + data + b"\r\n", self.now() + 0.01)

    def advance(self, now: float) -> None:
        raise AssertionError("it never asked for a time")

    def reset_line(self, level: int) -> None:
        self.resets += level

    def events(self) -> list[EventCode]:
        frames = [decode_uplink(port, payload) for port, payload in self.sent if port == 12]
        return [frame.code for frame in frames if isinstance(frame, Event)]


def start(
    plot: Plot | None = None,
    ether: Ether | None = None,
    modem: Dialogue | None = None,
    *,
    calendar_set: bool = True,
    data_rate: int = 3,
    **changes: object,
) -> tuple[HostedNode, Plot, Ether]:
    plot, ether = plot or Plot(), ether or Ether()
    page = settings(Board.STM32L072, **changes).pack()
    image = FACTORY_MODEL.read_bytes()
    options = {"calendar_set": calendar_set, "sanitize": True, "modem": modem}
    return HostedNode(page, image, plot, ether, START_S, data_rate, **options), plot, ether


def until_watering(node: HostedNode, plot: Plot) -> float:
    time_s = node.time_s
    while not node.valve_open:
        time_s += 900
        assert time_s < SOON_S + 6 * 86400, "the node never watered"
        node.run_until(time_s)
    return plot.valve_log[-1][1]


def healthy(**other: str | bytes | None) -> dict[str, str | bytes | None]:
    """Answers of a module in order, some of them replaced: ``NJS="..."`` for ``AT+NJS``."""
    usual: dict[str, str | bytes | None] = {
        "AT+NJS": JOINED,
        "AT+DR": RATE,
        "AT+SEND": SENT,
        "AT+DEVEUI=?": "AT+DEVEUI=A1B2C3D4E5F60718\r\n\r\nOK",
    }
    return usual | {f"AT+{name}": answer for name, answer in other.items()}


@pytest.mark.parametrize(
    "answers",
    [
        {"AT": None},
        healthy(NJS="AT_ERROR"),
        healthy(NJS="AT+NJS=0\r\n\r\nOK", JOIN="OK\r\n\r\n+EVT:JOIN_FAILED_RX_TIMEOUT"),
        healthy(NJS="AT+NJS=0\r\n\r\nOK", JOIN="AT_BUSY_ERROR"),
        healthy(NJS="AT+NJS=0\r\n\r\nOK", JOIN=None),
        healthy(SEND="AT_BUSY_ERROR"),
        healthy(SEND=None),
        healthy(SEND="what?\r\n" * 60),
        healthy(NJS=b"\xff\x00\x80\r\n" + b"x" * 3000),
    ],
    ids=["silent", "error", "refused", "busy", "no answer to a join", "busy sending", "mute", "babble", "noise"],
)
def test_a_modem_that_fails_costs_no_wake_and_is_told_everything_once_it_is_well(
    answers: dict[str, str | bytes | None],
) -> None:
    modem = Dialogue(answers)
    node, _, _ = start(modem=modem, telemetry_period_h=1)
    node.run_until(START_S + 86400)
    assert node.wakes == 96
    assert modem.heard
    modem.answers = healthy()
    modem.sent.clear()
    node.run_until(START_S + 3 * 86400)
    assert node.wakes == 3 * 96
    assert EventCode.BOOTED in modem.events()
    telemetry = [decode_uplink(port, payload) for port, payload in modem.sent if port == 10]
    assert telemetry
    assert node.counters.resets == 1


def test_a_frame_that_the_modem_refuses_is_given_up() -> None:
    modem = Dialogue(healthy(SEND="AT_PARAM_ERROR"))
    node, _, _ = start(modem=modem, telemetry_period_h=1)
    node.run_until(START_S + 7200)
    times = Counter(modem.sent)
    assert len(times) >= 3
    assert max(times.values()) <= 3


def test_a_module_that_must_join_first_joins_and_sends() -> None:
    modem = Dialogue(healthy(NJS="AT+NJS=0\r\n\r\nOK", JOIN="OK\r\n\r\n+EVT:JOINED"))
    node, _, _ = start(modem=modem, telemetry_period_h=1)
    node.run_until(START_S + 86400)
    assert EventCode.BOOTED in modem.events()


@pytest.mark.parametrize(
    "received",
    [
        "+EVT:RX_1:-71:8:UNICAST:13:0232000000",
        "+EVT:RX_2:-120:-20:UNICAST:13:0232000000",
        "+EVT:RX_1:-71:8:UNICAST:13:020a000000",
    ],
)
def test_an_order_is_carried_out_whichever_window_brought_it(received: str) -> None:
    modem = Dialogue(healthy(SEND=f"{SENT}\r\n\r\n{received}"))
    node, plot, _ = start(modem=modem, telemetry_period_h=1, **DRY)
    node.run_until(START_S + 3 * 86400)
    assert EventCode.SETTINGS_APPLIED in modem.events()
    assert plot.valve_log


@pytest.mark.parametrize(
    "received",
    [
        "+EVT:RX_1:-71:8:UNICAST:0:0232000000",
        "+EVT:RX_1:-71:8:UNICAST:224:0232000000",
        "+EVT:RX_1:-71:8:UNICAST::0232000000",
        "+EVT:RX_1:-71:8:UNICAST:13:02320000000",
        "+EVT:RX_1:-71:8:UNICAST:13:02320000zz",
        "+EVT:RX_1:-71:8:UNICAST:13:" + "02" * 223,
        "+EVT:RX_3:-71:8:UNICAST:13:0232000000",
        "+EVT:RX_1:-71:8:13:0232000000",
        "+EVT:RX_1:-71:8:UNICAST:12:0232000000",
        "+EVT:RX_1:-71:8:UNICAST:13:0932000000",
    ],
)
def test_what_is_no_order_changes_nothing(received: str) -> None:
    modem = Dialogue(healthy(SEND=f"{SENT}\r\n\r\n{received}"))
    node, plot, _ = start(modem=modem, telemetry_period_h=1)
    node.run_until(START_S + 86400)
    assert EventCode.SETTINGS_APPLIED not in modem.events()
    assert not plot.valve_log


def test_a_slow_data_rate_cuts_the_statistics_smaller_even_half_way() -> None:
    node, _, ether = start(statistics_period_h=24, data_rate=5)
    for _ in range(4 * 24 * 60):
        node.run_until(node.time_s + 900)
        if any(port == 11 for _, port, _ in ether.uplinks):
            break
    node._modem.data_rate = 1
    ether.uplinks.clear()
    node.run_until(node.time_s + 2 * 86400)
    lengths = [len(payload) for _, port, payload in ether.uplinks if port == 11]
    assert lengths
    assert max(lengths) == 51


def test_an_unprovisioned_node_waits_and_lives_once_it_has_its_page() -> None:
    node, _, ether = start(telemetry_period_h=1)
    whole = node.flash
    node.provision_flash(b"\x00" * len(whole))
    node.run_until(START_S + 4 * 3600)
    assert (node.wakes, ether.uplinks) == (0, [])
    node.provision_flash(whole)
    node.run_until(START_S + 8 * 3600)
    assert node.wakes > 8
    assert ether.decoded(Telemetry)


def test_a_calendar_that_was_never_set_starts_at_the_soak() -> None:
    node, _, ether = start(calendar_set=False, telemetry_period_h=1)
    node.run_until(START_S + 3 * 3600)
    assert abs(ether.decoded(Telemetry)[0].time_s - (PLANTING_S - 8 * 86400)) < 2 * 3600


def test_power_lost_in_mid_dose_takes_the_water_off_the_books() -> None:
    node, plot, ether = start(telemetry_period_h=1, **DRY)
    opened = until_watering(node, plot)
    node.run_until(opened + 1800)
    node.power_cycle()
    assert not node.valve_open
    node.run_until(opened + 3 * 3600)
    assert plot.doses_s()[-1] == pytest.approx(1800, abs=1)
    assert ether.decoded(Telemetry)[-1].water_season_e1_mm == pytest.approx(50, abs=2)


def test_a_farmers_stop_closes_the_valve() -> None:
    node, plot, ether = start(telemetry_period_h=1, **DRY)
    opened = until_watering(node, plot)
    ether.queue.append(Downlink(13, Override(OverrideAction.STOP, int(opened) + 5 * 86400).encode()))
    node.run_until(opened + 7000)
    assert not node.valve_open
    assert plot.doses_s()[-1] < 4000
    node.run_until(opened + 86400 * 2)
    assert ether.decoded(Telemetry)[-1].last_reason == Reason.OVERRIDE_STOP


def test_an_update_under_way_shows_in_telemetry() -> None:
    node, _, ether = start(telemetry_period_h=1)
    ether.queue.append(Downlink(201, bytes([2, 0, 2, 0, 40, 0, 0, 9, 0, 0, 0])))
    node.run_until(START_S + 2 * 86400)
    assert TelemetryFlag.UPDATE_ACTIVE in ether.decoded(Telemetry)[-1].flags


def test_broken_sensors_are_faults_and_heal() -> None:
    node, plot, ether = start(plot=Plot(broken=True), telemetry_period_h=2)
    node.run_until(START_S + 86400)
    assert ether.decoded(Telemetry)[-1].sensor_fault
    plot.broken = False
    node.run_until(START_S + 2 * 86400)
    assert not ether.decoded(Telemetry)[-1].sensor_fault
    codes = [event.code for event in ether.decoded(Event)]
    assert {EventCode.SENSOR_FAULT, EventCode.SENSOR_RECOVERED} <= set(codes)


@dataclass
class Shorted(Plot):
    """A plot whose probes stand at the supply."""

    def probe_mv(self, channel: int, time_s: float) -> int:
        return self.battery


def test_probes_shorted_to_the_supply_are_faults() -> None:
    node, _, ether = start(plot=Shorted(), telemetry_period_h=2)
    node.run_until(START_S + 86400)
    assert {TelemetryFlag.SHALLOW_FAULT, TelemetryFlag.DEEP_FAULT} <= set(ether.decoded(Telemetry)[-1].flags)


class Interference(HostedNode):
    """A bus on which one bit of every answer falls over, or the answer fails to come."""

    bit: int | None = 3

    def _on_i2c_read(self, address: int, data, length: int) -> bool:
        if self.bit is None or not super()._on_i2c_read(address, data, length):
            return False
        data[self.bit // 8] ^= 1 << self.bit % 8
        return True


@pytest.mark.parametrize("bit", [3, 30, None], ids=["temperature", "humidity", "no answer"])
def test_an_air_reading_that_fails_its_checksum_is_none(bit: int | None) -> None:
    ether = Ether()
    page = settings(Board.STM32L432, telemetry_period_h=2).pack()
    node = Interference(page, None, Plot(), ether, START_S, 3, erased_byte=0xFF, sanitize=True)
    node.bit = bit
    node.run_until(START_S + 86400)
    assert TelemetryFlag.AIR_FAULT in ether.decoded(Telemetry)[-1].flags
    assert ether.decoded(Telemetry)[-1].model_version == 0


def test_what_the_air_raises_comes_out_of_the_run() -> None:
    class Broken(Ether):
        def uplink(self, *frame, **flags) -> list[Downlink]:
            raise RuntimeError("no air")

    node, _, _ = start(ether=Broken())
    with pytest.raises(RuntimeError, match="no air"):
        node.run_until(START_S + 86400)
