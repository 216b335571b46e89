"""Puts this folder on the path: helper modules beside this file serve all kinds of tests; the longest files begin.

Properties are tried on the same examples each time and may take their time: what fails here fails everywhere. To look
for new counterexamples: ``pytest --hypothesis-profile=search``.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", parent=settings.get_profile("same"), derandomize=False, max_examples=2000)
settings.load_profile("same")

LONGEST = (
    "test_season.py",
    "test_same_season.py",
    "test_evaluate_irrigation.py",
    "test_coverage.py",
    "test_farm.py",
    "test_masked_federation.py",
    "test_fleet_api.py",
    "test_campaign_service.py",
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
