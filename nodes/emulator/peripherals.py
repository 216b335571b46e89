"""Peripheral models that both boards share, each with the semantics its reference manual promises.

A model is a register file with handlers. These rules keep it honest and quick: touching a block without its clock, a
register it does not have, or a reserved bit is a :class:`BoardError`, not silence; a status flag that software polls
is answered when it becomes true, the waiting time passing at once (the core would only have spun); in STOP only what
runs on the low-speed oscillators goes on; and nothing happens that simulated time did not bring.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from nodes.emulator.energy import EnergyLedger

NEVER = math.inf
WORD = 0xFFFF_FFFF


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


@dataclass(frozen=True, slots=True)
class KernelClock:
    """What a peripheral counts with."""

    hz: float
    """0: it stands still."""
    in_stop: bool
    """Whether it goes on in STOP."""


LSE = KernelClock(32768.0, in_stop=True)


class Peripheral:
    """A block of registers."""

    name = "peripheral"
    registers: ClassVar[dict[int, int]] = {}
    """By offset, the bits that software may write as one; 0: read-only."""
    write_only: ClassVar[frozenset[int]] = frozenset()

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
        if offset not in self.registers or offset in self.write_only:
            raise BoardError(f"{self.name}: nothing to read at offset {offset:#x}")
        handler = self.reads.get(offset)
        return handler() if handler else self.values.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        """The bus writes a word."""
        if not self.clocked:
            raise BoardError(f"{self.name}: write of offset {offset:#x} without its clock")
        allowed = self.registers.get(offset)
        if allowed is None:
            raise BoardError(f"{self.name}: no register at offset {offset:#x}")
        if value & ~allowed:
            raise BoardError(f"{self.name}: reserved bits {value & ~allowed:#x} written as one at offset {offset:#x}")
        handler = self.writes.get(offset)
        if handler:
            handler(value)
        else:
            self.values[offset] = value

    def advance(self, now: float) -> None:
        """Time reached :attr:`due`."""

    def enter_stop(self) -> None:
        """The core goes to STOP."""

    def leave_stop(self) -> None:
        """The core comes back."""


class Nvic(Peripheral):
    """Interrupt controller: enables and latched pending bits; the firmware never lets one be taken."""

    name = "NVIC"
    ISER, ICER, ICPR = 0x100, 0x180, 0x280

    def __init__(self, host: Host, words: int) -> None:
        """Take ``words`` of 32 interrupts each."""
        super().__init__(host)
        blocks = ((self.ISER, self._enable), (self.ICER, self._disable), (self.ICPR, self._clear))
        for base, handler in blocks:
            for word in range(words):
                self.writes[base + 4 * word] = handler(32 * word)
        self.registers = dict.fromkeys(self.writes, WORD)  # type: ignore[misc]  # depends on the core

    def reset(self) -> None:
        """Everything disabled."""
        super().reset()
        self.enabled = 0
        self.pending = 0

    def _enable(self, first: int) -> Callable[[int], None]:
        def enable(value: int) -> None:
            self.enabled |= value << first

        return enable

    def _disable(self, first: int) -> Callable[[int], None]:
        def disable(value: int) -> None:
            self.enabled &= ~(value << first)

        return disable

    def _clear(self, first: int) -> Callable[[int], None]:
        def clear(value: int) -> None:
            self.pending &= ~(value << first)

        return clear


class SystemControl(Peripheral):
    """System control block: only the sleep-deep bit matters here."""

    name = "SCB"
    SCR = 0x110
    registers: ClassVar = {SCR: 1 << 2}

    @property
    def sleep_deep(self) -> bool:
        """Whether WFI enters STOP."""
        return bool(self.values.get(self.SCR, 0) & 4)


class Exti(Peripheral):
    """Edge lines that lead out of STOP. Direct lines (LPUART, LPTIM) are unmasked from reset."""

    name = "EXTI"
    IMR, RTSR, FTSR, PR = 0x00, 0x08, 0x0C, 0x14
    LINES = 0x007F_FFFF
    registers: ClassVar = {IMR: WORD, RTSR: LINES, FTSR: LINES, PR: LINES}

    def reset(self) -> None:
        """Edge lines masked."""
        super().reset()
        self.values[self.IMR] = 0xFF80_0000
        self.writes[self.PR] = self._acknowledge

    def _acknowledge(self, value: int) -> None:
        self.values[self.PR] = self.values.get(self.PR, 0) & ~value

    def rise(self, line: int, irq: int) -> None:
        """A line rose: remember it if it asks for that edge, and pend its interrupt if it is unmasked."""
        bit = 1 << line
        if not self.values.get(self.RTSR, 0) & bit or self.values.get(self.PR, 0) & bit:
            return
        self.values[self.PR] = self.values.get(self.PR, 0) | bit
        if self.values[self.IMR] & bit:
            self.host.pend(irq)


class Watchdog(Peripheral):
    """Independent watchdog on the internal low-speed oscillator; once started only a reset stops it."""

    name = "IWDG"
    KR, PR, RLR, SR = 0x00, 0x04, 0x08, 0x0C
    PVU, RVU = 1 << 0, 1 << 1
    registers: ClassVar = {KR: 0xFFFF, PR: 7, RLR: 0xFFF, SR: 0}
    write_only = frozenset({KR})
    UPDATE_LSI_PERIODS = 5

    def __init__(self, host: Host, lsi_hz: float) -> None:
        self._lsi_hz = lsi_hz
        super().__init__(host)

    def reset(self) -> None:
        """Stopped."""
        super().reset()
        self._open = False
        self._updated_at: dict[int, float] = {}
        self.values.update({self.PR: 0, self.RLR: 0xFFF})
        self.reads = {self.SR: self._status}
        self.writes = {self.KR: self._key, self.PR: self._protected(self.PR), self.RLR: self._protected(self.RLR)}

    def _protected(self, offset: int) -> Callable[[int], None]:
        def write(value: int) -> None:
            if not self._open:
                return
            now = self.host.now()
            if now < self._updated_at.get(offset, 0.0):
                raise BoardError(f"IWDG: write of offset {offset:#x} while its last value is not taken over yet")
            self.values[offset] = value
            self._updated_at[offset] = now + self.UPDATE_LSI_PERIODS / self._lsi_hz

        return write

    def _status(self) -> int:
        if self._updated_at and self.due == NEVER:
            raise BoardError("IWDG: a value is never taken over while the watchdog, and so LSI, is not running")
        self.host.stall_until(max(self._updated_at.values(), default=0.0))
        return 0

    def _key(self, value: int) -> None:
        if value not in (0x5555, 0xAAAA, 0xCCCC):
            raise BoardError(f"IWDG: {value:#x} is no key")
        self._open = value == 0x5555
        if (value == 0xCCCC and self.due == NEVER) or (value == 0xAAAA and self.due != NEVER):
            prescaler = 4 << min(self.values[self.PR], 6)
            self.due = self.host.now() + (self.values[self.RLR] + 1) * prescaler / self._lsi_hz


class Gpio(Peripheral):
    """One port; reports the level of driven pins when it changes."""

    name = "GPIO"
    MODER, OTYPER, OSPEEDR, PUPDR, IDR, ODR, BSRR = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x18
    AFRL, AFRH, BRR = 0x20, 0x24, 0x28
    registers: ClassVar = {
        MODER: WORD,
        OTYPER: 0xFFFF,
        OSPEEDR: WORD,
        PUPDR: WORD,
        ODR: 0xFFFF,
        BSRR: WORD,
        AFRL: WORD,
        AFRH: WORD,
        BRR: 0xFFFF,
    }
    write_only = frozenset({BSRR, BRR})
    OUTPUT, ALTERNATE, ANALOG = 1, 2, 3

    def __init__(
        self,
        host: Host,
        modes_at_reset: int,
        pulls_at_reset: int,
        loads: dict[int, Callable[[int], None]],
        pulled_up: frozenset[int] = frozenset(),
    ) -> None:
        """Take the port.

        Args:
            host: the board.
            modes_at_reset: MODER after a reset.
            pulls_at_reset: PUPDR after a reset.
            loads: by pin, called with 0 or 1 when the driven level changes; a pin that is not driven counts as low,
                because every load has a pull-down that outweighs the pin's own pull-up.
            pulled_up: loads with a pull-up instead, which may only be driven by an open drain.
        """
        self._at_reset = {self.MODER: modes_at_reset, self.PUPDR: pulls_at_reset, self.ODR: 0}
        self._loads, self._pulled_up = loads, pulled_up
        self.sources: dict[tuple[int, int], Callable[[], int]] = {}
        """By pin and alternate function, the level a peripheral puts out."""
        self._driven: dict[int, int] = {}
        super().__init__(host)

    def reset(self) -> None:
        """All pins undriven: loads fall back to their pull-downs."""
        super().reset()
        self.values.update(self._at_reset)
        for register in (self.MODER, self.ODR, self.AFRL, self.AFRH):
            self.writes[register] = self._latch(register)
        self.writes[self.BSRR] = self._set_reset
        self.writes[self.BRR] = lambda value: self._set_reset(value << 16)
        self.refresh()

    def _latch(self, register: int) -> Callable[[int], None]:
        def write(value: int) -> None:
            self.values[register] = value
            self.refresh()

        return write

    def _set_reset(self, value: int) -> None:
        self.values[self.ODR] = (self.values[self.ODR] & ~(value >> 16)) | (value & 0xFFFF)
        self.refresh()

    def mode(self, pin: int) -> int:
        """Input, output, alternate or analogue."""
        return self.values[self.MODER] >> (2 * pin) & 3

    def alternate(self, pin: int) -> int | None:
        """The alternate function on a pin; None while it has none."""
        if self.mode(pin) != self.ALTERNATE:
            return None
        return self.values.get(self.AFRH if pin > 7 else self.AFRL, 0) >> (4 * (pin & 7)) & 15

    def open_drain(self, pin: int) -> bool:
        """Whether the pin only pulls low."""
        return bool(self.values.get(self.OTYPER, 0) >> pin & 1)

    def refresh(self) -> None:
        """Tell the loads what is driven now; peripherals call this when their output changes."""
        for pin, load in self._loads.items():
            idle = int(pin in self._pulled_up)
            if idle and self.mode(pin) == self.OUTPUT and not self.open_drain(pin):
                raise BoardError(f"{self.name}: pin {pin} drives against a pull-up without an open drain")
            level = idle
            if self.mode(pin) == self.OUTPUT:
                level = self.values[self.ODR] >> pin & 1
            elif (function := self.alternate(pin)) is not None and (source := self.sources.get((pin, function))):
                level = source()
            if level != self._driven.get(pin, idle):
                self._driven[pin] = level
                load(level)
