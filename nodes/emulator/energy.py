"""Where a node's charge goes: a ledger per consumer, with the document behind every current.

Typical values at 3.0 V and 25 °C. A source that ends in "from memory" was not at hand when the figure was written down:
compare it before you rely on it.

The board: one CR2032, a double-layer capacitor beside it for what the cell's resistance does not let through, and no
regulator, since every part runs from 2.0 V to 3.6 V except the probes, which want 2.5 V.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

from shared_models.codes import Board

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
    """With the calendar on its crystal and RAM retained."""
    watchdog: Current
    """The watchdog and its oscillator, which nothing stops."""
    flash: Current
    """On top of ``run`` while flash is erased or programmed."""
    converter: Current


CURRENTS = {
    Board.STM32L072: BoardCurrents(
        run=Current(840.0, "DS10685 'Run mode, code from flash', range 2, 0.8 mA at 4 MHz, for 4.2 MHz; from memory"),
        sleep=Current(185.0, "DS10685 'Sleep mode', range 2, 4 MHz; from memory"),
        stop=Current(0.86, "DS10685 rev 4 front page: Stop mode with RTC and 20 KB of RAM retained"),
        watchdog=Current(0.61, "DS10685 'Peripheral current in Stop mode', LSI 0.31 and IWDG 0.30 at 3 V; from memory"),
        flash=Current(500.0, "DS10685 'Flash memory and data EEPROM', average while programming; from memory"),
        converter=Current(200.0, "DS10685 'ADC characteristics', supply and reference at 1 Msps; from memory"),
    ),
    Board.STM32L432: BoardCurrents(
        run=Current(540.0, "DS11451 'Run mode, code from flash', range 2, 4 MHz, 0.46 typical at 1.8 V; from memory"),
        sleep=Current(200.0, "DS11451 'Sleep mode', range 2, 4 MHz; from memory"),
        stop=Current(1.28, "DS11451 front page: Stop 2 with RTC; from memory"),
        watchdog=Current(0.30, "DS11451 'Standby mode', with independent watchdog less without, 3 V; from memory"),
        flash=Current(3400.0, "DS11451 'Flash memory characteristics', write and erase; from memory"),
        converter=Current(200.0, "DS11451 front page: 200 µA/Msps, taken at 1 Msps; from memory"),
    ),
}

PROBES = Current(20_000.0, "METER EC-5 specifications: 10 mA at 2.5 to 3.5 V, 10 ms to measure; two probes")
SHT4X_IDLE = Current(0.08, "Sensirion SHT4x data sheet, front page: idle 80 nA")
SHT4X_MEASURE = Current(320.0, "Sensirion SHT4x data sheet, electrical specifications: measuring; from memory")
MODEM_SLEEP = Current(1.69, "RAK3172 data sheet: sleep")
MODEM_ACTIVE = Current(5_220.0, "RAK3172 data sheet: receive, taken for every awake state")
MODEM_RECEIVE = Current(5_220.0, "RAK3172 data sheet: receive (8.4 mA measured with RUI3, RAK forum thread 7754)")
MODEM_TRANSMIT = Current(
    87_000.0,
    "RAK3172 data sheet: +20 dBm at 868 MHz. No less at EU868's +14 dBm: the module connects only the high-power "
    "amplifier, matched for +22 dBm; 86 mA and 90 mA measured at +14 dBm (Seeed forum 260126, RAK forum 4781)",
)
RESERVOIR = Current(
    0.5, "Assumed: leakage of 0.1 to 0.3 F at 3 V after some weeks, about 1 µA/F and a margin; from memory"
)

CR2032_UAH = 225_000.0
"""Typical of the type to 2.0 V; makers state 210 to 240 mAh at 15 kΩ (their data sheets from memory)."""
SELF_DISCHARGE_PER_YEAR = 0.01
"""Share of the cell's capacity; lithium manganese dioxide, 1 % a year (makers' data sheets)."""
CAPACITY_BY_TEMPERATURE = ((-20.0, 0.60), (-10.0, 0.78), (0.0, 0.90), (23.0, 1.0), (60.0, 1.0))
"""°C and share of the capacity to 2.0 V at 15 kΩ: makers' temperature charts, rounded down; from memory."""


def capacity_share(temperature_c: float) -> float:
    """Share of a CR2032's capacity that is to be had at a temperature; linear between the table's points."""
    table = CAPACITY_BY_TEMPERATURE
    for (cold, low), (warm, high) in pairwise(table):
        if temperature_c <= warm:
            return low + (high - low) * max(0.0, (temperature_c - cold) / (warm - cold))
    return table[-1][1]


def reservoir_mf(air_time_s: float, droop_v: float = 0.4) -> float:
    """Capacitor that carries one transmission, mF.

    The cell is left out: cold or old, it gives little. 0.4 V is what stands between a cell at 2.9 V and the probes'
    2.5 V; half of it is left for the capacitor's own resistance.

    Args:
        air_time_s: time on air of the longest frame.
        droop_v: how far the supply may fall.
    """
    return MODEM_TRANSMIT.ua * 1e-6 * air_time_s / (droop_v / 2) * 1e3


@dataclass(slots=True)
class EnergyLedger:
    """Charge drawn so far, by consumer."""

    charge_uas: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Microampere-seconds."""
    elapsed_s: float = 0.0

    def charge(self, consumer: str, current_ua: float, duration_s: float) -> None:
        """Book ``current_ua`` drawn for ``duration_s``."""
        self.charge_uas[consumer] += current_ua * duration_s

    @property
    def consumers_uah(self) -> dict[str, float]:
        """Charge by consumer, µAh, with what the cell and the capacitor lose by themselves; largest first."""
        spent = {name: charge / 3600.0 for name, charge in self.charge_uas.items()}
        spent["self-discharge"], spent["reservoir leakage"] = self._lost_uah()
        return dict(sorted(spent.items(), key=lambda item: (-item[1], item[0])))

    @property
    def total_uah(self) -> float:
        """Charge drawn so far, µAh."""
        # Without names, because each look at a battery asks. Largest first, as consumers are listed: a sum of floats
        # depends on its order.
        spent = [charge / 3600.0 for charge in self.charge_uas.values()]
        return sum(sorted((*spent, *self._lost_uah()), reverse=True))

    def _lost_uah(self) -> tuple[float, float]:
        """What the cell and the capacitor lose by themselves, µAh."""
        self_discharge = CR2032_UAH * SELF_DISCHARGE_PER_YEAR * self.elapsed_s / 3600.0 / HOURS_PER_YEAR
        return self_discharge, RESERVOIR.ua * self.elapsed_s / 3600.0

    @property
    def projected_life_years(self) -> float:
        """How long one CR2032 lasts at 23 °C when the rest of its life is like what was booked."""
        if self.elapsed_s <= 0.0:
            return 0.0
        return CR2032_UAH / (self.total_uah / (self.elapsed_s / 3600.0)) / HOURS_PER_YEAR
