"""Puts this folder on the path: helper modules beside this file serve all kinds of tests; the longest files begin."""

from __future__ import annotations

import pytest

LONGEST = (
    "test_season.py",
    "test_same_season.py",
    "test_evaluate_irrigation.py",
    "test_coverage.py",
    "test_farm.py",
    "test_masked_federation.py",
    "test_fleet_api.py",
    "test_fuzz.py",
    "test_training.py",
    "test_round_kills.py",
    "test_demo_command.py",
    "test_energy_report.py",
)
"""Files of more than half a minute: begun last, one of two workers would wait for them alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    turn = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: turn.get(item.path.name, len(LONGEST)))
