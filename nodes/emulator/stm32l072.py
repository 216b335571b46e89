"""STM32L072: clock and power controllers, memory map (RM0376)."""

from __future__ import annotations

from typing import ClassVar

from nodes.emulator.clocks import Clocks, Power, clock_tree
from nodes.emulator.converter import CALIBRATION, ConverterL0
from nodes.emulator.family import Family
from nodes.emulator.flash import FlashL0


class ClocksL0(Clocks):
    """RCC: peripheral clock enables, LSE, RTC domain (RM0376 section 7.3)."""

    ICSCR, IOPENR, APB2ENR, APB1ENR, CCIPR, CSR = 0x04, 0x2C, 0x34, 0x38, 0x4C, 0x50
    LSEON, LSERDY = 1 << 8, 1 << 9
    ENABLES = (
        ("gpioa", IOPENR, 0),
        ("gpiob", IOPENR, 1),
        ("syscfg", APB2ENR, 0),
        ("adc", APB2ENR, 9),
        ("tim2", APB1ENR, 0),
        ("lpuart1", APB1ENR, 18),
        ("i2c1", APB1ENR, 21),
        ("pwr", APB1ENR, 28),
        ("lptim1", APB1ENR, 31),
    )
    registers: ClassVar = {
        ICSCR: 0xFFFF_FFFF,
        IOPENR: 0x9F,
        APB2ENR: 0x0040_52A5,
        APB1ENR: 0xF8FE_CA33,
        CCIPR: 0x040F_FC0F & ~(3 << 14),
        CSR: 0xFF8F_7F01,
    }

    RTC_DOMAIN = CSR
    DOMAIN_BITS = 0x0007_7F00
    AT_RESET: ClassVar = {ICSCR: 5 << 13}

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.reads[self.CSR] = lambda: self._status() | self._status_of_domain()
        self.writes[self.ICSCR] = self._set_range

    def _set_status(self, value: int) -> None:
        self._take_flags(value)
        self._set_rtc_domain(value)

    def _set_range(self, value: int) -> None:
        self.values[self.ICSCR] = value
        self.on_change()

    def core_hz(self) -> float:
        """MSI ranges double from 65.536 kHz."""
        return float(65_536 << (self.values[self.ICSCR] >> 13 & 7))


class PowerL0(Power):
    """PWR (RM0376 section 6.4)."""

    CSR = 0x04
    PDDS, PVDE, ULP, PVDO = 1 << 1, 1 << 4, 1 << 9, 1 << 2
    registers: ClassVar = {Power.CONTROL: 0x0001_7FFF, CSR: 0x0700}
    RANGE_SHIFT = 11
    RANGE_AT_RESET = 2
    LEVELS_MV = (1850, 2040, 2240, 2440, 2640, 2830, 3050)

    def reset(self) -> None:
        """The detector's output is in CSR."""
        super().reset()
        self.reads = {self.CSR: lambda: self.PVDO if self.supply_low else 0}

    def detector(self) -> int | None:
        """By PLS."""
        control = self.values[self.CONTROL]
        return self.LEVELS_MV[min(control >> 5 & 7, 6)] if control & self.PVDE else None

    def works_in_stop(self) -> bool:
        """It compares with the internal reference, which ULP switches off."""
        return not self.values[self.CONTROL] & self.ULP

    def standby(self) -> bool:
        """PDDS."""
        return bool(self.values[self.CONTROL] & self.PDDS)


FAMILY = Family(
    clock_hz=4_194_304.0,
    zero_wait_hz={1: 16_000_000.0, 2: 8_000_000.0, 3: 4_200_000.0},
    lsi_hz=37_000.0,
    ram_size=20 * 1024,
    interrupt_words=1,
    flash=FlashL0,
    converter=ConverterL0,
    factory_page=0x1FF8_0000,
    calibration_address=0x1FF8_0078,
    calibration=CALIBRATION,
    unique_id_addresses=(0x1FF8_0050, 0x1FF8_0054, 0x1FF8_0064),
    irq_rtc=2,
    irq_lptim=13,
    irq_tim2=15,
    irq_lpuart=29,
    domain_survives_brown_out=False,
    inputs={0: ("shallow", 0), 1: ("deep", 1), 4: ("soil temperature", 4), 5: ("light", 5)},
    alternates={"lpuart1": 6, "i2c1": 1, "tim2 ch1": 5, "tim2 ch2": 2},
    pins_at_reset={"gpioa": (0xEBFF_FCFF, 0x2400_0000), "gpiob": (0xFFFF_FFFF, 0)},
    addresses={
        "tim2": 0x4000_0000,
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
    clocks=clock_tree(ClocksL0, PowerL0),
)
