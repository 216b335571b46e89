"""STM32L432: clock and power controllers, memory map (RM0394)."""

from __future__ import annotations

from collections.abc import Callable

from nodes.emulator.converter import CALIBRATION, ConverterL4
from nodes.emulator.family import Family
from nodes.emulator.flash import FlashL4
from nodes.emulator.peripherals import Host, Peripheral
from nodes.emulator.timekeeping import Rtc


class ClocksL4(Peripheral):
    """RCC: peripheral clock enables, LSE, RTC domain (RM0394 section 6.4)."""

    name = "RCC"
    AHB2ENR, APB1ENR1, APB1ENR2, BDCR = 0x4C, 0x58, 0x5C, 0x90
    LSEON, LSERDY = 1 << 0, 1 << 1
    ENABLES = (
        ("gpioa", AHB2ENR, 0),
        ("gpiob", AHB2ENR, 1),
        ("adc", AHB2ENR, 13),
        ("rtc", APB1ENR1, 10),
        ("i2c1", APB1ENR1, 21),
        ("pwr", APB1ENR1, 28),
        ("lptim1", APB1ENR1, 31),
        ("lpuart1", APB1ENR2, 0),
    )

    def __init__(self, host: Host, parts: dict[str, Peripheral]) -> None:
        self.parts = parts
        self._backup = 0
        super().__init__(host)
        self.reads = {self.BDCR: lambda: self._backup | (self.LSERDY if self._backup & self.LSEON else 0)}
        for register in (self.AHB2ENR, self.APB1ENR1, self.APB1ENR2):
            self.writes[register] = self._enable(register)
        self.writes[self.BDCR] = self._set_backup

    def reset(self) -> None:
        """All peripheral clocks off; the backup domain keeps its settings."""
        super().reset()
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

    def _set_backup(self, value: int) -> None:
        self._backup = value & ~self.LSERDY


class PowerL4(Peripheral):
    """PWR: opens the backup domain for writing (RM0394 section 5.4)."""

    name = "PWR"
    CR1 = 0x00
    DBP = 1 << 8

    def __init__(self, host: Host, rtc: Rtc) -> None:
        self._rtc = rtc
        super().__init__(host)
        self.writes[self.CR1] = self._control

    def _control(self, value: int) -> None:
        self.values[self.CR1] = value
        self._rtc.writable = bool(value & self.DBP)


def _clocks(host: Host, parts: dict[str, Peripheral]) -> dict[str, Peripheral]:
    rtc = parts["rtc"]
    assert isinstance(rtc, Rtc)  # noqa: S101 (for the type checker)
    power = PowerL4(host, rtc)
    return {"pwr": power, "rcc": ClocksL4(host, parts | {"pwr": power})}


FAMILY = Family(
    clock_hz=4_000_000.0,
    lsi_hz=32_000.0,
    ram_size=64 * 1024,
    flash=FlashL4,
    converter=ConverterL4,
    factory_page=0x1FFF_7000,
    calibration_address=0x1FFF_75AA,
    calibration=CALIBRATION,
    irq_rtc=3,
    irq_lptim=65,
    irq_lpuart=70,
    inputs={5: "shallow", 6: "deep", 9: "soil temperature", 10: "light"},
    addresses={
        "rtc": 0x4000_2800,
        "iwdg": 0x4000_3000,
        "i2c1": 0x4000_5400,
        "pwr": 0x4000_7000,
        "lptim1": 0x4000_7C00,
        "lpuart1": 0x4000_8000,
        "syscfg": 0x4001_0000,
        "exti": 0x4001_0400,
        "rcc": 0x4002_1000,
        "flash": 0x4002_2000,
        "gpioa": 0x4800_0000,
        "gpiob": 0x4800_0400,
        "adc": 0x5004_0000,
    },
    windows=((0x4000_0000, 0x2_3000), (0x4800_0000, 0x2000), (0x5004_0000, 0x1000), (0xE000_E000, 0x1000)),
    clocks=_clocks,
)
