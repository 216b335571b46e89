"""What distinguishes one microcontroller family from another, as data for :class:`nodes.emulator.board.Board`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nodes.emulator.converter import Converter
from nodes.emulator.flash import Flash
from nodes.emulator.peripherals import Host, Peripheral


@dataclass(frozen=True)
class Family:
    """A part: memory sizes, addresses, interrupt numbers, clocks."""

    clock_hz: float
    """MSI as the firmware sets it."""
    lsi_hz: float
    ram_size: int
    flash: type[Flash]
    converter: type[Converter]
    factory_page: int
    calibration_address: int
    calibration: int
    irq_rtc: int
    irq_lptim: int
    irq_lpuart: int
    inputs: dict[int, str]
    """Converter channel to what is soldered to it."""
    addresses: dict[str, int]
    windows: tuple[tuple[int, int], ...]
    """Address ranges of peripherals, multiples of 4 KB."""
    clocks: Callable[[Host, dict[str, Peripheral]], dict[str, Peripheral]]
    """Makes the reset-and-clock and power controllers over the other parts."""
