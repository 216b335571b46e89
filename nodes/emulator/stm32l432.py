"""STM32L432: clock and power controllers, memory map (RM0394)."""

from __future__ import annotations

from typing import ClassVar

from nodes.emulator.clocks import Clocks, Power, clock_tree
from nodes.emulator.converter import CALIBRATION, ConverterL4
from nodes.emulator.family import Family
from nodes.emulator.flash import FlashL4


class ClocksL4(Clocks):
    """RCC: peripheral clock enables, LSE, RTC domain (RM0394 section 6.4)."""

    CR, AHB2ENR, APB1ENR1, APB1ENR2, APB2ENR, CCIPR, BDCR, CSR = 0x00, 0x4C, 0x58, 0x5C, 0x60, 0x88, 0x90, 0x94
    LSEON, LSERDY = 1 << 0, 1 << 1
    MSIRGSEL = 1 << 3
    MSI_KHZ = (100, 200, 400, 800, 1_000, 2_000, 4_000, 8_000, 16_000, 24_000, 32_000, 48_000)
    ENABLES = (
        ("gpioa", AHB2ENR, 0),
        ("gpiob", AHB2ENR, 1),
        ("adc", AHB2ENR, 13),
        ("tim2", APB1ENR1, 0),
        ("rtc", APB1ENR1, 10),
        ("i2c1", APB1ENR1, 21),
        ("pwr", APB1ENR1, 28),
        ("lptim1", APB1ENR1, 31),
        ("lpuart1", APB1ENR2, 0),
        ("syscfg", APB2ENR, 0),
    )
    registers: ClassVar = {
        CR: 0x0F0F_0FFF,
        AHB2ENR: 0x0005_209F,
        APB1ENR1: 0xF7E6_CE3F,
        APB1ENR2: 0x27,
        APB2ENR: 0x0125_7C81,
        CCIPR: 0x7FFF_FFFF,
        BDCR: 0x0301_837F,
        CSR: 0xFF80_0F03,
    }

    RTC_DOMAIN = BDCR
    DOMAIN_BITS = 0x0301_837F
    AT_RESET: ClassVar = {CR: 0x63}

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.writes[self.CR] = self._set_range

    def _set_range(self, value: int) -> None:
        self.values[self.CR] = value
        self.on_change()

    def core_hz(self) -> float:
        """4 MHz unless MSIRGSEL hands the choice to MSIRANGE."""
        control = self.values[self.CR]
        choice = control >> 4 & 15 if control & self.MSIRGSEL else 6
        return self.MSI_KHZ[min(choice, 11)] * 1000.0


class PowerL4(Power):
    """PWR (RM0394 section 5.4)."""

    CR2, SR1, SR2, SCR = 0x04, 0x10, 0x14, 0x18
    PVDE, PVDO = 1 << 0, 1 << 11
    STANDBY = 3
    registers: ClassVar = {Power.CONTROL: 0x4707, CR2: 0x07FF, SR1: 0, SR2: 0, SCR: 0x011F}
    write_only = frozenset({SCR})
    RANGE_SHIFT = 9
    RANGE_AT_RESET = 1
    LEVELS_MV = (2050, 2200, 2360, 2520, 2640, 2750, 2830)

    def reset(self) -> None:
        """The detector has its own control register."""
        super().reset()
        self.reads = {self.SR2: lambda: self.PVDO if self.supply_low else 0}
        self.writes[self.CR2] = self._set_detector

    def _set_detector(self, value: int) -> None:
        self.values[self.CR2] = value
        self.sample()

    def detector(self) -> int | None:
        """By PLS."""
        control = self.values.get(self.CR2, 0)
        return self.LEVELS_MV[min(control >> 1 & 7, 6)] if control & self.PVDE else None

    def standby(self) -> bool:
        """LPMS."""
        return (self.values[self.CONTROL] & 7) >= self.STANDBY


FAMILY = Family(
    clock_hz=4_000_000.0,
    zero_wait_hz={1: 16_000_000.0, 2: 6_000_000.0},
    lsi_hz=32_000.0,
    ram_size=64 * 1024,
    interrupt_words=3,
    flash=FlashL4,
    converter=ConverterL4,
    factory_page=0x1FFF_7000,
    calibration_address=0x1FFF_75AA,
    calibration=CALIBRATION,
    unique_id_addresses=(0x1FFF_7590, 0x1FFF_7594, 0x1FFF_7598),
    irq_rtc=3,
    irq_lptim=65,
    irq_tim2=28,
    irq_lpuart=70,
    domain_survives_brown_out=True,
    inputs={5: ("shallow", 0), 6: ("deep", 1), 9: ("soil temperature", 4), 10: ("light", 5)},
    alternates={"lpuart1": 8, "i2c1": 4, "tim2 ch1": 1, "tim2 ch2": 1},
    pins_at_reset={"gpioa": (0xABFF_FFFF, 0x6400_0000), "gpiob": (0xFFFF_FEBF, 0x0000_0100)},
    addresses={
        "tim2": 0x4000_0000,
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
    clocks=clock_tree(ClocksL4, PowerL4),
)
