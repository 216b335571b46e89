"""Years on one CR2032 by board, data rate and temperature, and the picture of it in ``docs/images/energy.svg``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nodes.energy_chart import energy_chart
from nodes.energy_report import EnergyReport, energy_report, sources
from shared_models.codes import Board

TEMPERATURES_C = (-10.0, 0.0, 25.0)
DATA_RATES = (5, 4, 3, 2, 1, 0)
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "energy.svg"
MUST_YEARS, MUST_DATA_RATE = 5.0, 3


def measure() -> dict[str, Any]:
    """Reports at 25 °C, life at the other temperatures, and where the figures are from."""
    reports: list[EnergyReport] = []
    result: dict[str, Any] = {"must_years_at_sf9": MUST_YEARS}
    for board in Board:
        rows = {}
        for data_rate in DATA_RATES:
            by_temperature = {celsius: energy_report(board, data_rate, celsius) for celsius in TEMPERATURES_C}
            reports.append(by_temperature[25.0])
            rows[f"SF{12 - data_rate}"] = by_temperature[25.0].to_json() | {
                "life_years_by_temperature_c": {f"{c:g}": round(r.life_years, 2) for c, r in by_temperature.items()}
            }
        result[board.name.lower()] = rows | {"sources": sources(board)}
    PICTURE.write_text(energy_chart(reports), encoding="utf-8")
    return result
