"""The 12-bit converters: inputs in mV, the internal reference, and the order and time each step takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from nodes.emulator.peripherals import NEVER, WORD, BoardError, Host, Peripheral

REFERENCE_MV = 1224
"""The internal reference, typical."""
CALIBRATION = round(REFERENCE_MV * 4095 / 3000)
"""Its raw reading at 3.0 V, as the factory stores it."""


class Converter(Peripheral, ABC):
    """Converts a sequence of channels, waiting for each result to be read."""

    name = "ADC"
    ISR, IER, CR, DR, CCR = 0x00, 0x04, 0x08, 0x40, 0x308
    ADRDY, EOC = 1 << 0, 1 << 2
    ADEN, ADDIS, ADSTART, ADVREGEN, ADCAL = 1 << 0, 1 << 1, 1 << 2, 1 << 28, 1 << 31
    VREFEN = 1 << 22
    REFERENCE = 17
    REFERENCE_SAMPLING_S: ClassVar[float]
    """The shortest time in which the reference can be sampled (data sheet, "embedded internal reference voltage")."""
    REGULATOR_START_S: ClassVar[float] = 0.0
    CONVERSION_S = 26e-6
    CALIBRATION_S = 40e-6
    ENABLE_S = 5e-6

    def __init__(
        self, host: Host, supply_mv: Callable[[], int], input_mv: Callable[[int], float], current_ua: float
    ) -> None:
        """Take the inputs.

        Args:
            host: the board.
            supply_mv: the converter's reference voltage.
            input_mv: voltage of an external channel.
            current_ua: drawn while enabled, µA.
        """
        self._supply_mv, self._input_mv, self._current_ua = supply_mv, input_mv, current_ua
        self.hz: Callable[[], float] = lambda: 4_000_000.0
        """The bus clock."""
        super().__init__(host)
        self.reads = {self.ISR: self._status, self.CR: self._control_now, self.DR: self._data}
        self.writes = {self.CR: self._control}

    def reset(self) -> None:
        """Off."""
        super().reset()
        self._sequence: list[int] = []
        self._ready_at = 0.0
        self._enabled_at: float | None = None
        self._regulator_at = NEVER
        self._calibrated = False

    @abstractmethod
    def channels(self) -> list[int]:
        """The sequence to convert, from this family's registers."""

    @abstractmethod
    def clock_hz(self) -> float:
        """The converter's clock; 0: it has none."""

    @abstractmethod
    def sampling_s(self, channel: int) -> float:
        """How long a channel is sampled."""

    def _control(self, value: int) -> None:
        now = self.host.now()
        if value & self.ADVREGEN and self._regulator_at == NEVER:
            self._regulator_at = now + self.REGULATOR_START_S
        elif not value & self.ADVREGEN:
            self._regulator_at = NEVER
            self._calibrated = False
        if value & (self.ADCAL | self.ADEN) and now < self._ready_at:
            raise BoardError("ADC: next step before the calibration has ended")
        if value & self.ADCAL:
            self._calibrate(now)
        if value & self.ADEN and self._enabled_at is None:
            if self.clock_hz() <= 0.0:
                raise BoardError("ADC: enabled without a clock; CKMODE selects an oscillator that is off")
            self._enabled_at = now
            self._ready_at = now + self.ENABLE_S
        if value & self.ADSTART:
            self._start(now)
        if value & self.ADDIS and self._enabled_at is not None:
            self.host.ledger.charge("converter", self._current_ua, now - self._enabled_at)
            self._enabled_at = None
            self._sequence = []
        self.values[self.CR] = value & ~(self.ADCAL | self.ADDIS | self.ADEN | self.ADSTART)

    def _calibrate(self, now: float) -> None:
        if self._enabled_at is not None or self._regulator_at == NEVER:
            raise BoardError("ADC: calibration needs the regulator on and the converter off")
        if now < self._regulator_at:
            raise BoardError("ADC: calibration before the regulator has started")
        self._ready_at = now + self.CALIBRATION_S
        self._calibrated = True

    def _start(self, now: float) -> None:
        if self._enabled_at is None or now < self._ready_at:
            raise BoardError("ADC: start while it is not enabled and ready")
        if not self._calibrated:
            raise BoardError("ADC: start without a calibration since its regulator was switched on")
        self._sequence = self.channels()
        self._ready_at = now + self.CONVERSION_S

    def _control_now(self) -> int:
        self.host.stall_until(self._ready_at)
        return self.values.get(self.CR, 0) | (self.ADEN if self._enabled_at is not None else 0)

    def _status(self) -> int:
        self.host.stall_until(self._ready_at)
        ready = self.ADRDY if self._enabled_at is not None else 0
        return ready | (self.EOC if self._sequence else 0)

    def _data(self) -> int:
        if not self._sequence or self.host.now() < self._ready_at:
            raise BoardError("ADC: DR read before a conversion has ended")
        channel = self._sequence.pop(0)
        self._ready_at = self.host.now() + self.CONVERSION_S
        supply = self._supply_mv()
        if channel == self.REFERENCE:
            if not self.values.get(self.CCR, 0) & self.VREFEN:
                raise BoardError("ADC: conversion of the reference, which is switched off (VREFEN)")
            if self.sampling_s(channel) < self.REFERENCE_SAMPLING_S:
                raise BoardError("ADC: the reference is sampled for too short a time")
            millivolts = float(REFERENCE_MV)
        else:
            millivolts = self._input_mv(channel)
        return min(max(round(millivolts * 4095 / max(supply, 1)), 0), 4095)

    def enter_stop(self) -> None:
        """Its clock stops."""
        if self._enabled_at is not None:
            raise BoardError("ADC: STOP while it is enabled")


class ConverterL0(Converter):
    """STM32L0: channels upwards from a bit mask (RM0376 section 14.12)."""

    CFGR1, CFGR2, SMPR, CHSELR = 0x0C, 0x10, 0x14, 0x28
    LFMEN = 1 << 25
    LOW_FREQUENCY_HZ = 3_500_000.0
    REFERENCE_SAMPLING_S = 10e-6
    SAMPLING_CYCLES = (1.5, 3.5, 7.5, 12.5, 19.5, 39.5, 79.5, 160.5)
    DIVISORS = (0, 2, 4, 1)
    """Of the bus clock, by CKMODE; 0: HSI16."""
    registers: ClassVar = {
        Converter.ISR: 0x89F,
        Converter.IER: 0x89F,
        Converter.CR: 0x9000_0017,
        CFGR1: 0x7CC1_FDFF,
        CFGR2: 0xC000_03FD,
        SMPR: 0x7,
        CHSELR: 0x7_FFFF,
        Converter.DR: 0,
        Converter.CCR: 0x03FC_0000,
    }

    def channels(self) -> list[int]:
        """Selected channels in rising order."""
        mask = self.values.get(self.CHSELR, 0)
        return [channel for channel in range(19) if mask >> channel & 1]

    def clock_hz(self) -> float:
        """The bus clock divided; slow clocks need the low-frequency mode."""
        divisor = self.DIVISORS[self.values.get(self.CFGR2, 0) >> 30]
        clock_hz = self.hz() / divisor if divisor else 0.0
        if 0.0 < clock_hz < self.LOW_FREQUENCY_HZ and not self.values.get(self.CCR, 0) & self.LFMEN:
            raise BoardError(f"ADC: clock of {clock_hz / 1e6:.1f} MHz without LFMEN")
        return clock_hz

    def sampling_s(self, channel: int) -> float:
        """One setting for all."""
        del channel
        return self.SAMPLING_CYCLES[self.values.get(self.SMPR, 0)] / self.clock_hz()


class ConverterL4(Converter):
    """STM32L4: a programmed sequence (RM0394 section 16.6)."""

    REFERENCE = 0
    CFGR, SMPR1, SMPR2 = 0x0C, 0x14, 0x18
    SQR1, SQR2 = 0x30, 0x34
    DEEPPWD = 1 << 29
    REFERENCE_SAMPLING_S = 4e-6
    REGULATOR_START_S = 20e-6
    SAMPLING_CYCLES = (2.5, 6.5, 12.5, 24.5, 47.5, 92.5, 247.5, 640.5)
    DIVISORS = (0, 1, 2, 4)
    """Of the bus clock, by CKMODE; 0: an oscillator of its own."""
    registers: ClassVar = {
        Converter.ISR: 0x7FF,
        Converter.IER: 0x7FF,
        Converter.CR: 0xF000_003F,
        CFGR: 0xFFFF_FE7F & WORD,
        SMPR1: 0x3FFF_FFFF,
        SMPR2: 0x07FF_FFFF,
        SQR1: 0x1F7D_F7CF,
        SQR2: 0x1F7D_F7DF,
        Converter.DR: 0,
        Converter.CCR: 0x01FF_EF1F,
    }

    def reset(self) -> None:
        """Off, in deep power-down."""
        super().reset()
        self.values[self.CR] = self.DEEPPWD

    def _control(self, value: int) -> None:
        if self.values[self.CR] & self.DEEPPWD and value & ~self.DEEPPWD:
            raise BoardError("ADC: CR written while in deep power-down")
        super()._control(value)

    def channels(self) -> list[int]:
        """Up to nine channels from the first two sequence registers."""
        first, second = self.values.get(self.SQR1, 0), self.values.get(self.SQR2, 0)
        slots = [first >> shift & 31 for shift in (6, 12, 18, 24)]
        slots += [second >> shift & 31 for shift in (0, 6, 12, 18, 24)]
        return slots[: (first & 15) + 1]

    def clock_hz(self) -> float:
        """The bus clock divided."""
        divisor = self.DIVISORS[self.values.get(self.CCR, 0) >> 16 & 3]
        return self.hz() / divisor if divisor else 0.0

    def sampling_s(self, channel: int) -> float:
        """Each channel has its own setting."""
        register, first = (self.SMPR1, 0) if channel < 10 else (self.SMPR2, 10)
        choice = self.values.get(register, 0) >> (3 * (channel - first)) & 7
        return self.SAMPLING_CYCLES[choice] / self.clock_hz()
