"""Clock and power controllers: which parts are clocked, and who may write to the RTC domain."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from nodes.emulator.peripherals import Host, Peripheral
from nodes.emulator.timekeeping import Rtc


class Clocks(Peripheral):
    """RCC; a family names its registers."""

    name = "RCC"
    ENABLES: ClassVar[tuple[tuple[str, int, int], ...]]
    """Part, enable register, bit."""
    RTC_DOMAIN: ClassVar[int]
    """Register that survives a reset."""
    LSEON: ClassVar[int]
    LSERDY: ClassVar[int]
    AT_RESET: ClassVar[dict[int, int]] = {}

    def __init__(self, host: Host, parts: dict[str, Peripheral]) -> None:
        self.parts = parts
        self._rtc_domain = 0
        super().__init__(host)
        self.reads = {self.RTC_DOMAIN: lambda: self._rtc_domain | (self.LSERDY if self._rtc_domain & self.LSEON else 0)}
        for register in {where for _, where, _ in self.ENABLES}:
            self.writes[register] = self._enable(register)
        self.writes[self.RTC_DOMAIN] = self._set_rtc_domain

    def reset(self) -> None:
        """All peripheral clocks off; the RTC domain keeps its settings."""
        super().reset()
        self.values.update(self.AT_RESET)
        for name, _, _ in self.ENABLES:
            if name in self.parts:
                self.parts[name].clocked = False

    def _enable(self, register: int) -> Callable[[int], None]:
        def write(value: int) -> None:
            self.values[register] = value
            for name, where, bit in self.ENABLES:
                if where == register:
                    self.parts[name].clocked = bool(value >> bit & 1)

        return write

    def _set_rtc_domain(self, value: int) -> None:
        self._rtc_domain = value & ~self.LSERDY


class Power(Peripheral):
    """PWR: its first control register opens the RTC domain for writing (RM0376 section 6.4, RM0394 section 5.4)."""

    name = "PWR"
    CONTROL = 0x00
    DBP = 1 << 8

    def __init__(self, host: Host, rtc: Rtc) -> None:
        self._rtc = rtc
        super().__init__(host)
        self.writes[self.CONTROL] = self._control

    def _control(self, value: int) -> None:
        self.values[self.CONTROL] = value
        self._rtc.writable = bool(value & self.DBP)


def clock_tree(controller: type[Clocks]) -> Callable[[Host, dict[str, Peripheral]], dict[str, Peripheral]]:
    """What :attr:`nodes.emulator.family.Family.clocks` asks for, with a family's own RCC."""

    def build(host: Host, parts: dict[str, Peripheral]) -> dict[str, Peripheral]:
        rtc = parts["rtc"]
        if not isinstance(rtc, Rtc):
            raise TypeError("the part named rtc is not an RTC")
        power = Power(host, rtc)
        return {"pwr": power, "rcc": controller(host, parts | {"pwr": power})}

    return build
