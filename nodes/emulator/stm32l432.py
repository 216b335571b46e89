"""STM32L432: clock and power controllers, memory map (RM0394)."""

from __future__ import annotations

from nodes.emulator.clocks import Clocks, clock_tree
from nodes.emulator.converter import CALIBRATION, ConverterL4
from nodes.emulator.family import Family
from nodes.emulator.flash import FlashL4


class ClocksL4(Clocks):
    """RCC: peripheral clock enables, LSE, RTC domain (RM0394 section 6.4)."""

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

    RTC_DOMAIN = BDCR


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
    clocks=clock_tree(ClocksL4),
)
