"""The emulated module keeps its manual's promises, and so does the air it joins through."""

from __future__ import annotations

import pytest

from nodes.emulator.air import Air, Joined
from nodes.emulator.energy import EnergyLedger
from nodes.emulator.interfaces import Downlink, Radio
from nodes.emulator.modem import FACTORY_SETTINGS, Cure, Fault, Modem
from nodes.emulator.peripherals import NEVER, BoardError, Gpio

NODE, OTHER = "a1b2c3d4e5f60718", "a1b2c3d4e5f60719"


class Quiet(Radio):
    """A network with nothing to say."""

    def uplink(self, *frame: object, **flags: object) -> list[Downlink]:
        del frame, flags
        return []


class Desk:
    """A board without a core."""

    def __init__(self, radio: Radio | None = None, *, joined: bool = True) -> None:
        self.ledger = EnergyLedger()
        self.start_s = 1_000_000_000
        self.time = 0.0
        self.said = ""
        self.modem = Modem(self, radio or Quiet(), NODE, 3, joined=joined)
        self.modem.say = self._hear

    def now(self) -> float:
        return self.time

    def stall_until(self, time: float) -> None:
        self.time = max(self.time, time)

    def pend(self, irq: int) -> None:
        del irq

    def _hear(self, data: bytes, time: float) -> None:
        del time
        self.said += data.decode("ascii", errors="replace")

    def tell(self, line: str) -> list[str]:
        """Type a line; what came back, until all is quiet."""
        self.said = ""
        for byte in f"{line}\r\n".encode():
            self.modem.byte(byte)
        while self.modem.due != NEVER:
            self.time = self.modem.due
            self.modem.advance(self.time)
        self.time += 10.0
        return self.said.split()


def test_settings_are_kept_through_a_reset_and_the_session_is_not() -> None:
    desk = Desk(joined=False)
    assert desk.tell("AT+DEVEUI=?") == [f"AT+DEVEUI={FACTORY_SETTINGS['DEVEUI']}", "OK"]
    assert desk.tell(f"AT+DEVEUI={NODE}") == ["OK"]
    assert desk.tell("AT+DEVEUI=123") == ["AT_PARAM_ERROR"]
    assert desk.tell("AT+SEND=1:00") == ["AT_NO_NETWORK_JOINED"]
    assert desk.tell("AT+LINKCHECK=1") == ["AT_NO_NETWORK_JOINED"]
    assert desk.tell("AT+JOIN=1:0:10:0") == ["OK", "+EVT:JOINED"]
    assert desk.tell("AT+NJS=?") == ["AT+NJS=1", "OK"]
    assert "Mode:" in desk.tell("ATZ")
    assert desk.tell("AT+NJS=?") == ["AT+NJS=0", "OK"]
    assert desk.tell("AT+DEVEUI=?")[0] == f"AT+DEVEUI={NODE.upper()}"
    assert desk.modem.settings_written == 1


def test_the_network_is_asked_with_the_next_frame_and_no_other() -> None:
    desk = Desk()
    assert desk.tell("AT+LINKCHECK=1") == ["OK"]
    assert desk.tell("AT+TIMEREQ=1") == ["OK"]
    assert desk.tell("AT+SEND=10:00") == ["OK", "+EVT:TX_DONE", "+EVT:TIMEREQ_OK", "+EVT:LINKCHECK:0:21:1:-71:8"]
    assert desk.tell("AT+SEND=10:00") == ["OK", "+EVT:TX_DONE"]
    assert desk.tell("AT+LTIME=?")[0].startswith("AT+LTIME=01h4")


def test_joins_obey_their_duty_cycle_and_a_frame_under_way_is_waited_for() -> None:
    desk = Desk(joined=False)
    assert desk.tell("AT+JOIN=1:1:10:3") == ["AT_PARAM_ERROR"]
    desk.tell("AT+JOIN")
    desk.modem.joined = False
    answer = desk.tell("AT+JOIN")
    assert answer[0].startswith("Restricted_Wait_")
    assert answer[1] == "AT_BUSY_ERROR"
    desk.time += 60.0
    assert desk.tell("AT+JOIN") == ["OK", "+EVT:JOINED"]
    desk.modem.byte(0x41)
    desk.said = ""
    for line in ("T+SEND=1:00", "AT+SEND=1:00"):
        for byte in f"{line}\r".encode():
            desk.modem.byte(byte)
    assert desk.said.split() == ["OK", "AT_BUSY_ERROR"]


def test_a_module_that_never_sleeps_draws_what_it_draws_awake() -> None:
    restless, asleep = Desk(joined=False), Desk()
    for desk in (restless, asleep):
        desk.modem.book(3600.0)
    assert restless.ledger.total_uah > 1000 * asleep.ledger.total_uah


@pytest.mark.parametrize(
    ("cure", "by_command", "by_line"), [(Cure.NOTHING, 0, 0), (Cure.COMMAND, 1, 1), (Cure.LINE, 0, 1)]
)
def test_a_silent_module_is_cured_by_what_it_was_told_to_be(cure, by_command, by_line) -> None:
    desk = Desk()
    desk.modem.break_down(Fault.SILENT, cure)
    assert desk.tell("AT") == []
    desk.tell("ATZ")
    assert bool(desk.tell("AT")) is bool(by_command)
    desk.modem.reset_line(0)
    desk.modem.reset_line(1)
    desk.time += 1.0
    assert bool(desk.tell("AT")) is bool(by_line)


def test_a_line_with_a_pull_up_is_only_ever_pulled_down() -> None:
    levels: list[int] = []
    port = Gpio(Desk(), 0xFFFF_FFFF, 0, {8: levels.append}, frozenset({8}))  # type: ignore[arg-type]
    port.write(Gpio.BSRR, 1 << 8)
    port.write(Gpio.OTYPER, 1 << 8)
    port.write(Gpio.MODER, 0xFFFC_FFFF | 1 << 16)
    port.write(Gpio.MODER, 0xFFFD_FFFF)
    assert levels == []
    port.write(Gpio.BSRR, 1 << 24)
    port.write(Gpio.BSRR, 1 << 8)
    assert levels == [0, 1]
    with pytest.raises(BoardError, match="open drain"):
        Gpio(Desk(), 0xFFFF_FFFF, 0, {8: levels.append}, frozenset({8})).write(Gpio.MODER, 0xFFFD_FFFF)  # type: ignore[arg-type]


def test_joins_have_losses_of_their_own_and_leave_those_of_frames_alone() -> None:
    calm, joining = (Air(3, [NODE, OTHER], uplink_loss=0.3, downlink_loss=0.3) for _ in range(2))
    answers = [joining.join(NODE, 60.0 * attempt, 3) for attempt in range(100)]
    assert 30 < sum(answers) < 70
    heard = []
    for air in (calm, joining):
        for frame in range(50):
            air.uplink(NODE, 10_000.0 + frame, 10, b"x", 3, confirmed=False)
        heard.append([event.time_s for event in air.take().uplinks])
    assert heard[0] == heard[1]
    assert not joining.join("0000000000000000", 0.0, 3)


def test_a_join_begins_a_session_and_its_counters() -> None:
    air = Air(1, [NODE])
    air.uplink(NODE, 1.0, 10, b"a", 3, confirmed=False)
    assert air.join(NODE, 2.0, 3)
    air.uplink(NODE, 3.0, 10, b"b", 3, confirmed=False)
    events = air.take()
    assert [(uplink.session, uplink.f_cnt) for uplink in events.uplinks] == [(0, 0), (1, 0)]
    assert events.joined == [Joined(NODE, 2.0, 1)]
    air.away = True
    assert not air.join(NODE, 4.0, 3)
    assert air.uplink(NODE, 5.0, 10, b"c", 3, confirmed=False) == []
    assert not air.answers(NODE)
    assert air.traffic(NODE).joins_sent == 2
    assert air.traffic(NODE).uplinks_lost == 1
