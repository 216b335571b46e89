"""An emulated RAK3172 with RUI3's AT commands, joined to a LoRaWAN network as class A.

Timing follows LoRaMac: a frame's air time, then RX1 one second and RX2 two seconds after its end; the confirmation of
the send comes with the end of the receive windows. Commands: ``AT``, ``AT+NJS=?``, ``AT+JOIN``, ``AT+DR``, ``AT+LPM``,
``AT+SEND=port:hex``. Anything else is ``AT_ERROR``, as in the module.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from nodes.emulator.energy import MODEM_ACTIVE, MODEM_SLEEP, MODEM_TRANSMIT
from nodes.emulator.interfaces import Downlink, Radio
from nodes.emulator.peripherals import NEVER, Host

PAYLOAD_LIMITS = (51, 51, 51, 115, 222, 222)
"""EU868 application payload by data rate, bytes (LoRaWAN Regional Parameters RP002-1.0.3, repeater compatible)."""
_LORAWAN_OVERHEAD = 13
_ANSWER_S = 0.01
_RX1_S, _RX2_S = 1.0, 2.0
_IDLE_WINDOW_SYMBOLS = 8
_SEND = re.compile(r"AT\+SEND=(\d{1,3}):((?:[0-9A-Fa-f]{2})*)")
_LINE_LIMIT = 1024


def air_time_s(payload_length: int, data_rate: int) -> float:
    """Time on air of an application payload, s (Semtech AN1200.13; 125 kHz, coding rate 4/5, 8 symbols preamble)."""
    spreading = 12 - data_rate
    symbol_s = (1 << spreading) / 125_000
    low_rate = 1 if spreading >= 11 else 0
    bits = 8 * (payload_length + _LORAWAN_OVERHEAD) - 4 * spreading + 28 + 16
    symbols = 8 + max(math.ceil(bits / (4 * (spreading - 2 * low_rate))) * 5, 0)
    return (8 + 4.25 + symbols) * symbol_s


def _nowhere(data: bytes, time: float) -> None:
    """Not connected yet."""
    del data, time


class Modem:
    """The module at the far end of the UART."""

    def __init__(self, host: Host, radio: Radio, dev_eui: str, data_rate: int) -> None:
        """Power up, joined.

        Args:
            host: the board.
            radio: the air.
            dev_eui: identity of the session.
            data_rate: EU868 data rate the network has assigned.
        """
        self._host, self._radio, self._dev_eui = host, radio, dev_eui
        self.data_rate = data_rate
        self.say: Callable[[bytes, float], None] = _nowhere
        """Where answers go: bytes and the time their transmission starts."""
        self.due = NEVER
        """When a frame's transmission ends."""
        self._line = bytearray()
        self._frame: tuple[int, bytes] | None = None
        self._busy_until = 0.0
        self.frames = 0
        self.air_s = 0.0

    def byte(self, value: int) -> None:
        """A byte arrived from the microcontroller."""
        if value not in b"\r\n":
            if len(self._line) < _LINE_LIMIT:
                self._line.append(value)
            return
        line, self._line = bytes(self._line), bytearray()
        if line:
            self._host.ledger.charge("modem active", MODEM_ACTIVE.ua, len(line) * 10 / 9600 + _ANSWER_S)
            self._answer(self._command(line.decode("ascii", errors="replace")))

    def book(self, duration_s: float) -> None:
        """Charge the sleep current for a stretch of time."""
        self._host.ledger.charge("modem sleep", MODEM_SLEEP.ua, duration_s)

    def _answer(self, text: str) -> None:
        self._say(f"\r\n{text}\r\n", self._host.now() + _ANSWER_S)

    def _say(self, text: str, time: float) -> None:
        self._host.ledger.charge("modem active", MODEM_ACTIVE.ua, len(text) * 10 / 9600)
        self.say(text.encode("ascii"), time)

    def _command(self, line: str) -> str:
        fixed = {
            "AT": "OK",
            "AT+NJS=?": "AT+NJS=1\r\n\r\nOK",
            "AT+DR=?": f"AT+DR={self.data_rate}\r\n\r\nOK",
            "AT+LPM=1": "OK",
            "AT+JOIN": "OK\r\n\r\n+EVT:JOINED",
        }
        if line in fixed:
            return fixed[line]
        if line.startswith("AT+DR="):
            value = line.removeprefix("AT+DR=")
            if len(value) != 1 or value not in "012345":
                return "AT_PARAM_ERROR"
            self.data_rate = int(value)
            return "OK"
        if line.startswith("AT+SEND="):
            return self._send(line)
        return "AT_ERROR"

    def _send(self, line: str) -> str:
        match = _SEND.fullmatch(line)
        if not match or not 1 <= int(match[1]) <= 223:
            return "AT_PARAM_ERROR"
        payload = bytes.fromhex(match[2])
        if len(payload) > PAYLOAD_LIMITS[self.data_rate]:
            return "AT_PARAM_ERROR"
        now = self._host.now()
        if now < self._busy_until or self._frame is not None:
            return "AT_BUSY_ERROR"
        air_s = air_time_s(len(payload), self.data_rate)
        self._frame = (int(match[1]), payload)
        self.due = now + _ANSWER_S + air_s
        self._busy_until = self.due + _RX2_S + 0.5
        self._host.ledger.charge("modem transmit", MODEM_TRANSMIT.ua, air_s)
        self.frames += 1
        self.air_s += air_s
        return "OK"

    def advance(self, now: float) -> None:
        """The frame is on its way; listen."""
        self.due = NEVER
        if self._frame is None:
            return
        (f_port, payload), self._frame = self._frame, None
        downlinks = self._radio.uplink(
            self._dev_eui, self._host.start_s + now, f_port, payload, self.data_rate, confirmed=False
        )
        symbol_s = (1 << 12 - self.data_rate) / 125_000
        if downlinks:
            self._deliver(downlinks, now)
        else:
            listening_s = _IDLE_WINDOW_SYMBOLS * (symbol_s + 2**12 / 125_000)
            self._host.ledger.charge("modem active", MODEM_ACTIVE.ua, listening_s)
            self._busy_until = now + _RX2_S + _IDLE_WINDOW_SYMBOLS * 2**12 / 125_000
            self._say("\r\n+EVT:TX_DONE\r\n", self._busy_until)

    def _deliver(self, downlinks: list[Downlink], now: float) -> None:
        """Frames arrive in RX1; the confirmation of the send comes first, then the data."""
        time = now + _RX1_S
        text = "\r\n+EVT:TX_DONE\r\n"
        for downlink in downlinks:
            air_s = air_time_s(len(downlink.payload), self.data_rate)
            time += air_s
            self._host.ledger.charge("modem active", MODEM_ACTIVE.ua, air_s)
            text += f"\r\n+EVT:RX_1:-71:8:UNICAST:{downlink.f_port}:{downlink.payload.hex().upper()}\r\n"
        self._busy_until = time
        self._say(text, time)
