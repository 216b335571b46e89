"""STM32L072: clock and power controllers, memory map (RM0376)."""

from __future__ import annotations

from typing import ClassVar

from nodes.emulator.clocks import Clocks, clock_tree
from nodes.emulator.converter import CALIBRATION, ConverterL0
from nodes.emulator.family import Family
from nodes.emulator.flash import FlashL0


class ClocksL0(Clocks):
    """RCC: peripheral clock enables, LSE, RTC domain (RM0376 section 7.3)."""

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

    RTC_DOMAIN = CSR
    AT_RESET: ClassVar = {0x04: 5 << 13}
    """ICSCR: MSI range 5."""


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
    clocks=clock_tree(ClocksL0),
)
