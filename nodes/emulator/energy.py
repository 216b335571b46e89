"""Where a node's charge goes: a ledger per consumer, with the datasheet line behind every current.

Typical values at 3.0 V and 25 °C. A coin cell's internal resistance and cold derating are not in it: the board has a
reservoir capacitor for the modem's transmit pulses.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shared_models.codes import Board

CR2032_UAH = 225_000.0
"""Energizer CR2032 data sheet: 225 mAh to 2.0 V at 25 °C."""
SELF_DISCHARGE_PER_YEAR = 0.01
"""Share of the cell's capacity; lithium manganese dioxide, ~1 % a year (same data sheet)."""
HOURS_PER_YEAR = 8766.0


@dataclass(frozen=True, slots=True)
class Current:
    """A consumer's current while it is on."""

    ua: float
    source: str


@dataclass(frozen=True, slots=True)
class BoardCurrents:
    """What the microcontroller draws in its modes."""

    run: Current
    sleep: Current
    stop: Current
    flash: Current
    """On top of ``run`` while flash is erased or programmed."""
    converter: Current


CURRENTS = {
    Board.STM32L072: BoardCurrents(
        run=Current(725.0, "DS10685 table 'current consumption in Run mode, code from flash', range 2, 4 MHz"),
        sleep=Current(185.0, "DS10685 table 'current consumption in Sleep mode', range 2, 4 MHz"),
        stop=Current(0.86, "DS10685 front page: STOP with RTC and 20 KB of RAM retained"),
        flash=Current(500.0, "DS10685 table 'flash memory and data EEPROM characteristics', average"),
        converter=Current(200.0, "DS10685 table 'ADC characteristics', at the rate we convert"),
    ),
    Board.STM32L432: BoardCurrents(
        run=Current(540.0, "DS11451 table 'current consumption in Run mode, code from flash', range 2, 4 MHz"),
        sleep=Current(190.0, "DS11451 table 'current consumption in Sleep mode', range 2, 4 MHz"),
        stop=Current(1.28, "DS11451 front page: STOP 2 with RTC"),
        flash=Current(3400.0, "DS11451 table 'flash memory characteristics', average while programming"),
        converter=Current(200.0, "DS11451 table 'ADC characteristics', at the rate we convert"),
    ),
}

PROBES = Current(10_000.0, "METER EC-5 manual: 10 mA at 3 V while measuring, taken for both probes together")
SHT4X_IDLE = Current(0.08, "Sensirion SHT4x data sheet table 3: idle")
SHT4X_MEASURE = Current(320.0, "Sensirion SHT4x data sheet table 3: measuring")
MODEM_SLEEP = Current(1.69, "RAK3172 data sheet: sleep")
MODEM_ACTIVE = Current(5_220.0, "RAK3172 data sheet: receive, taken for every awake state")
MODEM_TRANSMIT = Current(87_000.0, "RAK3172 data sheet: transmit at +20 dBm, an upper bound for our +14 dBm")


@dataclass(slots=True)
class EnergyLedger:
    """Charge drawn so far, by consumer."""

    charge_uas: dict[str, float] = field(default_factory=dict)
    """Microampere-seconds."""
    elapsed_s: float = 0.0

    def charge(self, consumer: str, current_ua: float, duration_s: float) -> None:
        """Book ``current_ua`` drawn for ``duration_s``."""
        self.charge_uas[consumer] = self.charge_uas.get(consumer, 0.0) + current_ua * duration_s

    @property
    def consumers_uah(self) -> dict[str, float]:
        """Charge by consumer, µAh, self-discharge included, largest first."""
        spent = {name: charge / 3600.0 for name, charge in self.charge_uas.items()}
        spent["self-discharge"] = self._self_discharge_uah
        return dict(sorted(spent.items(), key=lambda item: (-item[1], item[0])))

    @property
    def total_uah(self) -> float:
        """Charge drawn so far, µAh."""
        return sum(self.charge_uas.values()) / 3600.0 + self._self_discharge_uah

    @property
    def _self_discharge_uah(self) -> float:
        return CR2032_UAH * SELF_DISCHARGE_PER_YEAR * self.elapsed_s / 3600.0 / HOURS_PER_YEAR

    @property
    def projected_life_years(self) -> float:
        """How long one CR2032 lasts when the rest of its life is like what was booked."""
        if self.elapsed_s <= 0.0:
            return 0.0
        return CR2032_UAH / (self.total_uah / (self.elapsed_s / 3600.0)) / HOURS_PER_YEAR
