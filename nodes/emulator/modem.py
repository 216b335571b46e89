"""An emulated RAK3172 with RUI3's AT commands: a LoRaWAN class A modem with a mind of its own.

Timing follows LoRaMac: a frame's air time, then RX1 one second and RX2 two seconds after its end (five and six after a
join request); the confirmation of the send comes with the end of the receive windows, before what arrived in them.
Identity, keys and manners live in the module's own flash and survive a reset; the session does not. Anything it does
not know is ``AT_ERROR``. Not in the model: joins it would attempt by itself, classes B and C, the echo.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum, auto

from nodes.emulator.energy import MODEM_ACTIVE, MODEM_SLEEP, MODEM_TRANSMIT
from nodes.emulator.interfaces import Downlink, Radio
from nodes.emulator.peripherals import NEVER, Host
from shared_models.airtime import MAC_OVERHEAD, MAX_PAYLOAD, airtime_s

JOIN_DUTY_CYCLE = 0.01
"""Of join requests in the first hour (LoRaWAN 1.0.3 section 7); the module then refuses with a waiting time."""
_JOIN_REQUEST, _JOIN_ACCEPT = 23 - MAC_OVERHEAD, 33 - MAC_OVERHEAD
_ANSWER_S = 0.01
_BOOT_S = 0.5
_RX1_S, _RX2_S = 1.0, 2.0
_JOIN_RX1_S, _JOIN_RX2_S = 5.0, 6.0
_IDLE_WINDOW_SYMBOLS = 8
_BABBLE = 400 * "+EVT:NOTHING\r\n"
_LINE_LIMIT = 1024
_BANNER = "RAKwireless RAK3172\r\n" + 54 * "-" + "\r\nCurrent Work Mode: LoRaWAN.\r\n"
_SEND = re.compile(r"AT\+SEND=(\d{1,3}):((?:[0-9A-Fa-f]{2})*)")
_JOIN = re.compile(r"AT\+JOIN(?:=1:0:(?:[7-9]|\d\d|1\d\d|2[0-4]\d|25[0-5]):0)?")
_SETTINGS = {
    "DEVEUI": r"[0-9A-Fa-f]{16}",
    "APPEUI": r"[0-9A-Fa-f]{16}",
    "APPKEY": r"[0-9A-Fa-f]{32}",
    "NJM": "[01]",
    "CLASS": "[ABC]",
    "BAND": r"[0-9]|1[0-2]",
    "ADR": "[01]",
    "CFM": "[01]",
    "LPM": "[01]",
}
FACTORY_SETTINGS = {
    "DEVEUI": "AC1F09FFFE000000",
    "APPEUI": 16 * "0",
    "APPKEY": 32 * "0",
    "NJM": "1",
    "CLASS": "A",
    "BAND": "4",
    "ADR": "1",
    "CFM": "0",
    "LPM": "0",
}
"""As the module leaves the factory; the values of identity and keys are made up."""


class Fault(Enum):
    """What can be wrong with a module; a test switches it on."""

    SILENT = auto()
    """It hears nothing and says nothing."""
    GARBAGE = auto()
    """Every answer is noise."""
    BABBLING = auto()
    """Every answer is five seconds of other things."""
    REFUSING = auto()
    """Every command is an error."""
    BUSY = auto()
    """Every join and frame has to wait."""
    FLAT = auto()
    """It resets itself whenever it transmits, as a weak battery makes it do."""


class Cure(Enum):
    """What ends a fault."""

    NOTHING = auto()
    COMMAND = auto()
    """``ATZ``, or the reset line."""
    LINE = auto()
    """Only the reset line."""


def _nowhere(data: bytes, time: float) -> None:
    """Not connected yet."""
    del data, time


class Modem:
    """The module at the far end of the UART."""

    def __init__(self, host: Host, radio: Radio, dev_eui: str, data_rate: int, *, joined: bool = True) -> None:
        """Power up.

        Args:
            host: the board.
            radio: the air.
            dev_eui: identity of the session, if there is one.
            data_rate: EU868 data rate the network has assigned.
            joined: whether it was provisioned before and has a session; else it is as the factory made it.
        """
        self._host, self._radio = host, radio
        self.data_rate = data_rate
        self.settings = dict(FACTORY_SETTINGS)
        """In the module's own flash."""
        self.settings_written = 0
        """How often that flash was written."""
        self.joined = joined
        if joined:
            self.settings |= {"DEVEUI": dev_eui.upper(), "LPM": "1"}
        self.say: Callable[[bytes, float], None] = _nowhere
        """Where answers go: bytes and the time their transmission starts."""
        self.due = NEVER
        """When a transmission ends."""
        self._done: Callable[[float], None] | None = None
        self._line = bytearray()
        self._busy_until = 0.0
        self._deaf_until = 0.0
        self._next_join = 0.0
        self._wants_time = self._wants_check = False
        self._network_offset_s: float | None = None
        self._fault: Fault | None = None
        self._cure = Cure.NOTHING
        self.frames = 0
        self.air_s = 0.0
        self.commands: list[str] = []
        """Every line it was told while it could hear."""
        self.joins = 0
        """Join requests on air."""
        self.resets = 0

    def break_down(self, fault: Fault, cure: Cure = Cure.NOTHING) -> None:
        """Switch a fault on."""
        self._fault, self._cure = fault, cure

    def heal(self) -> None:
        """Switch it off."""
        self._fault = None

    def restart(self) -> None:
        """Reset: the session and whatever was under way are lost."""
        self.resets += 1
        self.joined = False
        self.due, self._done = NEVER, None
        self._line.clear()
        self._busy_until = 0.0
        self._wants_time = self._wants_check = False
        self._network_offset_s = None
        self._deaf_until = self._host.now() + _BOOT_S
        self._host.ledger.charge("modem active", MODEM_ACTIVE.ua, _BOOT_S)
        if self._fault is not Fault.SILENT:
            self._say(_BANNER, self._deaf_until)

    def reset_line(self, level: int) -> None:
        """The reset pin was pulled low, or let go."""
        if level:
            if self._cure is not Cure.NOTHING:
                self.heal()
            self.restart()

    @property
    def transmitting(self) -> bool:
        """Whether a frame is on its way out."""
        return self.due != NEVER

    def byte(self, value: int) -> None:
        """A byte arrived from the microcontroller."""
        if self._host.now() < self._deaf_until:
            return
        if value not in b"\r\n":
            if len(self._line) < _LINE_LIMIT:
                self._line.append(value)
            return
        line, self._line = bytes(self._line), bytearray()
        if not line:
            return
        text = line.decode("ascii", errors="replace")
        if text == "ATZ" and self._cure is Cure.COMMAND:
            self.heal()
        if self._fault is Fault.SILENT:
            return
        self.commands.append(text)
        self._host.ledger.charge("modem active", MODEM_ACTIVE.ua, len(line) * 10 / 9600 + _ANSWER_S)
        if text == "ATZ":
            self.restart()
            return
        answer = "AT_ERROR" if self._fault is Fault.REFUSING else self._command(text)
        now = self._host.now() + _ANSWER_S
        if self._fault is Fault.GARBAGE:
            self.say(bytes(0x80 | byte for byte in answer.encode("ascii")) + b"\r\n", now)
        elif self._fault is Fault.BABBLING:
            self._say(_BABBLE, now)
        else:
            self._say(f"\r\n{answer}\r\n", now)

    def book(self, duration_s: float) -> None:
        """Charge the current of a module nobody talks to for a stretch of time."""
        if self.settings["LPM"] == "1":
            self._host.ledger.charge("modem sleep", MODEM_SLEEP.ua, duration_s)
        else:
            self._host.ledger.charge("modem active", MODEM_ACTIVE.ua, duration_s)

    def advance(self, now: float) -> None:
        """What was on air has ended."""
        done, self.due, self._done = self._done, NEVER, None
        if done is not None:
            done(now)

    def _say(self, text: str, time: float) -> None:
        self._host.ledger.charge("modem active", MODEM_ACTIVE.ua, len(text) * 10 / 9600)
        self.say(text.encode("ascii"), time)

    def _command(self, line: str) -> str:
        name, separator, value = line.removeprefix("AT+").partition("=")
        if line.startswith("AT+SEND="):
            return self._send(line)
        if line.startswith("AT+JOIN"):
            return self._join(line)
        if separator and value == "?":
            known = self.settings | {"NJS": str(int(self.joined)), "DR": str(self.data_rate), "LTIME": self._time()}
            return f"AT+{name}={known[name]}\r\n\r\nOK" if name in known else "AT_ERROR"
        if separator and name in _SETTINGS:
            return self._set(name, value)
        if line in ("AT+LINKCHECK=1", "AT+TIMEREQ=1"):
            if not self.joined:
                return "AT_NO_NETWORK_JOINED"
            self._wants_check |= name == "LINKCHECK"
            self._wants_time |= name == "TIMEREQ"
            return "OK"
        if separator and name == "DR":
            if len(value) != 1 or value not in "012345":
                return "AT_PARAM_ERROR"
            self.data_rate = int(value)
            return "OK"
        return "OK" if line == "AT" else "AT_ERROR"

    def _set(self, name: str, value: str) -> str:
        if not re.fullmatch(_SETTINGS[name], value):
            return "AT_PARAM_ERROR"
        self.settings[name] = value.upper()
        self.settings_written += 1
        return "OK"

    def _time(self) -> str:
        """UTC as the network last told it, the month first; a clock nobody set begins in 1970."""
        seconds = self._host.now() + (self._network_offset_s or 0.0)
        return datetime.fromtimestamp(int(seconds), UTC).strftime("%Hh%Mm%Ss on %m/%d/%Y")

    def _transmit(self, payload_length: int, done: Callable[[float], None]) -> float:
        """Go on air; its duration."""
        air_s = airtime_s(self.data_rate, payload_length)
        self.due = self._host.now() + _ANSWER_S + air_s
        self._done = done
        self._host.ledger.charge("modem transmit", MODEM_TRANSMIT.ua, air_s)
        if self._fault is Fault.FLAT:
            self._done = lambda _now: self.restart()
        return air_s

    def _is_busy(self) -> bool:
        return self._fault is Fault.BUSY or self._host.now() < self._busy_until or self.due != NEVER

    # Joining

    def _join(self, line: str) -> str:
        if not _JOIN.fullmatch(line):
            return "AT_PARAM_ERROR"
        if self._is_busy():
            return "AT_BUSY_ERROR"
        now = self._host.now()
        if now < self._next_join:
            return f"Restricted_Wait_{round(1000 * (self._next_join - now))}_ms\r\n\r\nAT_BUSY_ERROR"
        self.joined = False
        air_s = self._transmit(_JOIN_REQUEST, self._join_sent)
        self._next_join = now + air_s / JOIN_DUTY_CYCLE
        self._busy_until = self.due + _JOIN_RX2_S + 0.5
        self.joins += 1
        return "OK"

    def _join_sent(self, now: float) -> None:
        accepted = self._radio.join(self.settings["DEVEUI"].lower(), self._host.start_s + now, self.data_rate)
        if accepted:
            air_s = airtime_s(self.data_rate, _JOIN_ACCEPT)
            self.joined = True
            self._busy_until = now + _JOIN_RX1_S + air_s
            self._host.ledger.charge("modem active", MODEM_ACTIVE.ua, air_s)
            self._say("+EVT:JOINED\r\n", self._busy_until)
        else:
            self._busy_until = now + _JOIN_RX2_S + self._listen_in_vain()
            self._say("+EVT:JOIN_FAILED_RX_TIMEOUT\r\n", self._busy_until)

    def _listen_in_vain(self) -> float:
        """Both receive windows find nothing; the length of the second, s."""
        symbol_s, slowest_s = (1 << 12 - self.data_rate) / 125_000, 2**12 / 125_000
        self._host.ledger.charge("modem active", MODEM_ACTIVE.ua, _IDLE_WINDOW_SYMBOLS * (symbol_s + slowest_s))
        return _IDLE_WINDOW_SYMBOLS * slowest_s

    # Frames

    def _send(self, line: str) -> str:
        match = _SEND.fullmatch(line)
        if not match or not 1 <= int(match[1]) <= 223:
            return "AT_PARAM_ERROR"
        payload = bytes.fromhex(match[2])
        if not self.joined:
            return "AT_NO_NETWORK_JOINED"
        if len(payload) > MAX_PAYLOAD[self.data_rate]:
            return "AT_PARAM_ERROR"
        if self._is_busy():
            return "AT_BUSY_ERROR"
        self._uplink(int(match[1]), payload)
        return "OK"

    def _uplink(self, f_port: int, payload: bytes) -> None:
        self.air_s += self._transmit(len(payload), lambda now: self._uplink_sent(now, f_port, payload))
        self._busy_until = self.due + _RX2_S + 0.5
        self.frames += 1

    def _uplink_sent(self, now: float, f_port: int, payload: bytes) -> None:
        dev_eui, time_s = self.settings["DEVEUI"].lower(), self._host.start_s + now
        downlinks = self._radio.uplink(dev_eui, time_s, f_port, payload, self.data_rate, confirmed=False)
        answered = (self._wants_time or self._wants_check) and self._radio.answers(dev_eui)
        before, after = self._network_says(time_s, answered=answered)
        if downlinks:
            self._deliver(downlinks, now, before, after)
        elif answered:
            self._busy_until = now + _RX1_S + airtime_s(self.data_rate, 0)
            self._host.ledger.charge("modem active", MODEM_ACTIVE.ua, airtime_s(self.data_rate, 0))
            self._say(f"\r\n+EVT:TX_DONE\r\n{before}{after}", self._busy_until)
        else:
            self._busy_until = now + _RX2_S + self._listen_in_vain()
            self._say(f"\r\n+EVT:TX_DONE\r\n{before}{after}", self._busy_until)

    def _network_says(self, time_s: float, *, answered: bool) -> tuple[str, str]:
        """What it makes of the network's answers: before the frame that came with them, and after it."""
        before = after = ""
        if self._wants_time:
            before = f"+EVT:TIMEREQ_{'OK' if answered else 'FAILED'}\r\n"
            if answered:
                self._network_offset_s = self._radio.network_time_s(time_s) - (time_s - self._host.start_s)
        if self._wants_check and answered:
            after = "+EVT:LINKCHECK:0:21:1:-71:8\r\n"
        elif self._wants_check:
            before += "+EVT:LINKCHECK:1:0:0:0:0\r\n"
        self._wants_time = self._wants_check = False
        return before, after

    def _deliver(self, downlinks: list[Downlink], now: float, before: str, after: str) -> None:
        """Frames arrive in RX1; the confirmation of the send comes first, then the data."""
        time = now + _RX1_S
        text = f"\r\n+EVT:TX_DONE\r\n{before}"
        for downlink in downlinks:
            air_s = airtime_s(self.data_rate, len(downlink.payload))
            time += air_s
            self._host.ledger.charge("modem active", MODEM_ACTIVE.ua, air_s)
            text += f"\r\n+EVT:RX_1:-71:8:UNICAST:{downlink.f_port}:{downlink.payload.hex().upper()}\r\n"
        self._busy_until = time
        self._say(text + after, time)
        if any(downlink.pending for downlink in downlinks):  # RUI3 fetches the rest by itself
            self._busy_until = time + _RX1_S
            self.due, self._done = time, lambda _now: self._uplink(1, b"")
