"""A whole campaign in small: real server, gateways and nodes' update code; lossy air, resets, power cuts, restarts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.campaign import BAD, RELEASED, Campaign, Case, bad_release, efficiency, figures, memory_folder, models
from server.campaigns import Plan

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as made:
        yield made


def test_every_reachable_node_is_updated_whatever_breaks_meanwhile(folder: Path) -> None:
    case = Case(60, 3, Plan(release=RELEASED, canary=6, growth=10), unreachable=0.03)
    campaign = Campaign(case, models(), folder)
    result = figures(campaign, campaign.run())
    assert result["updated_share_of_reachable"] == 1.0
    assert result["looks_without_valid_model"] == 0
    assert result["reachable"] < result["nodes"], "the rest is silent, and holds up nobody"
    assert result["power_cuts_in_flash_operations"] > 5
    assert result["gateway_restarts"] > 10
    assert result["downlinks_over_ideal"] < 1.25
    assert result["longest_queue_of_a_site"] <= 200


@pytest.mark.parametrize(("kind", "data_rate"), [("head", 3), ("delta", 3), ("full", 0)])
def test_hardly_a_downlink_is_sent_in_vain(kind: str, data_rate: int, folder: Path) -> None:
    result = efficiency(kind, data_rate, 30, folder)
    assert result["over_ideal"] < 1.25
    assert result["useless_receptions"] <= 0.02 * 30 * result["downlinks_per_node"]


def test_a_release_that_harms_stops_at_the_canaries_and_they_go_back(folder: Path) -> None:
    result = bad_release(dataclasses.replace(BAD, nodes=40, sites=2), folder)
    assert result["state"] == "halted"
    assert result["opened"] == 10
    assert result["canaries_back_on_the_old_model"] == 10
    assert result["others_on_the_bad_model"] == 0
    assert result["longest_node_days_under_the_bad_model"] <= 3, "one dry-down a day, and three decide"
