"""The ledger adds up, the cell weakens in the cold, and the picture leaves no consumer out."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from nodes.emulator import energy
from nodes.emulator.energy import CR2032_UAH, HOURS_PER_YEAR, EnergyLedger, capacity_share, reservoir_mf
from nodes.energy_chart import energy_chart
from nodes.energy_report import EnergyReport


def report(**consumers: float) -> EnergyReport:
    by_name = {name.replace("_", " "): value for name, value in consumers.items()}
    total = sum(by_name.values())
    life = CR2032_UAH / total / (HOURS_PER_YEAR / 24)
    return EnergyReport("m0", 3, 9, 25.0, life, CR2032_UAH, total, by_name, 1, 1, 1, 1, 1, 1, {}, 1, 1, 1, 1)


def test_a_year_of_nothing_costs_self_discharge_and_leakage() -> None:
    ledger = EnergyLedger(elapsed_s=HOURS_PER_YEAR * 3600)
    leakage_uah = energy.RESERVOIR.ua * HOURS_PER_YEAR
    assert ledger.total_uah == pytest.approx(2250.0 + leakage_uah)
    assert ledger.projected_life_years == pytest.approx(CR2032_UAH / (2250.0 + leakage_uah))


def test_charge_is_current_times_time() -> None:
    ledger = EnergyLedger()
    ledger.charge("probes", 20_000.0, 1.8)
    ledger.charge("probes", 20_000.0, 1.8)
    assert ledger.consumers_uah["probes"] == pytest.approx(20.0)
    assert ledger.projected_life_years == 0.0


@pytest.mark.parametrize(
    ("celsius", "share"),
    [(-40, 0.60), (-20, 0.60), (-15, 0.69), (-10, 0.78), (0, 0.90), (23, 1.0), (25, 1.0), (80, 1.0)],
)
def test_the_cold_takes_its_share_of_the_cell(celsius: float, share: float) -> None:
    assert capacity_share(celsius) == pytest.approx(share)


def test_the_reservoir_carries_the_frame_within_its_droop() -> None:
    farad = reservoir_mf(0.33, droop_v=0.4) / 1000
    charge_c = energy.MODEM_TRANSMIT.ua * 1e-6 * 0.33
    assert charge_c / farad == pytest.approx(0.2)


def test_the_picture_is_as_long_as_the_charge() -> None:
    svg = energy_chart([report(modem_sleep=40.0, core_stop=20.0, probes=20.0), report(modem_sleep=40.0)])
    bars = [
        (float(bar.get("y", 0)), float(bar.get("width", 0)))
        for bar in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}rect")
        if bar.get("height") == "20"
    ]
    rows = sorted({y for y, _ in bars})
    lengths = [sum(width for y, width in bars if y == row) for row in rows]
    assert lengths[0] == pytest.approx(2 * lengths[1], rel=0.01)
    assert svg == energy_chart([report(modem_sleep=40.0, core_stop=20.0, probes=20.0), report(modem_sleep=40.0)])


def test_the_picture_refuses_a_consumer_it_would_hide() -> None:
    with pytest.raises(ValueError, match="lamp"):
        energy_chart([report(lamp=1.0)])
