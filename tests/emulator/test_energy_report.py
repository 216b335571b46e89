"""The budget that the project promises: years on one coin cell, with a reason for every microampere-hour."""

from __future__ import annotations

import pytest

from nodes.energy_chart import GROUPS
from nodes.energy_report import EnergyReport, energy_report, sources
from shared_models.codes import Board

PROMISED_YEARS = 5.0


@pytest.fixture(scope="module", params=list(Board), ids=lambda board: board.name.lower())
def report(request: pytest.FixtureRequest) -> EnergyReport:
    return energy_report(request.param, 3, 25.0)


def test_one_coin_cell_lasts_as_long_as_promised_at_sf9(report: EnergyReport) -> None:
    assert report.life_years >= PROMISED_YEARS
    assert sum(report.consumers_uah_per_day.values()) == pytest.approx(report.total_uah_per_day)
    years = report.capacity_uah / report.total_uah_per_day / 365.25
    assert years == pytest.approx(report.life_years)


def test_every_consumer_has_a_source_and_a_colour(report: EnergyReport) -> None:
    told = set(sources(Board[report.board.upper()])) | {"updates"}
    assert set(report.consumers_uah_per_day) <= told
    assert set(report.consumers_uah_per_day) <= {name for _, _, names in GROUPS for name in names}


def test_a_week_holds_statistics_and_updates_cost_what_their_frames_cost(report: EnergyReport) -> None:
    assert report.frames_per_day > 1.0
    assert report.full_update_uah > report.head_update_uah > 1.0
    assert report.update_downlinks["head"] == 1, "whole, in one frame"
    assert report.full_update_days < 30


def test_the_cold_shortens_life_and_changes_nothing_else(report: EnergyReport) -> None:
    cold = energy_report(Board[report.board.upper()], 3, -10.0)
    assert cold.life_years < report.life_years
    assert cold.consumers_uah_per_day == report.consumers_uah_per_day


def test_the_table_tells_every_consumer(report: EnergyReport) -> None:
    table = report.to_table()
    assert list(table.columns[0].cells) == [*report.consumers_uah_per_day, "total"]
    assert report.to_json()["life_years"] == pytest.approx(report.life_years, rel=1e-3)
