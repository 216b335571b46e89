"""The dashboard reads stores without harming them, and says in words when it cannot."""

import contextlib
import datetime as dt
import itertools
import json
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

sys.path.insert(0, str(Path(__file__).parents[1]))

import dashboard_stores as stores

from dashboards import access
from dashboards.access import StoreUnavailableError, ask, command_status, reading
from dashboards.campaign_form import plan_of
from dashboards.config import DashboardSettings
from dashboards.doors import ATTEMPTS, WITHIN_S, Door, Role, TooManyAttemptsError
from dashboards.farm_store import read_farm, read_field
from dashboards.fleet_store import evidence_of, read_audit, read_campaigns, read_fleet, read_releases, read_rounds
from dashboards.views.campaigns import actions_for, schedule
from server.campaigns.machine import FINAL, OPERATOR_ACTIONS, CampaignError, next_state
from server.campaigns.plan import Plan
from shared_models.codes import CampaignState, EventCode
from shared_models.configuration import ConfigurationError
from shared_models.messages import SendingHours


@pytest.fixture(scope="module")
def farm(tmp_path_factory):
    return stores.gateway_store(tmp_path_factory.mktemp("farm") / "champion.db", "champion")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    return stores.server_store(tmp_path_factory.mktemp("server") / "server.db")


def test_a_farm_is_read_as_the_gateway_left_it(farm):
    state = read_farm(farm)
    assert state.clock_s == stores.CLOCK_S
    assert [summary.device.name for summary in state.fields] == ["Creek", "Hill", "North 1", "North 2"]
    for summary in state.fields:
        assert summary.season_start_s == stores.PLANTED_S
        with closing(sqlite3.connect(farm)) as connection:
            doses = connection.execute(
                "SELECT coalesce(sum(dose_e1_mm), 0) FROM events WHERE dev_eui = ? AND code = ?",
                (summary.device.dev_eui, EventCode.WATERED),
            ).fetchone()[0]
        assert summary.water_mm == pytest.approx(doses / 10)
    assert state.counters["refused.frame"] == 5


def test_a_configured_planting_day_comes_first(farm):
    start = read_farm(farm, dt.date(2025, 4, 20)).fields[0].season_start_s
    assert start == dt.datetime(2025, 4, 20, 6, tzinfo=dt.UTC).timestamp()


def test_a_field_holds_its_season_and_an_unknown_one_is_none(farm):
    history = read_field(farm, stores.dev_eui("champion", 0))
    assert len(history.reports) == stores.SEASON_DAY + 1
    assert {event.code for event in history.events} >= {EventCode.WATERED, EventCode.MODEL_CONFIRMED}
    assert read_field(farm, "0" * 16) is None


def test_a_missing_empty_damaged_or_foreign_store_is_told_in_words(tmp_path):
    with pytest.raises(StoreUnavailableError, match="does not exist"):
        read_farm(tmp_path / "none.db")
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreUnavailableError, match="empty or of another version"):
        read_farm(tmp_path / "empty.db")
    (tmp_path / "noise.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreUnavailableError, match="cannot be read"):
        read_fleet(tmp_path / "noise.db")
    assert not (tmp_path / "none.db").exists()


def test_a_store_cannot_be_written_through_a_reader(farm):
    with pytest.raises(StoreUnavailableError), reading(farm) as connection:
        connection.execute("DELETE FROM events")


def test_a_writer_in_the_middle_of_a_transaction_does_not_disturb_readers(tmp_path):
    store = stores.gateway_store(tmp_path / "farm.db", "champion", days=3)
    with closing(sqlite3.connect(store)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM devices")
        assert len(read_farm(store).fields) == 4
        with pytest.raises(StoreUnavailableError, match="Nothing was changed"):
            ask(store, created_s=1, actor="farmer", action="override.resume", arguments={})


def test_a_wish_becomes_one_row_that_the_gateway_understands(tmp_path):
    store = stores.gateway_store(tmp_path / "farm.db", "champion", days=3)
    eui = stores.dev_eui("champion", 1)
    until_s = stores.CLOCK_S + 86_400
    command = ask(
        store, created_s=7, actor="farmer", action="override.stop", arguments={"dev_eui": eui, "until_s": until_s}
    )
    with closing(sqlite3.connect(store)) as connection:
        row = connection.execute("SELECT id, created_s, actor, action, arguments, state FROM commands").fetchone()
    assert row[:4] == (command, 7, "farmer", "override.stop")
    assert json.loads(row[4]) == {"dev_eui": eui, "until_s": until_s}
    assert command_status(store, command).state == "new"
    stopped = {summary.device.dev_eui: summary.stopped_until_s for summary in read_farm(store).fields}
    assert stopped[eui] == until_s
    assert [value for key, value in stopped.items() if key != eui] == [None] * 3
    ask(store, created_s=8, actor="farmer", action="override.resume", arguments={"dev_eui": eui})
    assert read_field(store, eui).summary.stopped_until_s is None


def test_the_fleet_with_its_releases_rounds_campaigns_and_audit(server):
    fleet = read_fleet(server)
    assert (len(fleet.nodes), len(fleet.sites), fleet.superlink) == (8, 2, "up")
    latest, factory = read_releases(server)
    assert (latest.version, latest.origin, latest.artefacts) == (2, "federation", {"full": 633, "head": 112})
    assert factory.evidence.errors == []
    error = latest.evidence.errors[0]
    assert (error.site, error.baseline) == ("champion", 10.0)
    assert error.after < error.before < error.baseline
    assert list(latest.evidence.held_back) == ["tunis"]
    failed = read_rounds(server)[1]
    assert (failed.state, failed.objections) == ("failed", ["tunis: gram holds a value that is not finite"])
    campaign = read_campaigns(server)[0]
    assert [(group.nodes, group.confirmed, group.opened) for group in campaign.groups] == [
        (1, 1, True),
        (3, 2, True),
        (4, 0, False),
    ]
    assert [action for action, _ in actions_for(campaign)] == ["campaign.pause", "campaign.abort"]
    assert read_audit(server)[0].outcome == "refused"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"targets": 3}',
        '{"targets": [3, {"sites": [1]}]}',
        '{"held_back": ["tunis"], "set_aside": 3}',
        '{"targets": [{"target": "uptake", "sites": {"a": {"windows": "x"}, "b": {"windows": 0}, "c": null}}]}',
        "[" * 100_000,
    ],
)
def test_evidence_of_another_shape_is_left_out(text):
    evidence = evidence_of(text)
    assert (evidence.errors, evidence.held_back, evidence.set_aside) == ([], {}, {})


def test_ten_thousand_nodes_and_a_year_of_hourly_reports_cost_few_instructions(tmp_path, monkeypatch):
    fleet_store = stores.server_store(tmp_path / "server.db", more_nodes=10_000)
    farm_store = stores.gateway_store(tmp_path / "farm.db", "tunis", days=365, reports_a_day=24)
    checks = itertools.count()
    monkeypatch.setattr("dashboards.access.time", SimpleNamespace(monotonic=lambda: next(checks) * 1e-3))
    assert len(read_fleet(fleet_store).nodes) == 10_008
    assert len(read_farm(farm_store).fields) == 4
    assert len(read_field(farm_store, stores.dev_eui("tunis", 0)).reports) == 6000
    instructions = next(checks) * access._INSTRUCTIONS_BETWEEN_CHECKS
    assert instructions < 1_000_000  # of SQLite's machine, which does some tens of millions in a second


def write(folder, text):
    file = folder / "dashboard.toml"
    file.write_text(text, encoding="utf-8")
    return file


FARMS = '[[farms]]\nsite = "tunis"\nstore = "t.db"\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("tittle = 'x'\n" + FARMS, "tittle: unknown key"),
        ("title = 'x'", "farms"),
        (FARMS + FARMS, "each site may appear once"),
        ("address = '0.0.0.0'\n" + FARMS, "farmer_password_file"),
        ("address = '0.0.0.0'\nserver_store = 's.db'\nfarmer_password_file = 'f'\n" + FARMS, "operator_password_file"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused_with_the_key(tmp_path, text, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        DashboardSettings.from_toml(write(tmp_path, text))


def secret(folder, name, text):
    file = folder / name
    file.write_text(text + "\n", encoding="utf-8")
    file.chmod(0o600)
    return file


def test_the_door_admits_the_right_password_and_tires_of_wrong_ones(tmp_path):
    key = secret(tmp_path, "operator", "correct horse")
    settings = DashboardSettings.from_toml(write(tmp_path, f"operator_password_file = '{key}'\n{FARMS}"))
    door = Door(settings)
    assert door.stands_open(Role.FARMER)
    assert not door.stands_open(Role.OPERATOR)
    assert door.admits(Role.OPERATOR, "correct horse", now_s=0)
    for attempt in range(ATTEMPTS):
        assert not door.admits(Role.OPERATOR, "grün", now_s=attempt)
    with pytest.raises(TooManyAttemptsError):
        door.admits(Role.OPERATOR, "correct horse", now_s=ATTEMPTS)
    assert door.admits(Role.OPERATOR, "correct horse", now_s=WITHIN_S + 1)


def said(**changes):
    empty = {
        "release": 2, "sites": [], "groups": "1, 10%, 100%", "error": 20, "success": 90, "boards": [], "backbones": [],
        "versions": "", "healthy": False, "battery": 0, "not_before": "", "not_after": " ", "hours": "",
        "automatic": False, "halt_on_unhealthy": True,
    }  # fmt: skip
    return empty | changes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"groups": ["1", "10%", "100%"], "halt_on_unhealthy": True}),
        ({"groups": ""}, {"groups": None, "canary": 1}),
        (
            {"versions": "1, 3-", "healthy": True, "battery": 2600},
            {"versions": ["1", "3-"], "minimum_battery_mv": 2600},
        ),
        ({"hours": "22 - 5"}, {"hours": SendingHours(start=22, end=5)}),
        ({"not_before": "2026-06-01", "automatic": True}, {"not_before": dt.datetime(2026, 6, 1, tzinfo=dt.UTC)}),
        ({"not_after": "2026-06-01 22:30"}, {"not_after": dt.datetime(2026, 6, 1, 22, 30, tzinfo=dt.UTC)}),
        ({"sites": ["tunis"], "boards": ["STM32L432"], "backbones": ["1f2e3d4c"]}, {"sites": ["tunis"]}),
    ],
)
def test_what_an_operator_fills_in_is_a_plan_the_server_takes(changes, expected):
    plan = Plan.model_validate(plan_of(said(**changes)))
    assert {name: getattr(plan, name) for name in expected} == expected
    assert (plan.error_threshold, plan.success_threshold) == (0.2, 0.9)


@pytest.mark.parametrize("changes", [{"hours": "at night"}, {"not_before": "tomorrow"}, {"groups": "some"}])
def test_what_cannot_be_read_is_left_for_the_server_to_refuse(changes):
    with pytest.raises(ValidationError):
        Plan.model_validate(plan_of(said(**changes)))


@pytest.mark.parametrize("approved", [False, True])
@pytest.mark.parametrize("state", list(CampaignState))
def test_a_campaign_offers_what_the_server_allows_and_nothing_else(server, state, approved):
    if not approved and state is not CampaignState.DRAFT:
        return
    campaign = replace(read_campaigns(server)[0], state=state.value, approved=approved)
    allowed = set()
    for action in OPERATOR_ACTIONS:
        with contextlib.suppress(CampaignError):
            next_state(state, action, approved=approved)
            allowed.add(f"campaign.{action.value}")
    assert {action for action, _ in actions_for(campaign)} == allowed
    lost = replace(campaign, groups=[replace(campaign.groups[0], lost=1)])
    offered = {action for action, _ in actions_for(lost)} - allowed
    assert offered == ({"campaign.retry"} if state in (*FINAL, CampaignState.HALTED) else set())


def test_an_operator_sees_who_approved_when_it_may_send_and_when_it_may_end(server):
    campaign = read_campaigns(server)[0]
    assert (campaign.created_by, campaign.approved_by) == ("operator anna", "operator ben")
    assert schedule(campaign.asked) == "Sends from 22 to 5 h UTC."
    assert schedule({"not_after": "2026-06-01T00:00:00Z"}) == "Sends not after 2026-06-01T00:00:00Z."
    assert campaign.expected_end_s == stores.CLOCK_S - stores.DAY_S + 2 * (stores.DAY_S - 7200)
    audit = read_audit(server)[0]
    assert (audit.id, audit.hash) == (6, "5e" * 32)


def test_a_withdrawn_release_says_when_by_whom_and_why(tmp_path):
    path = stores.server_store(tmp_path / "server.db")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO withdrawals VALUES (2, ?, 'operator ben', 'it forgets clay')", (stores.CLOCK_S,)
        )
        artefact = "INSERT INTO artefacts VALUES (2, ?, 1, ?, ?, 90, x'02')"
        connection.execute(artefact, ("delta", "", "e5" * 32))
        connection.execute(artefact, ("personal", stores.dev_eui("tunis", 0), "f6" * 32))
    latest, factory = read_releases(path)
    assert latest.withdrawn.endswith("UTC by operator ben: it forgets clay")
    assert latest.artefacts == {"delta from 1": 90, "full": 633, "head": 112, "for 1 nodes, at most": 90}
    assert (factory.withdrawn, factory.nodes, latest.nodes) == ("", 4, 4)
