"""The clocks a node lives by: the RTC calendar with its wake-up timer, and the low-power timer."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import ClassVar

from nodes.emulator.peripherals import LSE, NEVER, WORD, BoardError, Exti, Host, KernelClock, Peripheral


def _bcd(value: int) -> int:
    return value // 10 << 4 | value % 10


def _plain(bcd: int) -> int:
    return (bcd >> 4) * 10 + (bcd & 15)


class Rtc(Peripheral):
    """Real-time clock on LSE; keeps running through every reset. Its wake-up timer counts calibrated seconds."""

    name = "RTC"
    TR, DR, CR, ISR, PRER, WUTR, WPR, CALR, BKP0R = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x24, 0x3C, 0x50
    RECALPF = 1 << 16
    CALP, CALM = 1 << 15, 0x1FF
    RECALIBRATION_S = 3 / 256  # three cycles of ck_apre
    WUTE, WUTIE = 1 << 10, 1 << 14
    WUTWF, INITS, INITF, INIT, WUTF = 1 << 2, 1 << 4, 1 << 6, 1 << 7, 1 << 10
    LINE = 20
    registers: ClassVar = {
        TR: 0x007F_7F7F,
        DR: 0x00FF_FF3F,
        CR: 0x01FF_FF7F,
        ISR: WORD,
        PRER: 0x007F_7FFF,
        WUTR: 0xFFFF,
        WPR: 0xFF,
        0x28: 0,  # SSR
        0x3C: 0xE1FF,  # CALR
        BKP0R: WORD,
    }
    write_only = frozenset({WPR})

    def __init__(self, host: Host, exti: Exti, irq: int, calendar_s: int | None, crystal_ppm: float = 0.0) -> None:
        """Start the clock.

        Args:
            host: the board.
            exti: where the wake-up event arrives.
            irq: its interrupt number.
            calendar_s: Unix time it was set to at the factory; None: never set.
            crystal_ppm: how much faster than it should the crystal swings.
        """
        self._crystal = 1.0 + crystal_ppm / 1e6
        self._rate = self._crystal
        self._recalibrated_at = -math.inf
        self._exti, self._irq = exti, irq
        self.writable = False
        """Whether the power controller lets the RTC domain be written (DBP)."""
        self._initialised = calendar_s is not None
        self._offset_s = float(calendar_s if calendar_s is not None else 946_684_800)
        self._unlocked = 0
        self._day = (-1, 0)
        super().__init__(host)
        self.values.update({self.CR: 0, self.PRER: 0x007F_00FF, self.WUTR: 0xFFFF, self.ISR: 0})
        self.reads = {self.TR: self._time, self.DR: self._date, self.ISR: self._status}
        self.writes = {
            self.TR: self._set_time,
            self.DR: self._set_date,
            self.CR: self._control,
            self.ISR: self._initialise,
            self.PRER: self._guarded(self.PRER),
            self.WUTR: self._guarded(self.WUTR),
            self.BKP0R: self._back_up,
            self.WPR: self._key,
            self.CALR: self._calibrate,
        }

    def reset(self) -> None:
        """The RTC domain survives; only write protection returns."""
        self._unlocked = 0
        self.writable = False

    def _back_up(self, value: int) -> None:
        """Backup registers need no key, only their domain opened."""
        if not self.writable:
            raise BoardError("RTC: write of a backup register while its domain is protected")
        self.values[self.BKP0R] = value

    def lose_power(self) -> None:
        """The RTC domain lost its supply: the calendar starts over."""
        self._initialised = False
        self._offset_s = 946_684_800.0 - self.host.now()
        self.values.update({self.CR: 0, self.PRER: 0x007F_00FF, self.WUTR: 0xFFFF, self.ISR: 0, self.BKP0R: 0})
        self.due = NEVER

    def calendar_s(self) -> float:
        """Unix time by the calendar."""
        return self._offset_s + self.host.now() * self._rate

    def _key(self, value: int) -> None:
        if value == 0xCA:
            self._unlocked = 1
        elif value == 0x53 and self._unlocked == 1:
            self._unlocked = 2
        else:
            self._unlocked = 0

    def _require(self) -> None:
        if not self.writable or self._unlocked != 2:
            raise BoardError("RTC: write while its domain is protected")

    def _guarded(self, offset: int) -> Callable[[int], None]:
        def write(value: int) -> None:
            self._require()
            self.values[offset] = value

        return write

    def _time(self) -> int:
        seconds = int(self.calendar_s()) % 86400
        return _bcd(seconds // 3600) << 16 | _bcd(seconds // 60 % 60) << 8 | _bcd(seconds % 60)

    def _date(self) -> int:
        day = int(self.calendar_s()) // 86400
        if day != self._day[0]:
            date = datetime.fromtimestamp(day * 86400, UTC)
            value = _bcd(date.year % 100) << 16 | date.isoweekday() << 13 | _bcd(date.month) << 8 | _bcd(date.day)
            self._day = (day, value)
        return self._day[1]

    def _set_time(self, value: int) -> None:
        self._require()
        self.values[self.TR] = value

    def _set_date(self, value: int) -> None:
        self._require()
        self.values[self.DR] = value

    def _status(self) -> int:
        status = self.values[self.ISR] & (self.WUTF | self.INIT)
        if self.host.now() < self._recalibrated_at:
            status |= self.RECALPF
        if status & self.INIT:
            status |= self.INITF
        if self._initialised:
            status |= self.INITS
        if not self.values[self.CR] & self.WUTE:
            status |= self.WUTWF
        return status

    def _initialise(self, value: int) -> None:
        status = self.values[self.ISR]
        cleared = status & (value | ~self.WUTF)  # flags are cleared by writing zero
        self.values[self.ISR] = cleared
        if value & self.INIT == status & self.INIT or self._unlocked != 2:
            return
        self._require()
        if value & self.INIT:
            self.values[self.ISR] |= self.INIT
            self.values[self.TR], self.values[self.DR] = self._time(), self._date()
        else:
            self.values[self.ISR] &= ~self.INIT
            time, date = self.values[self.TR], self.values[self.DR]
            start = datetime(
                2000 + _plain(date >> 16 & 0xFF),
                _plain(date >> 8 & 0x1F),
                _plain(date & 0x3F),
                _plain(time >> 16 & 0x3F),
                _plain(time >> 8 & 0x7F),
                _plain(time & 0x7F),
                tzinfo=UTC,
            )
            self._offset_s = start.timestamp() - self.host.now() * self._rate
            self._initialised = True
            self._arm()

    def _calibrate(self, value: int) -> None:
        """Smooth calibration (RM0376 section 26.4): 2^20 pulses of 32 s, CALP adds 512, CALM takes some away."""
        self._require()
        now = self.host.now()
        if now < self._recalibrated_at:
            raise BoardError("RTC: CALR written while RECALPF says that the last value is being taken over")
        self.values[self.CALR] = value
        added = (512 if value & self.CALP else 0) - (value & self.CALM)
        rate = self._crystal * (1.0 + added / (2**20 - added))
        self._offset_s += now * (self._rate - rate)
        self._rate = rate
        self._recalibrated_at = now + self.RECALIBRATION_S

    def _control(self, value: int) -> None:
        self._require()
        self.values[self.CR] = value
        self._arm()

    def _arm(self) -> None:
        if self.values[self.CR] & self.WUTE:
            period = self.values[self.WUTR] + 1
            self.due = (math.floor(self.calendar_s()) + period - self._offset_s) / self._rate
        else:
            self.due = NEVER

    def advance(self, now: float) -> None:
        """The wake-up timer ran out and reloads."""
        self.due = now + (self.values[self.WUTR] + 1) / self._rate
        if not self.values[self.ISR] & self.WUTF:
            self.values[self.ISR] |= self.WUTF
            if self.values[self.CR] & self.WUTIE:
                self._exti.rise(self.LINE, self._irq)


class LowPowerTimer(Peripheral):
    """LPTIM1, one-shot; in STOP it goes on only on LSE."""

    name = "LPTIM1"
    ISR, ICR, IER, CFGR, CR, ARR = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x18
    ARRM, ARROK = 1 << 1, 1 << 4
    ENABLE, SNGSTRT = 1 << 0, 1 << 1
    registers: ClassVar = {ISR: 0, ICR: 0x7F, IER: 0x7F, CFGR: 0x01FE_EEDF, CR: 0x07, ARR: 0xFFFF}
    write_only = frozenset({ICR})

    def __init__(self, host: Host, irq: int) -> None:
        self._irq = irq
        self.kernel: Callable[[], KernelClock] = lambda: LSE
        """The clock it counts with."""
        super().__init__(host)
        self.writes = {
            self.ICR: self._clear,
            self.IER: self._interrupts,
            self.CFGR: self._configure,
            self.CR: self._control,
            self.ARR: self._reload,
        }

    def reset(self) -> None:
        """Stopped."""
        super().reset()
        self._left_s: float | None = None

    def _clear(self, value: int) -> None:
        self.values[self.ISR] = self.values.get(self.ISR, 0) & ~value

    def _enabled(self) -> bool:
        return bool(self.values.get(self.CR, 0) & self.ENABLE)

    def _interrupts(self, value: int) -> None:
        if self._enabled():
            raise BoardError("LPTIM1: IER may be written only while the timer is disabled")
        self.values[self.IER] = value

    def _configure(self, value: int) -> None:
        if self._enabled():
            raise BoardError("LPTIM1: CFGR may be written only while the timer is disabled")
        self.values[self.CFGR] = value

    def _reload(self, value: int) -> None:
        if not self._enabled():
            raise BoardError("LPTIM1: ARR may be written only while the timer is enabled")
        self.values[self.ARR] = value
        self.values[self.ISR] = self.values.get(self.ISR, 0) | self.ARROK

    def _control(self, value: int) -> None:
        if value & self.SNGSTRT and not self._enabled():
            raise BoardError("LPTIM1: start in the same write as the enable")
        self.values[self.CR] = value
        if not value & self.ENABLE:
            self.due = NEVER
            self._left_s = None
            self.values[self.ISR] = 0
        elif value & self.SNGSTRT:
            prescaler = 1 << (self.values.get(self.CFGR, 0) >> 9 & 7)
            hz = self.kernel().hz
            ticks = (self.values.get(self.ARR, 1) + 1) * prescaler
            self.due = self.host.now() + ticks / hz if hz else NEVER

    def advance(self, now: float) -> None:  # noqa: ARG002 (the moment is in ``due``)
        """The count matched."""
        self.due = NEVER
        self.values[self.ISR] = self.values.get(self.ISR, 0) | self.ARRM
        if self.values.get(self.IER, 0) & self.ARRM:
            self.host.pend(self._irq)

    def enter_stop(self) -> None:
        """The bus clock stands still."""
        if self.due != NEVER and not self.kernel().in_stop:
            self._left_s = self.due - self.host.now()
            self.due = NEVER

    def leave_stop(self) -> None:
        """It goes on where it stood."""
        if self._left_s is not None:
            self.due = self.host.now() + self._left_s
            self._left_s = None
