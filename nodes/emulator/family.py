"""What distinguishes one microcontroller family from another, as data for :class:`nodes.emulator.board.Board`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nodes.emulator.clocks import Clocks, Power
from nodes.emulator.converter import Converter
from nodes.emulator.flash import Flash
from nodes.emulator.peripherals import Exti, Host, Peripheral
from nodes.emulator.timekeeping import Rtc


@dataclass(frozen=True)
class Family:
    """A part: memory sizes, addresses, interrupt numbers, clocks."""

    clock_hz: float
    """MSI as the firmware sets it."""
    zero_wait_hz: dict[int, float]
    """By voltage range, the fastest clock at which flash is read without a wait state; each one adds as much again."""
    lsi_hz: float
    ram_size: int
    interrupt_words: int
    """Words of interrupt enables in the NVIC."""
    flash: type[Flash]
    converter: type[Converter]
    factory_page: int
    calibration_address: int
    calibration: int
    unique_id_addresses: tuple[int, int, int]
    irq_rtc: int
    irq_lptim: int
    irq_tim2: int
    irq_lpuart: int
    domain_survives_brown_out: bool
    """Whether RTC and LSE go on when the supply falls below the brown-out level and comes back."""
    inputs: dict[int, tuple[str, int]]
    """Converter channel to what is soldered to it, and the pin of port A."""
    alternates: dict[str, int]
    """The alternate function that leads a peripheral to our pins."""
    pins_at_reset: dict[str, tuple[int, int]]
    """MODER and PUPDR after a reset, by port."""
    addresses: dict[str, int]
    windows: tuple[tuple[int, int], ...]
    """Address ranges of peripherals, multiples of 4 KB."""
    clocks: Callable[[Host, dict[str, Peripheral], Rtc, Exti, Callable[[], int]], tuple[Clocks, Power]]
    """Makes the reset-and-clock and power controllers over the other parts."""
