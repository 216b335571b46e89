"""Clock and power controllers: which parts are clocked and with what, why a reset came, and the supply detector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from nodes.emulator.peripherals import LSE, NEVER, BoardError, Exti, Host, KernelClock, Peripheral
from nodes.emulator.timekeeping import Rtc
from shared_models.codes import ResetCause

_STOPPED = KernelClock(0.0, in_stop=False)


class Clocks(Peripheral, ABC):
    """RCC; a family names its registers."""

    name = "RCC"
    ENABLES: ClassVar[tuple[tuple[str, int, int], ...]]
    """Part, enable register, bit."""
    RTC_DOMAIN: ClassVar[int]
    """Register that survives a reset."""
    DOMAIN_BITS: ClassVar[int]
    """Its bits that belong to the RTC domain."""
    LSEON: ClassVar[int]
    LSERDY: ClassVar[int]
    CSR: ClassVar[int]
    """Register with the flags of the last resets."""
    CCIPR: ClassVar[int]
    AT_RESET: ClassVar[dict[int, int]] = {}
    KERNEL_FIELDS: ClassVar[dict[str, int]] = {"lpuart1": 10, "lptim1": 18}
    """Lowest bit of a part's clock selection: 0 the bus, 1 LSI or SYSCLK, 2 HSI, 3 LSE."""
    RMVF = 1 << 23
    PIN = 1 << 26
    FLAGS: ClassVar[dict[ResetCause, int]] = {
        ResetCause.POWER_ON: 1 << 27,
        ResetCause.BROWN_OUT: 1 << 27,
        ResetCause.SOFTWARE: 1 << 28,
        ResetCause.WATCHDOG: 1 << 29,
        ResetCause.PIN: 0,
    }

    def __init__(self, host: Host, parts: dict[str, Peripheral], rtc: Rtc) -> None:
        self.parts = parts
        self._rtc = rtc
        self._rtc_domain = 0
        self._flags = 0
        self.on_change: Callable[[], None] = lambda: None
        """Called when the core's clock may have changed."""
        super().__init__(host)
        self.reads = {self.CSR: self._status, self.RTC_DOMAIN: self._status_of_domain}
        for register in {where for _, where, _ in self.ENABLES}:
            self.writes[register] = self._enable(register)
        self.writes[self.RTC_DOMAIN] = self._set_rtc_domain
        self.writes[self.CSR] = self._set_status

    def reset(self) -> None:
        """All peripheral clocks off; the RTC domain keeps its settings."""
        super().reset()
        self.values.update(self.AT_RESET)
        for name, _, _ in self.ENABLES:
            if name in self.parts:
                self.parts[name].clocked = False

    def caused(self, cause: ResetCause) -> None:
        """A reset happened; a supply that fails takes the flags of earlier resets with it."""
        if cause in (ResetCause.POWER_ON, ResetCause.BROWN_OUT):
            self._flags = 0
        self._flags |= self.FLAGS[cause] | self.PIN

    def lose_domain(self) -> None:
        """The RTC domain lost its supply."""
        self._rtc_domain = 0

    @abstractmethod
    def core_hz(self) -> float:
        """MSI as it is set."""

    def kernel(self, part: str) -> KernelClock:
        """What a part counts with."""
        choice = self.values.get(self.CCIPR, 0) >> self.KERNEL_FIELDS[part] & 3
        if choice == 0:
            return KernelClock(self.core_hz(), in_stop=False)
        if choice == 3 and self._rtc_domain & self.LSEON:
            return LSE
        return _STOPPED  # LSE off; HSI and LSI are never switched on

    def _enable(self, register: int) -> Callable[[int], None]:
        def write(value: int) -> None:
            self.values[register] = value
            for name, where, bit in self.ENABLES:
                if where == register:
                    self.parts[name].clocked = bool(value >> bit & 1)

        return write

    def _status_of_domain(self) -> int:
        return self._rtc_domain | (self.LSERDY if self._rtc_domain & self.LSEON else 0)

    def _status(self) -> int:
        return self.values.get(self.CSR, 0) | self._flags

    def _set_status(self, value: int) -> None:
        self._take_flags(value)

    def _take_flags(self, value: int) -> None:
        if value & self.RMVF:
            self._flags = 0
        self.values[self.CSR] = value & self.RMVF

    def _set_rtc_domain(self, value: int) -> None:
        value &= self.DOMAIN_BITS & ~self.LSERDY
        if value == self._rtc_domain:
            return
        if not self._rtc.writable:
            raise BoardError("RCC: write to the RTC domain while PWR protects it (DBP)")
        self._rtc_domain = value


class Power(Peripheral, ABC):
    """PWR: opens the RTC domain for writing, selects the voltage range, watches the supply; a family names its bits."""

    name = "PWR"
    CONTROL = 0x00
    DBP = 1 << 8
    RANGE_SHIFT: ClassVar[int]
    RANGE_AT_RESET: ClassVar[int]
    PVD_LINE, PVD_IRQ = 16, 1
    LEVELS_MV: ClassVar[tuple[int, ...]]
    """Falling thresholds of the supply detector, typical."""
    HYSTERESIS_MV = 100
    SAMPLE_S = 1.0
    """How often the supply is looked at while the detector is on; a change of load is looked at when it happens."""

    def __init__(self, host: Host, rtc: Rtc, exti: Exti, supply_mv: Callable[[], int]) -> None:
        self._rtc, self._exti, self._supply_mv = rtc, exti, supply_mv
        self.on_change: Callable[[], None] = lambda: None
        """Called when the voltage range may have changed."""
        super().__init__(host)
        self.writes[self.CONTROL] = self._control

    def reset(self) -> None:
        """Range as after a reset, detector off."""
        super().reset()
        self.values[self.CONTROL] = self.RANGE_AT_RESET << self.RANGE_SHIFT
        self.supply_low = False
        self._stopped = False

    @property
    def voltage_range(self) -> int:
        """Range of the core's regulator, 1 the fastest."""
        return self.values[self.CONTROL] >> self.RANGE_SHIFT & 3

    @abstractmethod
    def detector(self) -> int | None:
        """Falling threshold of the supply detector, mV; None while it is off."""

    def works_in_stop(self) -> bool:
        """Whether the detector compares in STOP too."""
        return True

    @abstractmethod
    def standby(self) -> bool:
        """Whether WFI with SLEEPDEEP would lose RAM."""

    def _control(self, value: int) -> None:
        self.values[self.CONTROL] = value
        self._rtc.writable = bool(value & self.DBP)
        self.on_change()
        self.sample()

    def sample(self) -> None:
        """Look at the supply."""
        level = self.detector()
        if level is None:
            self.supply_low = False
            self.due = NEVER
            return
        self.due = self.host.now() + self.SAMPLE_S
        if self._stopped and not self.works_in_stop():
            return
        millivolts = self._supply_mv()
        if not self.supply_low and millivolts < level:
            self.supply_low = True
            self._exti.rise(self.PVD_LINE, self.PVD_IRQ)
        elif self.supply_low and millivolts > level + self.HYSTERESIS_MV:
            self.supply_low = False

    def advance(self, now: float) -> None:
        """Time to look again."""
        del now
        self.sample()

    def enter_stop(self) -> None:
        """Regulator down, RAM kept."""
        if self.standby():
            raise BoardError("PWR: SLEEPDEEP with Standby selected; RAM would be lost")
        self._stopped = True

    def leave_stop(self) -> None:
        """Regulator up."""
        self._stopped = False


def clock_tree(
    controller: type[Clocks], power: type[Power]
) -> Callable[[Host, dict[str, Peripheral], Rtc, Exti, Callable[[], int]], tuple[Clocks, Power]]:
    """What :attr:`nodes.emulator.family.Family.clocks` asks for, with a family's own RCC and PWR."""

    def build(
        host: Host, parts: dict[str, Peripheral], rtc: Rtc, exti: Exti, supply_mv: Callable[[], int]
    ) -> tuple[Clocks, Power]:
        pwr = power(host, rtc, exti, supply_mv)
        return controller(host, parts | {"pwr": pwr}, rtc), pwr

    return build
