"""STM32L072: clock and power controllers, memory map (RM0376)."""

from __future__ import annotations

from collections.abc import Callable

from nodes.emulator.converter import CALIBRATION, ConverterL0
from nodes.emulator.family import Family
from nodes.emulator.flash import FlashL0
from nodes.emulator.peripherals import Host, Peripheral
from nodes.emulator.timekeeping import Rtc


class ClocksL0(Peripheral):
    """RCC: peripheral clock enables, LSE, RTC domain (RM0376 section 7.3)."""

    name = "RCC"
    IOPENR, APB2ENR, APB1ENR, CSR = 0x2C, 0x34, 0x38, 0x50
    LSEON, LSERDY = 1 << 8, 1 << 9
    ENABLES = (
        ("gpioa", IOPENR, 0),
        ("gpiob", IOPENR, 1),
        ("syscfg", APB2ENR, 0),
        ("adc", APB2ENR, 9),
        ("lpuart1", APB1ENR, 18),
        ("i2c1", APB1ENR, 21),
        ("pwr", APB1ENR, 28),
        ("lptim1", APB1ENR, 31),
    )

    def __init__(self, host: Host, parts: dict[str, Peripheral]) -> None:
        self.parts = parts
        self._rtc_domain = 0
        super().__init__(host)
        self.reads = {self.CSR: lambda: self._rtc_domain | (self.LSERDY if self._rtc_domain & self.LSEON else 0)}
        for register in (self.IOPENR, self.APB2ENR, self.APB1ENR):
            self.writes[register] = self._enable(register)
        self.writes[self.CSR] = self._set_rtc_domain

    def reset(self) -> None:
        """All peripheral clocks off; the RTC domain keeps its settings."""
        super().reset()
        self.values[0x04] = 5 << 13
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


class PowerL0(Peripheral):
    """PWR: opens the RTC domain for writing (RM0376 section 6.4)."""

    name = "PWR"
    CR = 0x00
    DBP = 1 << 8

    def __init__(self, host: Host, rtc: Rtc) -> None:
        self._rtc = rtc
        super().__init__(host)
        self.writes[self.CR] = self._control

    def _control(self, value: int) -> None:
        self.values[self.CR] = value
        self._rtc.writable = bool(value & self.DBP)


def _clocks(host: Host, parts: dict[str, Peripheral]) -> dict[str, Peripheral]:
    rtc = parts["rtc"]
    assert isinstance(rtc, Rtc)  # noqa: S101 (for the type checker)
    power = PowerL0(host, rtc)
    return {"pwr": power, "rcc": ClocksL0(host, parts | {"pwr": power})}


FAMILY = Family(
    clock_hz=4_194_304.0,
    lsi_hz=37_000.0,
    ram_size=20 * 1024,
    flash=FlashL0,
    converter=ConverterL0,
    factory_page=0x1FF8_0000,
    calibration_address=0x1FF8_0078,
    calibration=CALIBRATION,
    irq_rtc=2,
    irq_lptim=13,
    irq_lpuart=29,
    inputs={0: "shallow", 1: "deep", 4: "soil temperature", 5: "light"},
    addresses={
        "rtc": 0x4000_2800,
        "iwdg": 0x4000_3000,
        "lpuart1": 0x4000_4800,
        "i2c1": 0x4000_5400,
        "pwr": 0x4000_7000,
        "lptim1": 0x4000_7C00,
        "syscfg": 0x4001_0000,
        "exti": 0x4001_0400,
        "adc": 0x4001_2400,
        "rcc": 0x4002_1000,
        "flash": 0x4002_2000,
        "gpioa": 0x5000_0000,
        "gpiob": 0x5000_0400,
    },
    windows=((0x4000_0000, 0x2_3000), (0x5000_0000, 0x2000), (0xE000_E000, 0x1000)),
    clocks=_clocks,
)
