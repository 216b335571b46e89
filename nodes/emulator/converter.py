"""The 12-bit converters: inputs in mV, the internal reference, and the time a conversion takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from nodes.emulator.peripherals import BoardError, Host, Peripheral

REFERENCE_MV = 1224
"""The internal reference, typical."""
CALIBRATION = round(REFERENCE_MV * 4095 / 3000)
"""Its raw reading at 3.0 V, as the factory stores it."""


class Converter(Peripheral, ABC):
    """Converts a sequence of channels, waiting for each result to be read."""

    name = "ADC"
    ISR, CR, DR, CCR = 0x00, 0x08, 0x40, 0x308
    ADRDY, EOC = 1 << 0, 1 << 2
    ADEN, ADDIS, ADSTART, ADVREGEN, ADCAL = 1 << 0, 1 << 1, 1 << 2, 1 << 28, 1 << 31
    VREFEN = 1 << 22
    REFERENCE = 17
    CONVERSION_S = 26e-6
    CALIBRATION_S = 40e-6

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
        super().__init__(host)
        self.reads = {self.ISR: self._status, self.CR: self._control_now, self.DR: self._data}
        self.writes = {self.CR: self._control}

    def reset(self) -> None:
        """Off."""
        super().reset()
        self._sequence: list[int] = []
        self._ready_at = 0.0
        self._enabled_at: float | None = None

    @abstractmethod
    def channels(self) -> list[int]:
        """The sequence to convert, from this family's registers."""

    def _control(self, value: int) -> None:
        now = self.host.now()
        if value & self.ADCAL:
            if self._enabled_at is not None or not value & self.ADVREGEN:
                raise BoardError("ADC: calibration needs the regulator on and the converter off")
            self._ready_at = now + self.CALIBRATION_S
        if value & self.ADEN and self._enabled_at is None:
            self._enabled_at = now
        if value & self.ADSTART:
            if self._enabled_at is None:
                raise BoardError("ADC: start while disabled")
            self._sequence = self.channels()
            self._ready_at = now + self.CONVERSION_S
        if value & self.ADDIS and self._enabled_at is not None:
            self.host.ledger.charge("converter", self._current_ua, now - self._enabled_at)
            self._enabled_at = None
            self._sequence = []
        self.values[self.CR] = value & ~(self.ADCAL | self.ADDIS | self.ADEN | self.ADSTART)

    def _control_now(self) -> int:
        self.host.stall_until(self._ready_at)
        return self.values.get(self.CR, 0) | (self.ADEN if self._enabled_at is not None else 0)

    def _status(self) -> int:
        self.host.stall_until(self._ready_at)
        ready = self.ADRDY if self._enabled_at is not None else 0
        return ready | (self.EOC if self._sequence else 0)

    def _data(self) -> int:
        if not self._sequence:
            return 0
        channel = self._sequence.pop(0)
        self._ready_at = self.host.now() + self.CONVERSION_S
        supply = self._supply_mv()
        if channel == self.REFERENCE:
            millivolts = float(REFERENCE_MV) if self.values.get(self.CCR, 0) & self.VREFEN else 0.0
        else:
            millivolts = self._input_mv(channel)
        return min(max(round(millivolts * 4095 / max(supply, 1)), 0), 4095)


class ConverterL0(Converter):
    """STM32L0: channels upwards from a bit mask (RM0376 section 14.12)."""

    CHSELR = 0x28

    def channels(self) -> list[int]:
        """Selected channels in rising order."""
        mask = self.values.get(self.CHSELR, 0)
        return [channel for channel in range(19) if mask >> channel & 1]


class ConverterL4(Converter):
    """STM32L4: a programmed sequence (RM0394 section 16.6)."""

    REFERENCE = 0
    SQR1, SQR2 = 0x30, 0x34
    DEEPPWD = 1 << 29

    def reset(self) -> None:
        """Off, in deep power-down."""
        super().reset()
        self.values[self.CR] = self.DEEPPWD

    def channels(self) -> list[int]:
        """Up to nine channels from the first two sequence registers."""
        first, second = self.values.get(self.SQR1, 0), self.values.get(self.SQR2, 0)
        slots = [first >> shift & 31 for shift in (6, 12, 18, 24)]
        slots += [second >> shift & 31 for shift in (0, 6, 12, 18, 24)]
        return slots[: (first & 15) + 1]
