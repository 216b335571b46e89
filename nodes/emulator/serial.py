"""The node's two serial lines: I2C with an SHT4x on it, and the low-power UART to the modem."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from nodes.emulator.energy import SHT4X_MEASURE
from nodes.emulator.peripherals import NEVER, BoardError, Host, Peripheral

_I2C_BYTE_S = 9 / 100_000
_UART_BYTE_S = 10 / 9600


def crc8(data: bytes) -> int:
    """Sensirion's checksum: polynomial 0x31, initial value 0xFF (SHT4x data sheet section 4.4)."""
    crc = 0xFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x31 if crc & 0x80 else crc << 1) & 0xFF
    return crc


class Sht4x:
    """Temperature and humidity sensor at address 0x44: command 0xFD, six bytes 8.3 ms later."""

    ADDRESS = 0x44
    HIGH_PRECISION = 0xFD
    MEASURE_S = 0.0083

    def __init__(self, host: Host, air: Callable[[float], tuple[float, float]]) -> None:
        self._host, self._air = host, air
        self._ready_at = NEVER
        self._answer = b""

    def answers(self) -> bool:
        """Whether the sensor acknowledges its address at all."""
        return not any(math.isnan(value) for value in self._air(self._host.start_s + self._host.now()))

    def command(self, data: bytes) -> None:
        """A write transfer ended."""
        if data != bytes([self.HIGH_PRECISION]):
            return
        now = self._host.now()
        temperature_c, humidity = self._air(self._host.start_s + now)
        ticks_t = min(max(round((temperature_c + 45.0) * 65535 / 175), 0), 65535)
        ticks_h = min(max(round((humidity + 6.0) * 65535 / 125), 0), 65535)
        words = [ticks_t.to_bytes(2, "big"), ticks_h.to_bytes(2, "big")]
        self._answer = b"".join(word + bytes([crc8(word)]) for word in words)
        self._ready_at = now + self.MEASURE_S
        self._host.ledger.charge("air sensor", SHT4X_MEASURE.ua, self.MEASURE_S)

    def result(self) -> bytes | None:
        """The measurement; None while it runs (the sensor then does not acknowledge)."""
        if self._host.now() < self._ready_at:
            return None
        self._ready_at, answer = NEVER, self._answer
        return answer


class I2c(Peripheral):
    """I2C master with one device; transfers end by themselves (AUTOEND)."""

    name = "I2C1"
    CR1, CR2, ISR, ICR, RXDR, TXDR = 0x00, 0x04, 0x18, 0x1C, 0x24, 0x28
    TXIS, RXNE, NACKF, STOPF = 1 << 1, 1 << 2, 1 << 4, 1 << 5

    def __init__(self, host: Host, device: Sht4x) -> None:
        self._device = device
        super().__init__(host)
        self.reads = {self.ISR: self._status, self.RXDR: self._receive}
        self.writes = {self.CR1: self._enable, self.CR2: self._start, self.TXDR: self._transmit}

    def reset(self) -> None:
        """Idle bus."""
        super().reset()
        self._flags = 0
        self._ready_at = 0.0
        self._reading = False
        self._left = 0
        self._buffer = bytearray()

    def _enable(self, value: int) -> None:
        self.values[self.CR1] = value
        if not value & 1:
            self._flags = 0

    def _start(self, value: int) -> None:
        self.values[self.CR2] = value
        if not value & 1 << 13:
            return
        if not self.values.get(self.CR1, 0) & 1:
            raise BoardError("I2C1: START while the peripheral is disabled")
        self._reading = bool(value & 1 << 10)
        self._left = value >> 16 & 0xFF
        self._ready_at = self.host.now() + _I2C_BYTE_S
        self._buffer = bytearray()
        acknowledged = value >> 1 & 0x7F == self._device.ADDRESS and self._device.answers()
        if acknowledged and self._reading:
            answer = self._device.result()
            acknowledged = answer is not None
            self._buffer = bytearray((answer or b"")[: self._left])
        if not acknowledged:
            self._flags = self.NACKF | self.STOPF
        else:
            self._flags = self.RXNE if self._reading else self.TXIS
        if acknowledged and self._reading:
            self._ready_at += _I2C_BYTE_S

    def _status(self) -> int:
        self.host.stall_until(self._ready_at)
        return self._flags

    def _transmit(self, value: int) -> None:
        self._buffer.append(value & 0xFF)
        self._left -= 1
        self._ready_at = self.host.now() + _I2C_BYTE_S
        if self._left <= 0:
            self._flags = self.STOPF
            self._device.command(bytes(self._buffer))

    def _receive(self) -> int:
        value = self._buffer.pop(0) if self._buffer else 0xFF
        self._left -= 1
        self._ready_at = self.host.now() + _I2C_BYTE_S
        if self._left <= 0:
            self._flags = self.STOPF
        return value


class LowPowerUart(Peripheral):
    """LPUART1 on LSE: receives and sends in STOP."""

    name = "LPUART1"
    CR1, ISR, ICR, RDR, TDR = 0x00, 0x1C, 0x20, 0x24, 0x28
    RXNE, TC, ORE = 1 << 5, 1 << 6, 1 << 3
    RXNEIE, TCIE = 1 << 5, 1 << 6

    def __init__(self, host: Host, irq: int, on_byte: Callable[[int], None]) -> None:
        """Take the line.

        Args:
            host: the board.
            irq: interrupt number.
            on_byte: called with each byte once it has left the line.
        """
        self._irq = irq
        self.listener = on_byte
        """Takes each byte the node has sent."""
        super().__init__(host)
        self.reads = {self.ISR: lambda: self._flags, self.RDR: self._receive}
        self.writes = {self.CR1: self._control, self.ICR: self._clear, self.TDR: self._transmit}

    def reset(self) -> None:
        """Line idle; what the other side sends meanwhile is lost."""
        super().reset()
        self._flags = self.TC
        self._incoming: deque[tuple[float, int]] = deque()
        self._byte = 0
        self._sending: tuple[float, int] | None = None
        self._line_free_at = 0.0

    def feed(self, data: bytes, time: float) -> None:
        """The other side starts to send ``data`` at ``time``, after what it is sending already."""
        for byte in data:
            self._line_free_at = max(self._line_free_at, time) + _UART_BYTE_S
            self._incoming.append((self._line_free_at, byte))
        self._plan()

    def _plan(self) -> None:
        arrival = self._incoming[0][0] if self._incoming else NEVER
        departure = self._sending[0] if self._sending else NEVER
        self.due = min(arrival, departure)

    def _control(self, value: int) -> None:
        self.values[self.CR1] = value
        if not value & 1:
            self._flags = self.TC

    def _clear(self, value: int) -> None:
        self._flags &= ~(value & (self.TC | self.ORE))

    def _transmit(self, value: int) -> None:
        if not self.values.get(self.CR1, 0) & 1:
            raise BoardError("LPUART1: transmit while disabled")
        self._flags &= ~self.TC
        self._sending = (self.host.now() + _UART_BYTE_S, value & 0xFF)
        self._plan()

    def _receive(self) -> int:
        self._flags &= ~self.RXNE
        return self._byte

    def advance(self, now: float) -> None:
        """A byte arrived or left."""
        control = self.values.get(self.CR1, 0)
        if self._sending and self._sending[0] <= now:
            byte = self._sending[1]
            self._sending = None
            self._flags |= self.TC
            if control & self.TCIE:
                self.host.pend(self._irq)
            self.listener(byte)
        if self._incoming and self._incoming[0][0] <= now:
            _, byte = self._incoming.popleft()
            if control & 1:
                if self._flags & self.RXNE:
                    self._flags |= self.ORE
                else:
                    self._byte = byte
                    self._flags |= self.RXNE
                if control & self.RXNEIE:
                    self.host.pend(self._irq)
        self._plan()
