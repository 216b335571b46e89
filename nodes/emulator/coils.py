"""The latching valve: the timer that shapes its pulses, its two coils, and what they forgive."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from nodes.emulator.peripherals import NEVER, BoardError, Host, Peripheral


class PulseTimer(Peripheral):
    """TIM2 as far as two PWM outputs go (RM0376 section 21.4, RM0394 section 27.4)."""

    name = "TIM2"
    CR1, DIER, SR, EGR, CCMR1, CCER, CNT, PSC, ARR = 0x00, 0x0C, 0x10, 0x14, 0x18, 0x20, 0x24, 0x28, 0x2C
    CCR: ClassVar = (0x34, 0x38)
    CEN, UDIS, URS, OPM, ARPE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 7
    UIE = UIF = UG = 1
    PWM1, PWM2, FORCE_LOW, FORCE_HIGH = 6, 7, 4, 5
    registers: ClassVar = {
        CR1: CEN | UDIS | URS | OPM | ARPE,
        DIER: UIE,
        SR: 0x1E5F,
        EGR: UG,
        CCMR1: 0x7C7C,
        CCER: 0x0033,
        CNT: 0xFFFF,
        PSC: 0xFFFF,
        ARR: 0xFFFF,
        CCR[0]: 0xFFFF,
        CCR[1]: 0xFFFF,
    }
    write_only = frozenset({EGR})

    def __init__(self, host: Host, irq: int) -> None:
        self._irq = irq
        self.hz: Callable[[], float] = lambda: 4_000_000.0
        """The clock it counts with."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when an output may have changed."""
        super().__init__(host)

    def reset(self) -> None:
        """Stopped, outputs off."""
        super().reset()
        self._prescaler = 0
        self._started_at: float | None = None
        self._count = 0
        self.values[self.ARR] = 0xFFFF
        self.reads = {self.CNT: lambda: self._count}
        self.writes = {
            self.CR1: self._control,
            self.SR: self._acknowledge,
            self.EGR: self._generate,
            self.CCMR1: self._outputs(self.CCMR1),
            self.CCER: self._outputs(self.CCER),
        }

    def _tick_s(self) -> float:
        return (self._prescaler + 1) / self.hz()

    def _acknowledge(self, value: int) -> None:
        self.values[self.SR] = self.values.get(self.SR, 0) & value  # cleared by writing zero

    def _outputs(self, register: int) -> Callable[[int], None]:
        def write(value: int) -> None:
            self.values[register] = value
            self.on_change()

        return write

    def _generate(self, value: int) -> None:
        del value  # only UG exists here
        self._prescaler = self.values.get(self.PSC, 0)
        self._count = 0
        if not self.values.get(self.CR1, 0) & self.URS:
            self._update()

    def _update(self) -> None:
        self._prescaler = self.values.get(self.PSC, 0)
        self.values[self.SR] = self.values.get(self.SR, 0) | self.UIF
        if self.values.get(self.DIER, 0) & self.UIE:
            self.host.pend(self._irq)

    def _control(self, value: int) -> None:
        running = bool(self.values.get(self.CR1, 0) & self.CEN)
        self.values[self.CR1] = value
        if value & self.CEN and not running:
            self._count = 0
            self._started_at = self.host.now()
            self._plan()
        elif not value & self.CEN:
            self._started_at = None
            self.due = NEVER
        self.on_change()

    def _plan(self) -> None:
        """The next count at which an output or the timer itself changes."""
        if self._started_at is None:
            return
        overflow = self.values[self.ARR] + 1
        marks = [overflow, *(self.values.get(register, 0) for register in self.CCR)]
        following = min(mark for mark in marks if mark > self._count)
        self.due = self._started_at + following * self._tick_s()

    def advance(self, now: float) -> None:
        """A compare match or the overflow."""
        if self._started_at is None:
            self.due = NEVER
            return
        self._count = round((now - self._started_at) / self._tick_s())
        if self._count > self.values[self.ARR]:
            self._count = 0
            self._update()
            if self.values[self.CR1] & self.OPM:
                self.values[self.CR1] &= ~self.CEN
                self._started_at = None
                self.due = NEVER
            else:
                self._started_at = now
        self._plan()
        self.on_change()

    def output(self, channel: int) -> int:
        """Level of channel 1 or 2 as it stands; low while the channel is off."""
        if not self.values.get(self.CCER, 0) >> 4 * (channel - 1) & 1:
            return 0
        mode = self.values.get(self.CCMR1, 0) >> (4 + 8 * (channel - 1)) & 7
        compare = self.values.get(self.CCR[channel - 1], 0)
        levels = {
            self.PWM1: self._count < compare,
            self.PWM2: self._count >= compare,
            self.FORCE_LOW: False,
            self.FORCE_HIGH: True,
        }
        return int(levels.get(mode, False))

    def enter_stop(self) -> None:
        """The clock stops and an output stays as it is."""
        if self._started_at is not None or (self.values.get(self.CCER) and (self.output(1) or self.output(2))):
            raise BoardError("TIM2: STOP while a pulse is under way; the coil is frozen under current")


class LatchingValve:
    """A bistable valve with an opening and a closing coil; it stays where it is without power."""

    MOVES_S = 0.020
    BURNS_S = 0.5

    def __init__(self, host: Host, on_move: Callable[[bool], None]) -> None:
        """Mount it, closed.

        Args:
            host: the board.
            on_move: called with whether it is open now, at every change.
        """
        self._host, self._on_move = host, on_move
        self.open = False
        self.pulses = 0
        """Times a coil was switched on."""
        self._since: dict[bool, float] = {}
        self.due = NEVER
        """When a coil burns."""

    def coil(self, *, opens: bool) -> Callable[[int], None]:
        """The driver input of one coil, to be called with its level."""

        def level(value: int) -> None:
            now = self._host.now()
            if value:
                if self._since:
                    raise BoardError("valve: both coils under current at once")
                self._since[opens] = now
                self.pulses += 1
                self.due = now + self.BURNS_S
            elif opens in self._since:
                duration_s = now - self._since.pop(opens)
                self.due = NEVER
                if duration_s >= self.MOVES_S and self.open != opens:
                    self.open = opens
                    self._on_move(opens)

        return level

    def advance(self, now: float) -> None:
        """A coil was on for too long."""
        self.due = NEVER
        raise BoardError(f"valve: a coil burnt after {self.BURNS_S} s under current, at {now:.3f} s")
