"""Years on one CR2032 by board, data rate and temperature; ``docs/energy.md`` gets its tables and picture from here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nodes.energy_chart import energy_chart
from nodes.energy_report import EnergyReport, energy_report, sources
from noria.pages import with_table
from shared_models.codes import Board

TEMPERATURES_C = (-10.0, 0.0, 25.0)
DATA_RATES = (5, 4, 3, 2, 1, 0)
DOCS = Path(__file__).parent.parent / "docs"
PAGE, PICTURE = DOCS / "energy.md", DOCS / "images" / "energy.svg"
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
    page = PAGE.read_text(encoding="utf-8")
    tables = {"life": life_table(result), "day": day_table(reports), "updates": updates_table(reports)}
    for name, table in tables.items():
        page = with_table(page, name, table)
    PAGE.write_text(page, encoding="utf-8")
    return result


def life_table(result: dict[str, Any]) -> str:
    """Years by board, temperature and spreading factor."""
    factors = [f"SF{12 - data_rate}" for data_rate in DATA_RATES]
    lines = [f"| | {' | '.join(factors)} |", "|---" * (len(factors) + 1) + "|"]
    for board in Board:
        for celsius in reversed(TEMPERATURES_C):
            rows = [result[board.name.lower()][factor]["life_years_by_temperature_c"] for factor in factors]
            years = " | ".join(f"{row[f'{celsius:g}']:.2f}" for row in rows)
            lines.append(f"| {board.name}, {celsius:g} °C | {years} |")
    return "\n".join(lines)


def day_table(reports: list[EnergyReport]) -> str:
    """One day at the promised data rate, by consumer."""
    small, large = (report for report in reports if report.data_rate == MUST_DATA_RATE)
    lines = [f"| consumer | {small.board.upper()}, µAh/day | {large.board.upper()}, µAh/day |", "|---|---|---|"]
    for name, value in small.consumers_uah_per_day.items():
        lines.append(f"| {name} | {value:.2f} | {large.consumers_uah_per_day[name]:.2f} |")
    lines.append(f"| **total** | **{small.total_uah_per_day:.1f}** | **{large.total_uah_per_day:.1f}** |")
    return "\n".join(lines)


def updates_table(reports: list[EnergyReport]) -> str:
    """One update of each kind, near and far: downlinks, charge, and how much life it costs."""
    lines = ["| update | downlinks | STM32L072, µAh | days of life | STM32L432, µAh | days of life |", "|---" * 6 + "|"]
    for data_rate in (MUST_DATA_RATE, DATA_RATES[-1]):
        boards = [report for report in reports if report.data_rate == data_rate]
        for kind in ("head", "delta", "full"):
            cells = [f"{kind}, SF{12 - data_rate}", str(boards[0].update_downlinks[kind])]
            for report in boards:
                spent_uah = getattr(report, f"{kind}_update_uah")
                cells += [f"{spent_uah:.0f}", f"{spent_uah / report.total_uah_per_day:.2f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
