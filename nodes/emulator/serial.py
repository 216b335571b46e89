"""The node's two serial lines: I2C with an SHT4x on it, and the low-power UART to the modem."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import ClassVar

from nodes.emulator.energy import SHT4X_IDLE, SHT4X_MEASURE
from nodes.emulator.peripherals import LSE, NEVER, BoardError, Host, KernelClock, Peripheral

_I2C_BYTE_S = 9 / 100_000
_UART_BAUD = 9600
_UART_BYTE_S = 10 / _UART_BAUD
_UART_TOLERANCE = 0.03
_SCL_LOW_S, _SCL_HIGH_S = 4.7e-6, 4.0e-6
"""Standard mode, 100 kHz (I2C-bus specification, table 10)."""


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
    START_UP_S = 0.001

    def __init__(self, host: Host, air: Callable[[float], tuple[float, float]]) -> None:
        self._host, self._air = host, air
        self._ready_at = NEVER
        self._answer = b""
        self.silent = False
        """Set by a test: the sensor does not acknowledge."""
        self.corrupt = False
        """Set by a test: a bit of each answer flips on the way."""
        self.powered_at: float | None = None
        """Since when it is fed; None: it is not, and neither are the bus's pull-ups."""

    def feed(self, level: int) -> None:
        """Its supply pin was driven high or low."""
        now = self._host.now()
        if not level and self.powered_at is not None:
            self._host.ledger.charge("air sensor idle", SHT4X_IDLE.ua, now - self.powered_at)
        self.powered_at = now if level else None
        self._ready_at = NEVER

    def answers(self) -> bool:
        """Whether the sensor acknowledges its address at all."""
        if self.powered_at is None or self._host.now() < self.powered_at + self.START_UP_S:
            return False
        return not self.silent and not any(
            math.isnan(value) for value in self._air(self._host.start_s + self._host.now())
        )

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
        if self.corrupt:
            self._answer = bytes([self._answer[0] ^ 0x10]) + self._answer[1:]
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
    CR1, CR2, TIMINGR, ISR, ICR, RXDR, TXDR = 0x00, 0x04, 0x10, 0x18, 0x1C, 0x24, 0x28
    TXIS, RXNE, NACKF, STOPF = 1 << 1, 1 << 2, 1 << 4, 1 << 5
    registers: ClassVar = {
        CR1: 0x00FF_DFFF,
        CR2: 0x07FF_FFFF,
        TIMINGR: 0xF0FF_FFFF,
        ISR: 1,
        ICR: 0x3F38,
        RXDR: 0,
        TXDR: 0xFF,
    }
    write_only = frozenset({ICR})

    def __init__(self, host: Host, device: Sht4x) -> None:
        self._device = device
        self.stuck = False
        """Set by a test: something holds the bus low, and no transfer begins."""
        self.connected: Callable[[], bool] = lambda: True
        """Whether the bus reaches its pins, open-drain."""
        self.hz: Callable[[], float] = lambda: 4_000_000.0
        """The clock it counts with."""
        super().__init__(host)
        self.reads = {self.ISR: self._status, self.RXDR: self._receive}
        self.writes = {
            self.CR1: self._enable,
            self.CR2: self._start,
            self.TIMINGR: self._time,
            self.ICR: self._clear,
            self.TXDR: self._transmit,
        }

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

    def _time(self, value: int) -> None:
        if self.values.get(self.CR1, 0) & 1:
            raise BoardError("I2C1: TIMINGR written while the peripheral is enabled")
        self.values[self.TIMINGR] = value

    def _check_timing(self) -> None:
        """The clock's low and high time, with the two periods that synchronisation takes at the least."""
        timing = self.values.get(self.TIMINGR, 0)
        period_s = ((timing >> 28) + 1) / self.hz()
        low_s = ((timing & 0xFF) + 1 + 2) * period_s
        high_s = ((timing >> 8 & 0xFF) + 1 + 2) * period_s
        if low_s < _SCL_LOW_S or high_s < _SCL_HIGH_S:
            raise BoardError(f"I2C1: TIMINGR gives SCL {low_s * 1e6:.2f} us low, {high_s * 1e6:.2f} us high: too fast")

    def _clear(self, value: int) -> None:
        self._flags &= ~value

    def _start(self, value: int) -> None:
        self.values[self.CR2] = value
        if not value & 1 << 13:
            return
        if not self.values.get(self.CR1, 0) & 1:
            raise BoardError("I2C1: START while the peripheral is disabled")
        self._check_timing()
        if self.stuck:
            self._flags = 0
            return
        self._reading = bool(value & 1 << 10)
        self._left = value >> 16 & 0xFF
        self._ready_at = self.host.now() + _I2C_BYTE_S
        self._buffer = bytearray()
        acknowledged = self.connected() and value >> 1 & 0x7F == self._device.ADDRESS and self._device.answers()
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
    """LPUART1: receives in STOP when its clock is LSE and UESM is set; what it sends needs the core out of STOP."""

    name = "LPUART1"
    CR1, CR2, CR3, BRR, ISR, ICR, RDR, TDR = 0x00, 0x04, 0x08, 0x0C, 0x1C, 0x20, 0x24, 0x28
    RXNE, TC, ORE, TXE = 1 << 5, 1 << 6, 1 << 3, 1 << 7
    UE, UESM, RE, TE = 1 << 0, 1 << 1, 1 << 2, 1 << 3
    RXNEIE, TCIE = 1 << 5, 1 << 6
    WUS, WUS_RXNE, WUFIE = 3 << 20, 3 << 20, 1 << 22
    registers: ClassVar = {
        CR1: 0x13FF_7FFF & ~(1 << 15),
        CR2: 0xFF0F_B010,
        CR3: 0x00F0_F7C9,
        BRR: 0x000F_FFFF,
        ISR: 0,
        ICR: 0x0012_025F,
        RDR: 0,
        TDR: 0x1FF,
    }
    write_only = frozenset({ICR})
    SMALLEST_BRR = 0x300

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
        self.kernel: Callable[[], KernelClock] = lambda: LSE
        """The clock it counts with."""
        self.sends: Callable[[], bool] = lambda: True
        """Whether its output reaches the pin."""
        self.hears: Callable[[], bool] = lambda: True
        """Whether the pin reaches its input."""
        self._stopped = False
        super().__init__(host)
        self.reads = {self.ISR: lambda: self._flags, self.RDR: self._receive}
        self.writes = {
            self.CR1: self._control,
            self.CR3: self._wake_up,
            self.BRR: self._divide,
            self.ICR: self._clear,
            self.TDR: self._transmit,
        }

    def reset(self) -> None:
        """Line idle; what the other side sends meanwhile is lost."""
        super().reset()
        self._flags = self.TC | self.TXE
        self._incoming: deque[tuple[float, int]] = deque()
        self._byte = 0
        self._sending: tuple[float, int] | None = None
        self._line_free_at = 0.0
        self._stopped = False

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

    def _enabled(self, bit: int) -> bool:
        return bool(self.values.get(self.CR1, 0) & bit)

    def _control(self, value: int) -> None:
        self.values[self.CR1] = value
        if not value & self.UE:
            self._flags = self.TC | self.TXE

    def _wake_up(self, value: int) -> None:
        if self._enabled(self.UE) and (value ^ self.values.get(self.CR3, 0)) & self.WUS:
            raise BoardError("LPUART1: WUS written while enabled")
        self.values[self.CR3] = value

    def _divide(self, value: int) -> None:
        if self._enabled(self.UE):
            raise BoardError("LPUART1: BRR written while enabled")
        if value < self.SMALLEST_BRR:
            raise BoardError(f"LPUART1: BRR {value:#x} is below {self.SMALLEST_BRR:#x}")
        self.values[self.BRR] = value

    def _clear(self, value: int) -> None:
        self._flags &= ~(value & (self.TC | self.ORE))

    def _heard_as(self, byte: int) -> int:
        """What a byte becomes between two sides that disagree on the baud rate."""
        divider = self.values.get(self.BRR, 0)
        baud = 256 * self.kernel().hz / divider if divider else 0.0
        agree = abs(baud / _UART_BAUD - 1) <= _UART_TOLERANCE
        return byte if agree else 0x80 | (byte * 5 + 3) & 0x7F

    def _transmit(self, value: int) -> None:
        if not self._enabled(self.UE) or not self._enabled(self.TE):
            raise BoardError("LPUART1: transmit while disabled")
        if self._sending:
            raise BoardError("LPUART1: TDR written while a byte is being sent")
        self._flags &= ~self.TC
        if self.kernel().hz:
            self._sending = (self.host.now() + _UART_BYTE_S, value & 0xFF)
        self._plan()

    def _receive(self) -> int:
        self._flags &= ~self.RXNE
        return self._byte

    def advance(self, now: float) -> None:
        """A byte arrived or left."""
        if self._sending and self._sending[0] <= now:
            byte = self._sending[1]
            self._sending = None
            self._flags |= self.TC
            if self._enabled(self.TCIE):
                self.host.pend(self._irq)
            if self.sends():
                self.listener(self._heard_as(byte))
        if self._incoming and self._incoming[0][0] <= now:
            _, byte = self._incoming.popleft()
            if self._listens():
                self._take(self._heard_as(byte))
        self._plan()

    def _listens(self) -> bool:
        if not self._enabled(self.UE) or not self._enabled(self.RE) or not self.hears():
            return False
        clock = self.kernel()
        return clock.hz > 0.0 and (not self._stopped or (clock.in_stop and self._enabled(self.UESM)))

    def _take(self, byte: int) -> None:
        if self._flags & (self.RXNE | self.ORE):
            self._flags |= self.ORE
        else:
            self._byte = byte
            self._flags |= self.RXNE
        wakes = self.WUS_RXNE | self.WUFIE
        if self._enabled(self.RXNEIE) or self.values.get(self.CR3, 0) & wakes == wakes:
            self.host.pend(self._irq)

    def enter_stop(self) -> None:
        """A byte on its way out breaks off: it never completes."""
        self._stopped = True
        if self._sending:
            self._sending = None
            self._plan()

    def leave_stop(self) -> None:
        """The bus is back."""
        self._stopped = False
