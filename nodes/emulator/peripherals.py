"""Peripheral models that both boards share, each with the semantics its reference manual promises.

A model is a register file with handlers. Three rules keep it honest and quick: touching a block without its clock is a
:class:`BoardError`, not silence; a status flag that software polls is answered when it becomes true, the waiting time
passing at once (the core would only have spun); and nothing happens that simulated time did not bring.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from nodes.emulator.energy import EnergyLedger

NEVER = math.inf


class BoardError(RuntimeError):
    """The firmware did what the hardware would not forgive: a bus fault, an unclocked block, a locked register."""


class Host(Protocol):
    """What a peripheral may ask of its board. Times are seconds since the emulation began."""

    ledger: EnergyLedger
    start_s: int

    def now(self) -> float:
        """Simulated time."""
        ...

    def stall_until(self, time: float) -> None:
        """The core polls until ``time``."""
        ...

    def pend(self, irq: int) -> None:
        """An interrupt line rose."""
        ...


class Peripheral:
    """A block of registers."""

    name = "peripheral"

    def __init__(self, host: Host) -> None:
        self.host = host
        self.clocked = True
        self.values: dict[int, int] = {}
        self.reads: dict[int, Callable[[], int]] = {}
        self.writes: dict[int, Callable[[int], None]] = {}
        self.due = NEVER
        """When this block next changes by itself."""
        self.reset()

    def reset(self) -> None:
        """System reset."""
        self.values.clear()
        self.due = NEVER

    def read(self, offset: int) -> int:
        """The bus reads a word."""
        if not self.clocked:
            raise BoardError(f"{self.name}: read of offset {offset:#x} without its clock")
        handler = self.reads.get(offset)
        return handler() if handler else self.values.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        """The bus writes a word."""
        if not self.clocked:
            raise BoardError(f"{self.name}: write of offset {offset:#x} without its clock")
        handler = self.writes.get(offset)
        if handler:
            handler(value)
        else:
            self.values[offset] = value

    def advance(self, now: float) -> None:
        """Time reached :attr:`due`."""


class Nvic(Peripheral):
    """Interrupt controller: enables and latched pending bits; the firmware never lets one be taken."""

    name = "NVIC"

    def reset(self) -> None:
        """Everything disabled."""
        super().reset()
        self.enabled = 0
        self.pending = 0
        for word in range(3):
            self.writes[0x100 + 4 * word] = self._enable(32 * word)
            self.writes[0x280 + 4 * word] = self._clear(32 * word)

    def _enable(self, first: int) -> Callable[[int], None]:
        def enable(value: int) -> None:
            self.enabled |= value << first

        return enable

    def _clear(self, first: int) -> Callable[[int], None]:
        def clear(value: int) -> None:
            self.pending &= ~(value << first)

        return clear


class SystemControl(Peripheral):
    """System control block: only the sleep-deep bit matters here."""

    name = "SCB"
    SCR = 0x110

    @property
    def sleep_deep(self) -> bool:
        """Whether WFI enters STOP."""
        return bool(self.values.get(self.SCR, 0) & 4)


class Exti(Peripheral):
    """Edge lines that lead out of STOP. Direct lines (LPUART, LPTIM) are unmasked from reset."""

    name = "EXTI"
    IMR, RTSR, PR = 0x00, 0x08, 0x14

    def reset(self) -> None:
        """Edge lines masked."""
        super().reset()
        self.writes[self.PR] = self._acknowledge

    def _acknowledge(self, value: int) -> None:
        self.values[self.PR] = self.values.get(self.PR, 0) & ~value

    def rise(self, line: int, irq: int) -> None:
        """A line rose: pend its interrupt if it is unmasked, rising-edge and not already pending."""
        bit = 1 << line
        if self.values.get(self.IMR, 0) & self.values.get(self.RTSR, 0) & bit and not self.values.get(self.PR, 0) & bit:
            self.values[self.PR] = self.values.get(self.PR, 0) | bit
            self.host.pend(irq)


class Watchdog(Peripheral):
    """Independent watchdog on the internal low-speed oscillator; once started only a reset stops it."""

    name = "IWDG"
    KR, PR, RLR = 0x00, 0x04, 0x08

    def __init__(self, host: Host, lsi_hz: float) -> None:
        self._lsi_hz = lsi_hz
        super().__init__(host)

    def reset(self) -> None:
        """Stopped."""
        super().reset()
        self._open = False
        self.values.update({self.PR: 0, self.RLR: 0xFFF})
        self.writes = {self.KR: self._key, self.PR: self._protected(self.PR), self.RLR: self._protected(self.RLR)}

    def _protected(self, offset: int) -> Callable[[int], None]:
        def write(value: int) -> None:
            if self._open:
                self.values[offset] = value

        return write

    def _key(self, value: int) -> None:
        self._open = value == 0x5555
        if value == 0xCCCC or (value == 0xAAAA and self.due != NEVER):
            prescaler = 4 << min(self.values[self.PR], 6)
            self.due = self.host.now() + (self.values[self.RLR] + 1) * prescaler / self._lsi_hz


class Gpio(Peripheral):
    """One port; reports the level of output pins when it changes."""

    name = "GPIO"
    MODER, OTYPER, ODR, BSRR = 0x00, 0x04, 0x14, 0x18

    MODE_AFTER_RESET = 0xFFFF_FFFF  # analogue

    def __init__(
        self, host: Host, loads: dict[int, Callable[[int], None]], pulled_up: frozenset[int] = frozenset()
    ) -> None:
        """Take the port.

        Args:
            host: the board.
            loads: by pin, called with 0 or 1 when the driven level changes; a pin that is not an output counts as low,
                because the load has a pull-down.
            pulled_up: loads with a pull-up instead, which may only be driven by an open drain.
        """
        self._loads, self._pulled_up = loads, pulled_up
        self._driven: dict[int, int] = {}
        super().__init__(host)

    def reset(self) -> None:
        """All pins inputs: loads fall back to their pull-downs."""
        super().reset()
        self.values.update({self.MODER: self.MODE_AFTER_RESET, self.ODR: 0})
        self.writes = {self.MODER: self._mode, self.ODR: self._output, self.BSRR: self._set_reset}
        self._drive()

    def _mode(self, value: int) -> None:
        self.values[self.MODER] = value
        self._drive()

    def _output(self, value: int) -> None:
        self.values[self.ODR] = value & 0xFFFF
        self._drive()

    def _set_reset(self, value: int) -> None:
        self._output((self.values[self.ODR] & ~(value >> 16)) | (value & 0xFFFF))

    def _drive(self) -> None:
        mode = self.values[self.MODER]
        output = self.values[self.ODR]
        for pin, load in self._loads.items():
            idle, drives = int(pin in self._pulled_up), mode >> (2 * pin) & 3 == 1
            if idle and drives and not self.values.get(self.OTYPER, 0) >> pin & 1:
                raise BoardError(f"{self.name}: pin {pin} drives against a pull-up without an open drain")
            level = output >> pin & 1 if drives else idle
            if level != self._driven.get(pin, idle):
                self._driven[pin] = level
                load(level)
