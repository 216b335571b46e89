"""Campaigns in the store: groups, reports, schedules, health, retries, and operators' mistakes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError
from server_cases import KEY, new_store, random_image, release, shared_truth

from server import campaigns, commands, fleet, key_changes, releases, store, withdrawals
from server.campaigns import Action, CampaignError, Plan, conduct, machine
from server.campaigns.forecast import cost
from server.campaigns.machine import Node
from server.config import CampaignsSection
from shared_models.codes import Board, CampaignState, UpdateState
from shared_models.messages import Assignment, NodeStatus, Progress, SendingHours, SiteStatus
from shared_models.network import quantise_head

NOW_S = 1_700_000_000
RULES = CampaignsSection()


def node(
    number: int, site: str, *, board: Board = Board.STM32L072, version: int = 1, healthy: bool = True
) -> NodeStatus:
    return NodeStatus(
        dev_eui=f"{number:016x}",
        board=board,
        model_version=version,
        backbone_id=random_image().backbone_id,
        battery_mv=3000,
        last_seen=datetime.fromtimestamp(NOW_S, UTC),
        healthy=healthy,
    )


def report(connection: sqlite3.Connection, site: str, nodes: list[NodeStatus], time_s: int = NOW_S) -> None:
    status = SiteStatus(site=site, time=datetime.fromtimestamp(time_s, UTC), nodes=nodes, counters={})
    fleet.record_status(connection, site, status)


@pytest.fixture
def connection(tmp_path: Path):
    """Two sites of four nodes on release 1, and release 2."""
    with_store = new_store(tmp_path)
    base = releases.find(with_store, 1)
    image = quantise_head(base.image, shared_truth())
    with_store.execute(
        "INSERT INTO rounds (id, started_s, state, backbone_id, base_version) VALUES (1, 1, 'released', 1, 1)"
    )
    release(with_store, image, base, NOW_S)
    report(with_store, "champion", [node(number, "champion") for number in range(4)])
    report(with_store, "tunis", [node(16 + number, "tunis", board=Board.STM32L432) for number in range(4)])
    yield with_store
    with_store.close()


@pytest.fixture
def sparing(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Release 3, from which Tunis is held back."""
    base = releases.find(connection, 2)
    image = quantise_head(base.image, -shared_truth())
    evidence = {"held_back": {"tunis": "dry-down 24 h: 1.100 of the squared error it has"}}
    release(connection, image, base, NOW_S, evidence=evidence)
    return connection


def begun(connection: sqlite3.Connection, **plan: object) -> int:
    campaign = campaigns.create(connection, "ann", Plan(release=2, **plan), NOW_S)
    campaigns.act(connection, "bob", campaign, Action.APPROVE, NOW_S)
    campaigns.act(connection, "ann", campaign, Action.START, NOW_S)
    return campaign


def state_of(connection: sqlite3.Connection, campaign: int) -> str:
    return connection.execute("SELECT state FROM campaigns WHERE id = ?", (campaign,)).fetchone()["state"]


def opened(connection: sqlite3.Connection, campaign: int) -> list[sqlite3.Row]:
    return connection.execute(
        "SELECT n.* FROM campaign_nodes AS n JOIN campaigns AS c ON c.id = n.campaign"
        " WHERE c.id = ? AND n.group_index <= c.open_group ORDER BY n.group_index, n.dev_eui",
        (campaign,),
    ).fetchall()


def say(
    connection: sqlite3.Connection, campaign: int, row: sqlite3.Row, state: UpdateState, downlinks: int = 5
) -> None:
    progress = Progress(
        campaign=campaign,
        dev_eui=row["dev_eui"],
        state=state,
        downlinks=downlinks,
        time=datetime.fromtimestamp(NOW_S + 60, UTC),
    )
    campaigns.record_progress(connection, row["site"], progress, NOW_S + 100)


def assignments(connection: sqlite3.Connection) -> dict[str, Assignment]:
    rows = connection.execute("SELECT site, message FROM assignments")
    return {row["site"]: Assignment.model_validate_json(row["message"]) for row in rows}


# A whole campaign


def test_nothing_is_sent_before_approval_and_start(connection: sqlite3.Connection) -> None:
    campaign = campaigns.create(connection, "ann", Plan(release=2), NOW_S)
    with pytest.raises(CampaignError, match="not been approved"):
        campaigns.act(connection, "ann", campaign, Action.START, NOW_S)
    campaigns.act(connection, "bob", campaign, Action.APPROVE, NOW_S)
    assert assignments(connection) == {}


def test_a_canary_goes_first_and_each_success_opens_the_next_group(connection: sqlite3.Connection) -> None:
    campaign = begun(connection)
    sizes = []
    while state_of(connection, campaign) == "running":
        rows = opened(connection, campaign)
        sizes.append(len(rows))
        sent = {device for message in assignments(connection).values() for device in message.devices}
        assert sent == {row["dev_eui"] for row in rows}
        for row in rows:
            for state in (UpdateState.SENDING, UpdateState.ACTIVATED, UpdateState.CONFIRMED):
                if state_of(connection, campaign) == "running":
                    say(connection, campaign, row, state)
    assert sizes == [1, 4, 8]
    assert state_of(connection, campaign) == "done"
    actions = [row["action"] for row in connection.execute("SELECT action FROM audit ORDER BY id")]
    assert actions[:3] == ["campaign.create", "campaign.approve", "campaign.start"]
    assert actions.count("campaign.group_opened") == 2
    assert actions.count("node.confirmed") == 8
    assert actions[-1] == "campaign.done"


def test_a_failed_canary_halts_and_stops_the_sending(connection: sqlite3.Connection) -> None:
    campaign = begun(connection)
    canary = opened(connection, campaign)[0]
    say(connection, campaign, canary, UpdateState.ROLLED_BACK)
    assert state_of(connection, campaign) == "halted"
    assert len(opened(connection, campaign)) == 1
    assert {message.action for message in assignments(connection).values()} == {"pause"}
    campaigns.act(connection, "ann", campaign, Action.ABORT, NOW_S)
    assert {message.action for message in assignments(connection).values()} == {"abort"}


def test_pause_stops_opening_groups_until_resumed(connection: sqlite3.Connection) -> None:
    campaign = begun(connection)
    campaigns.act(connection, "ann", campaign, Action.PAUSE, NOW_S)
    say(connection, campaign, opened(connection, campaign)[0], UpdateState.CONFIRMED)
    assert len(opened(connection, campaign)) == 1
    assert {message.action for message in assignments(connection).values()} == {"pause"}
    campaigns.act(connection, "ann", campaign, Action.RESUME, NOW_S)
    assert len(opened(connection, campaign)) == 4
    assert {message.action for message in assignments(connection).values()} == {"run"}


def test_every_new_assignment_has_a_higher_sequence(connection: sqlite3.Connection) -> None:
    campaign = begun(connection, canary=8)
    seen = [max(message.sequence for message in assignments(connection).values())]
    for action in (Action.PAUSE, Action.RESUME, Action.ABORT):
        campaigns.act(connection, "ann", campaign, action, NOW_S)
        seen.append(max(message.sequence for message in assignments(connection).values()))
    assert seen == sorted(set(seen))


def test_late_and_repeated_reports_change_nothing(connection: sqlite3.Connection) -> None:
    campaign = begun(connection, canary=8)
    row = opened(connection, campaign)[0]
    say(connection, campaign, row, UpdateState.CONFIRMED, downlinks=9)
    for state in UpdateState:
        say(connection, campaign, row, state, downlinks=1)
    after = connection.execute("SELECT * FROM campaign_nodes WHERE dev_eui = ?", (row["dev_eui"],)).fetchone()
    assert (after["state"], after["downlinks"]) == ("confirmed", 9)


def test_a_site_cannot_speak_for_anothers_node_nor_for_a_closed_group(connection: sqlite3.Connection) -> None:
    campaign = begun(connection)
    canary = opened(connection, campaign)[0]
    other = "tunis" if canary["site"] == "champion" else "champion"
    forged = Progress(
        campaign=campaign,
        dev_eui=canary["dev_eui"],
        state=UpdateState.CONFIRMED,
        time=datetime.fromtimestamp(NOW_S, UTC),
    )
    with pytest.raises(CampaignError, match="reports for node"):
        campaigns.record_progress(connection, other, forged, NOW_S)
    closed = connection.execute("SELECT * FROM campaign_nodes WHERE group_index > 0 LIMIT 1").fetchone()
    with pytest.raises(CampaignError, match="not open yet"):
        say(connection, campaign, closed, UpdateState.CONFIRMED)
    with pytest.raises(CampaignError, match="not in a campaign"):
        say(connection, campaign + 1, canary, UpdateState.CONFIRMED)


def test_assignments_carry_containers_and_stay_in_the_outbox_until_published(connection: sqlite3.Connection) -> None:
    begun(connection, canary=8)
    waiting = campaigns.unpublished(connection)
    assert [row["site"] for row in waiting] == ["champion", "tunis"]
    message = Assignment.model_validate_json(waiting[0]["message"])
    assert [artefact.kind for artefact in message.artefacts] == ["head", "full"], "smallest first"
    for row in waiting:
        campaigns.mark_published(connection, row)
    assert campaigns.unpublished(connection) == []
    campaigns.republish_active(connection)
    assert len(campaigns.unpublished(connection)) == 2


# Mistakes, refused before anything is sent


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (Plan(release=9), "there is no release 9"),
        (Plan(release=2, sites=["atlantis"]), "unknown site atlantis"),
        (Plan(release=2, boards=["Z80"]), "unknown board Z80"),
        (Plan(release=2, sites=["champion"], boards=["stm32l432"]), "no node matches"),
        (Plan(release=1), "release 1 or a newer one already"),
    ],
)
def test_mistakes_are_refused(connection: sqlite3.Connection, plan: Plan, reason: str) -> None:
    with pytest.raises(CampaignError, match=reason):
        campaigns.create(connection, "ann", plan, NOW_S)
    assert connection.execute("SELECT count(*) FROM campaigns").fetchone()[0] == 0


def test_a_head_for_a_backbone_nobody_runs_is_refused(connection: sqlite3.Connection) -> None:
    connection.executescript("DROP TRIGGER artefacts_are_kept; DELETE FROM artefacts WHERE kind = 'full';")
    connection.execute("UPDATE nodes SET backbone_id = 1")
    with pytest.raises(CampaignError, match="no selected node runs the base"):
        campaigns.create(connection, "ann", Plan(release=2), NOW_S)


def test_a_node_belongs_to_one_active_campaign(connection: sqlite3.Connection) -> None:
    drafted = campaigns.create(connection, "ann", Plan(release=2), NOW_S)
    campaigns.act(connection, "ann", drafted, Action.APPROVE, NOW_S)
    first = begun(connection, sites=["tunis"])
    with pytest.raises(CampaignError, match=f"in campaign {first}"):
        campaigns.create(connection, "ann", Plan(release=2), NOW_S)
    with pytest.raises(CampaignError, match=f"in campaign {first}"):
        campaigns.act(connection, "ann", drafted, Action.START, NOW_S)
    campaigns.act(connection, "ann", first, Action.ABORT, NOW_S)
    assert campaigns.act(connection, "ann", drafted, Action.START, NOW_S) is CampaignState.RUNNING


def test_nodes_that_run_it_already_are_left_out(connection: sqlite3.Connection) -> None:
    report(connection, "champion", [node(0, "champion", version=2), node(1, "champion")], NOW_S + 1)
    campaign = campaigns.create(connection, "ann", Plan(release="latest", sites=["champion"]), NOW_S)
    assert campaigns.overview(connection, campaign)[0]["nodes"] == 1


def test_an_unhealthy_node_is_no_canary(connection: sqlite3.Connection) -> None:
    sick = [node(number, "champion", healthy=False) for number in range(3)]
    report(connection, "champion", [*sick, node(3, "champion")], NOW_S + 1)
    campaign = begun(connection, sites=["champion"])
    assert opened(connection, campaign)[0]["dev_eui"] == f"{3:016x}"


# The inventory


def test_a_site_cannot_take_anothers_node(connection: sqlite3.Connection) -> None:
    report(connection, "mallory", [node(0, "mallory", version=7)], NOW_S + 10)
    row = connection.execute("SELECT site, model_version FROM nodes WHERE dev_eui = ?", (f"{0:016x}",)).fetchone()
    assert tuple(row) == ("champion", 1)
    moved_s = NOW_S + fleet.MOVED_AFTER_S + 10
    report(connection, "mallory", [node(0, "mallory")], moved_s)
    assert connection.execute("SELECT site FROM nodes WHERE dev_eui = ?", (f"{0:016x}",)).fetchone()[0] == "mallory"


def test_a_heartbeat_must_speak_for_its_own_site_and_stay_in_bounds(connection: sqlite3.Connection) -> None:
    time = datetime.fromtimestamp(NOW_S, UTC)
    with pytest.raises(fleet.StatusError):
        fleet.record_status(connection, "tunis", SiteStatus(site="champion", time=time, nodes=[], counters={}))
    for counters in ({"x": -1}, {"x" * 100: 1}, {str(number): 1 for number in range(1000)}, {"x": 2**70}):
        with pytest.raises(fleet.StatusError):
            fleet.record_status(connection, "tunis", SiteStatus(site="tunis", time=time, nodes=[], counters=counters))


def test_an_older_heartbeat_changes_nothing(connection: sqlite3.Connection) -> None:
    report(connection, "champion", [], NOW_S - 10)
    assert connection.execute("SELECT count(*) FROM nodes WHERE site = 'champion'").fetchone()[0] == 4


# Commands


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("campaign.create", "[]"),
        ("campaign.create", "{"),
        ("campaign.create", '{"release": 2, "surprise": 1}'),
        ("campaign.create", '{"release": "newest"}'),
        ("campaign.create", '{"release": 2, "canary": 0}'),
        ("campaign.start", "{}"),
        ("campaign.start", '{"campaign": "1"}'),
        ("campaign.start", '{"campaign": true}'),
        ("campaign.start", '{"campaign": 7}'),
        ("campaign.halt", '{"campaign": 1}'),
        ("campaign.retry", "{}"),
        ("campaign.retry", '{"campaign": 7}'),
        ("campaign.retry", '{"campaign": "1"}'),
        ("campaign.plan", '{"release": 2, "groups": "all"}'),
        ("release.withdraw", '{"release": 2}'),
        ("release.withdraw", '{"release": 2, "reason": " "}'),
        ("release.withdraw", '{"release": 9, "reason": "bad"}'),
        ("drop tables", "{}"),
        ("campaign.create", "[" * 100_000),
    ],
)
def test_malformed_commands_are_refused(connection: sqlite3.Connection, action: str, arguments: str) -> None:
    connection.execute(
        "INSERT INTO commands (created_s, actor, action, arguments) VALUES (1, 'eve', ?, ?)", (action, arguments)
    )
    row = commands.pending(connection)[0]
    with pytest.raises(commands.CommandError):
        commands.carry_out(connection, commands.read(row), NOW_S, RULES)
    assert connection.execute("SELECT count(*) FROM campaigns").fetchone()[0] == 0


def test_commands_answer_with_a_message(connection: sqlite3.Connection) -> None:
    number = commands.submit(connection, "ann", "campaign.create", {"release": "latest"}, NOW_S)
    with store.transaction(connection):
        result = commands.carry_out(connection, commands.read(commands.pending(connection)[0]), NOW_S, RULES)
        commands.finish(connection, number, "done", result, NOW_S)
    row = connection.execute("SELECT * FROM commands WHERE id = ?", (number,)).fetchone()
    assert json.loads(row["result"])["nodes"] == 8
    assert json.loads(row["result"])["campaign"] == 1


# Sites held back


def test_a_site_held_back_from_a_release_is_left_out_by_itself_and_named(sparing: sqlite3.Connection) -> None:
    number = commands.submit(sparing, "ann", "campaign.create", {"release": "latest"}, NOW_S)
    row = sparing.execute("SELECT * FROM commands WHERE id = ?", (number,)).fetchone()
    result = commands.carry_out(sparing, commands.read(row), NOW_S, RULES)
    assert result["held_back"] == ["tunis"]
    assert result["message"] == "campaign 1: release 3 to 4 nodes in 2 groups; held back: tunis"
    nodes = sparing.execute("SELECT DISTINCT site FROM campaign_nodes WHERE campaign = ?", (result["campaign"],))
    assert [node["site"] for node in nodes] == ["champion"]
    assert campaigns.held_back(sparing, result["campaign"]) == ["tunis"]
    assert "held back: tunis" in sparing.execute("SELECT detail FROM audit ORDER BY id DESC").fetchone()["detail"]


def test_asking_for_a_held_back_site_by_name_is_refused_with_the_reason(sparing: sqlite3.Connection) -> None:
    with pytest.raises(CampaignError, match=r"tunis is held back from release 3: dry-down 24 h: 1\.100"):
        campaigns.create(sparing, "ann", Plan(release=3, sites=["champion", "tunis"]), NOW_S)


def test_a_selection_of_nothing_but_held_back_sites_is_refused(sparing: sqlite3.Connection) -> None:
    with pytest.raises(CampaignError, match="every selected node is of a site held back"):
        campaigns.create(sparing, "ann", Plan(release=3, boards=["stm32l432"]), NOW_S)


def test_a_release_that_holds_nobody_back_goes_to_everyone(sparing: sqlite3.Connection) -> None:
    campaign = campaigns.create(sparing, "ann", Plan(release=2), NOW_S)
    assert campaigns.held_back(sparing, campaign) == []
    assert sparing.execute("SELECT count(*) FROM campaign_nodes").fetchone()[0] == 8


# Who is selected


@pytest.mark.parametrize(
    ("filters", "selected"),
    [
        ({"backbones": ["00000001"]}, {7}),
        ({"versions": ["0"]}, {6}),
        ({"versions": ["-0", "5-"]}, {6}),
        ({"versions": ["1-1"], "sites": ["tunis"]}, {5, 7}),
        ({"healthy": False}, {5}),
        ({"healthy": True, "sites": ["tunis"]}, {4, 6, 7}),
        ({"minimum_battery_mv": 2600}, {0, 1, 2, 3, 5, 6, 7}),
        ({"minimum_battery_mv": 2600, "healthy": True, "boards": ["stm32l432"], "versions": ["1-"]}, {7}),
        ({"devices": [f"{0:016x}", f"{18:016x}", f"{99:016x}"]}, {0, 6}),
    ],
)
def test_filters_narrow_the_selection(
    connection: sqlite3.Connection, filters: dict[str, object], selected: set[int]
) -> None:
    odd = {16: {"battery_mv": 2500}, 17: {"healthy": False}, 18: {"model_version": 0}, 19: {"backbone_id": 1}}
    nodes = [node(number, "tunis", board=Board.STM32L432).model_copy(update=change) for number, change in odd.items()]
    report(connection, "tunis", nodes, NOW_S + 1)
    names = [f"{number:016x}" for number in (0, 1, 2, 3, 16, 17, 18, 19)]
    campaign = campaigns.create(connection, "ann", Plan(release=2, **filters), NOW_S)
    found = connection.execute("SELECT dev_eui FROM campaign_nodes WHERE campaign = ?", (campaign,))
    expected = {name for index, name in enumerate(names) if index in selected}
    if filters == {"versions": ["1-1"], "sites": ["tunis"]}:
        expected |= {f"{16:016x}"}
    assert {row["dev_eui"] for row in found} == expected


def test_groups_are_taken_from_the_list(connection: sqlite3.Connection) -> None:
    with pytest.raises(CampaignError, match="4 of 8 nodes are in none of the groups"):
        campaigns.create(connection, "ann", Plan(release=2, groups=["4"]), NOW_S)
    campaign = begun(connection, groups=["1", "50%", "100%"])
    sizes = connection.execute("SELECT nodes FROM campaign_groups WHERE campaign = ? ORDER BY group_index", (campaign,))
    assert [row["nodes"] for row in sizes] == [1, 4, 3]


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        ({"groups": ["1", "100%"], "canary": 2}, "either groups or canary"),
        ({"groups": ["0%"]}, "groups"),
        ({"groups": ["101%"]}, "groups"),
        ({"groups": ["all"]}, "groups"),
        ({"versions": ["one"]}, "versions"),
        ({"automatic": True}, "needs not_before"),
        ({"hours": {"start": 3, "end": 3}}, "no time"),
        ({"not_before": "2026-06-02T00:00:00Z", "not_after": "2026-06-01T00:00:00Z"}, "no time"),
    ],
)
def test_plans_that_cannot_be_meant_are_refused(plan: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Plan.model_validate({"release": 2, **plan})


def test_a_change_of_keys_goes_to_nobody_twice(connection: sqlite3.Connection) -> None:
    change = asyncio.run(key_changes.sign_here(connection, KEY, "release", bytes(range(32))))
    version = key_changes.keep(connection, change, NOW_S, "ann")["version"]
    campaign = campaigns.create(connection, "ann", Plan(release=version, groups=["8"]), NOW_S)
    for action in (Action.APPROVE, Action.START):
        campaigns.act(connection, "ann", campaign, action, NOW_S)
    (artefact,) = assignments(connection)["tunis"].artefacts
    assert artefact.kind == "keys"
    *others, last = opened(connection, campaign)
    for row in others:
        say(connection, campaign, row, UpdateState.CONFIRMED)
    campaigns.act(connection, "ann", campaign, Action.ABORT, NOW_S)
    again = campaigns.create(connection, "ann", Plan(release=version), NOW_S)
    found = connection.execute("SELECT dev_eui FROM campaign_nodes WHERE campaign = ?", (again,)).fetchall()
    assert [row["dev_eui"] for row in found] == [last["dev_eui"]]
    connection.execute("UPDATE campaign_nodes SET state = 'confirmed'")
    with pytest.raises(CampaignError, match=f"has taken the change of keys {version} already"):
        campaigns.create(connection, "ann", Plan(release=version), NOW_S)


# A second operator


def test_whoever_drafted_a_campaign_may_not_approve_it_where_two_are_asked_for(connection: sqlite3.Connection) -> None:
    campaign = campaigns.create(connection, "ann", Plan(release=2), NOW_S)
    for actor in ("ann", "Ann "):
        with pytest.raises(CampaignError, match="drafted by ann; another operator"):
            campaigns.act(connection, actor, campaign, Action.APPROVE, NOW_S, second_operator=True)
    campaigns.act(connection, "bob", campaign, Action.APPROVE, NOW_S, second_operator=True)
    assert campaigns.act(connection, "ann", campaign, Action.START, NOW_S, second_operator=True) == "running"


def test_the_servers_rule_about_a_second_operator_reaches_its_commands(connection: sqlite3.Connection) -> None:
    campaigns.create(connection, "ann", Plan(release=2), NOW_S)
    rules = CampaignsSection(second_operator=True)
    for actor, allowed in (("ann", False), ("bob", True)):
        number = commands.submit(connection, actor, "campaign.approve", {"campaign": 1}, NOW_S)
        row = connection.execute("SELECT * FROM commands WHERE id = ?", (number,)).fetchone()
        if allowed:
            assert (
                commands.carry_out(connection, commands.read(row), NOW_S, rules)["message"] == "campaign 1 is approved"
            )
        else:
            with pytest.raises(commands.CommandError, match="another operator must approve it"):
                commands.carry_out(connection, commands.read(row), NOW_S, rules)


def test_commands_plan_retry_and_withdraw(connection: sqlite3.Connection) -> None:
    def ask(action: str, arguments: dict[str, object]) -> dict[str, object]:
        number = commands.submit(connection, "ann", action, arguments, NOW_S)
        row = connection.execute("SELECT * FROM commands WHERE id = ?", (number,)).fetchone()
        return commands.carry_out(connection, commands.read(row), NOW_S, RULES)

    planned = ask("campaign.plan", {"release": "latest", "groups": ["1", "100%"]})
    assert planned["message"] == "release 2 would go to 8 nodes in 2 groups; nothing has been done"
    assert connection.execute("SELECT count(*) FROM campaigns").fetchone()[0] == 0
    campaign = begun(connection)
    say(connection, campaign, opened(connection, campaign)[0], UpdateState.REFUSED)
    assert ask("campaign.retry", {"campaign": campaign})["nodes"] == 1
    with pytest.raises(commands.CommandError, match=r"campaign 1 .halted. still carries release 2"):
        ask("release.withdraw", {"release": 2, "reason": "bad"})
    ask("campaign.abort", {"campaign": campaign})
    assert ask("release.withdraw", {"release": 2, "reason": "bad"})["version"] == 2
    with pytest.raises(commands.CommandError, match="release 2 is withdrawn: bad"):
        ask("campaign.retry", {"campaign": campaign})


# Time


def moment(time_s: int) -> datetime:
    return datetime.fromtimestamp(time_s, UTC)


def test_an_approved_draft_starts_by_itself_when_its_time_has_come(connection: sqlite3.Connection) -> None:
    plan = Plan(release=2, not_before=moment(NOW_S + 100), automatic=True)
    approved, unapproved = (campaigns.create(connection, "ann", plan, NOW_S) for _ in range(2))
    campaigns.act(connection, "bob", approved, Action.APPROVE, NOW_S)
    campaigns.review(connection, NOW_S + 99)
    assert state_of(connection, approved) == "draft"
    campaigns.review(connection, NOW_S + 100)
    assert [state_of(connection, approved), state_of(connection, unapproved)] == ["running", "draft"]
    started = connection.execute("SELECT * FROM audit ORDER BY id DESC LIMIT 1").fetchone()
    assert (started["actor"], started["action"]) == ("server", "campaign.start")


def test_why_a_draft_did_not_start_by_itself_is_written_down_once(connection: sqlite3.Connection) -> None:
    plan = Plan(release=2, not_before=moment(NOW_S + 100), automatic=True)
    waiting = campaigns.create(connection, "ann", plan, NOW_S)
    campaigns.act(connection, "bob", waiting, Action.APPROVE, NOW_S)
    other = begun(connection)
    for _ in range(3):
        campaigns.review(connection, NOW_S + 200)
    refused = connection.execute("SELECT detail FROM audit WHERE outcome = 'refused'").fetchall()
    assert [f"in campaign {other}" in row["detail"] for row in refused] == [True]
    campaigns.act(connection, "ann", other, Action.ABORT, NOW_S + 201)
    campaigns.review(connection, NOW_S + 202)
    row = connection.execute("SELECT state, reason FROM campaigns WHERE id = ?", (waiting,)).fetchone()
    assert tuple(row) == ("running", "")


def test_the_schedule_travels_with_the_assignment(connection: sqlite3.Connection) -> None:
    hours = SendingHours(start=22, end=5)
    begun(connection, not_before=moment(NOW_S + 5), not_after=moment(NOW_S + 9), hours=hours, canary=8)
    for message in assignments(connection).values():
        assert (message.not_before, message.not_after) == (moment(NOW_S + 5), moment(NOW_S + 9))
        assert message.hours == hours


def test_a_campaign_whose_time_is_over_halts_and_cannot_start(connection: sqlite3.Connection) -> None:
    late = campaigns.create(connection, "ann", Plan(release=2, not_after=moment(NOW_S + 9), sites=["tunis"]), NOW_S)
    campaigns.act(connection, "bob", late, Action.APPROVE, NOW_S)
    campaign = begun(connection, not_after=moment(NOW_S + 9), sites=["champion"])
    campaigns.review(connection, NOW_S + 8)
    assert state_of(connection, campaign) == "running"
    campaigns.review(connection, NOW_S + 9)
    row = connection.execute("SELECT state, reason FROM campaigns WHERE id = ?", (campaign,)).fetchone()
    assert row["state"] == "halted"
    assert "4 of 4 nodes have not been reached" in row["reason"]
    with pytest.raises(CampaignError, match="its time was over"):
        campaigns.act(connection, "ann", late, Action.START, NOW_S + 9)


# Health after the switch


def ran(connection: sqlite3.Connection, **plan: object) -> int:
    """A campaign whose four nodes at Champion run the release, on trial."""
    campaign = begun(connection, sites=["champion"], canary=4, error_threshold=0.3, **plan)
    for row in opened(connection, campaign):
        say(connection, campaign, row, UpdateState.ACTIVATED)
    return campaign


def beat(connection: sqlite3.Connection, time_s: int, *, sick: int = 0, heard_s: int | None = None) -> None:
    """A heartbeat in which the first ``sick`` nodes are unhealthy, all heard just now or at ``heard_s``."""
    heard = moment(time_s if heard_s is None else heard_s)
    nodes = [
        node(number, "champion", version=2, healthy=number >= sick).model_copy(update={"last_seen": heard})
        for number in range(4)
    ]
    report(connection, "champion", nodes, time_s)
    campaigns.watch(connection, "champion", time_s)


def test_nodes_that_fall_ill_after_the_switch_halt_the_campaign(connection: sqlite3.Connection) -> None:
    campaign = ran(connection)
    beat(connection, NOW_S + 1000, sick=2)
    assert state_of(connection, campaign) == "running", "one report may be chance"
    beat(connection, NOW_S + 1060, sick=2, heard_s=NOW_S + 1000)
    assert state_of(connection, campaign) == "running", "the same report again is no second one"
    beat(connection, NOW_S + 2000, sick=2)
    row = connection.execute("SELECT state, reason FROM campaigns WHERE id = ?", (campaign,)).fetchone()
    assert tuple(row) == (
        "halted",
        "0 of 4 nodes failed and 2 are unhealthy or silent since they run it, more than 30%",
    )
    assert {message.action for message in assignments(connection).values()} == {"pause"}
    actions = [row["action"] for row in connection.execute("SELECT action FROM audit ORDER BY id DESC LIMIT 3")]
    assert actions == ["campaign.halted", "node.ailing", "node.ailing"]


def test_a_node_that_is_well_again_no_longer_counts(connection: sqlite3.Connection) -> None:
    campaign = ran(connection)
    for offset, sick in ((1000, 1), (2000, 1), (3000, 0), (4000, 2), (5000, 0), (6000, 2)):
        beat(connection, NOW_S + offset, sick=sick)
    overview = campaigns.overview(connection, campaign)[0]
    assert (overview["state"], overview["ailing"]) == ("running", 0)


def test_silence_after_the_switch_counts_but_not_a_silent_gateway(connection: sqlite3.Connection) -> None:
    campaign = ran(connection, silent_days=2)
    campaigns.watch(connection, "champion", NOW_S + 30 * 86_400)
    assert state_of(connection, campaign) == "running", "the gateway has said nothing"
    beat(connection, NOW_S + 2 * 86_400, heard_s=NOW_S + 100)
    assert state_of(connection, campaign) == "running"
    beat(connection, NOW_S + 2 * 86_400 + 200, heard_s=NOW_S + 100)
    reason = connection.execute("SELECT reason FROM campaigns WHERE id = ?", (campaign,)).fetchone()["reason"]
    assert "4 are unhealthy or silent" in reason


def test_what_was_broken_before_or_is_not_asked_about_does_not_halt(connection: sqlite3.Connection) -> None:
    sick = [node(number, "champion", healthy=number >= 2) for number in range(4)]
    report(connection, "champion", sick, NOW_S + 1)
    campaign = ran(connection)
    for offset in (1000, 2000, 3000):
        beat(connection, NOW_S + offset, sick=2)
    assert state_of(connection, campaign) == "running"
    campaigns.act(connection, "ann", campaign, Action.ABORT, NOW_S)
    beat(connection, NOW_S + 4000)
    connection.execute("UPDATE nodes SET model_version = 1")
    ignoring = ran(connection, halt_on_unhealthy=False)
    for offset in (5000, 6000, 7000):
        beat(connection, NOW_S + offset, sick=4)
    assert state_of(connection, ignoring) == "running"


# Trying again


def test_failed_nodes_are_tried_again_once_their_campaign_has_ended(connection: sqlite3.Connection) -> None:
    campaign = begun(connection, canary=8, error_threshold=0.5)
    rows = opened(connection, campaign)
    with pytest.raises(CampaignError, match="may still succeed"):
        campaigns.retry(connection, "ann", campaign, None, NOW_S)
    ends = [UpdateState.REFUSED, UpdateState.FAILED, UpdateState.ROLLED_BACK, *[UpdateState.CONFIRMED] * 5]
    for row, state in zip(rows, ends, strict=True):
        say(connection, campaign, row, state)
    assert state_of(connection, campaign) == "halted"
    again = campaigns.retry(connection, "ann", campaign, None, NOW_S)
    found = connection.execute("SELECT dev_eui FROM campaign_nodes WHERE campaign = ?", (again,))
    assert {row["dev_eui"] for row in found} == {row["dev_eui"] for row in rows[:2]}, "one went back: never again"
    assert campaigns.overview(connection, again)[0]["retry_of"] == campaign
    campaigns.act(connection, "bob", again, Action.APPROVE, NOW_S)
    with pytest.raises(CampaignError, match=f"in campaign {campaign}"):
        campaigns.act(connection, "ann", again, Action.START, NOW_S)
    campaigns.act(connection, "ann", campaign, Action.ABORT, NOW_S)
    assert campaigns.act(connection, "ann", again, Action.START, NOW_S) is CampaignState.RUNNING


def test_nodes_that_went_back_are_tried_again_with_a_newer_release_only(sparing: sqlite3.Connection) -> None:
    campaign = begun(sparing, sites=["champion"], canary=4)
    for row in opened(sparing, campaign):
        say(sparing, campaign, row, UpdateState.ROLLED_BACK)
    with pytest.raises(CampaignError, match="takes only a newer one"):
        campaigns.retry(sparing, "ann", campaign, None, NOW_S)
    again = campaigns.retry(sparing, "ann", campaign, 3, NOW_S)
    assert campaigns.overview(sparing, again)[0]["version"] == 3


def test_there_is_nothing_to_try_again_where_nothing_failed(connection: sqlite3.Connection) -> None:
    campaign = begun(connection)
    campaigns.act(connection, "ann", campaign, Action.ABORT, NOW_S)
    with pytest.raises(CampaignError, match="no node failed"):
        campaigns.retry(connection, "ann", campaign, None, NOW_S)


# Dry runs


def test_a_dry_run_tells_what_create_then_does_and_changes_nothing(connection: sqlite3.Connection) -> None:
    plan = Plan(release="latest", groups=["1", "100%"])
    before = connection.total_changes
    expected = campaigns.forecast(connection, plan)
    assert connection.total_changes == before
    campaign = campaigns.create(connection, "ann", plan, NOW_S)
    rows = connection.execute("SELECT dev_eui, group_index FROM campaign_nodes WHERE campaign = ?", (campaign,))
    assert {(row["dev_eui"], row["group_index"]) for row in rows} == {
        (entry.dev_eui, entry.group) for entry in expected.nodes
    }
    summary = expected.to_json()
    assert [group["nodes"] for group in summary["groups"]] == [1, 7]
    assert summary["total"]["downlinks"] == sum(entry.cost.downlinks for entry in expected.nodes)
    assert summary["containers"] == {f"head for backbone {random_image().backbone_id:08x}": 8}
    assert summary["data_rates_unknown"] == 8


def test_a_slow_data_rate_costs_more_and_one_frame_needs_no_polls() -> None:
    head, full = bytes(130), bytes(633)
    assert [cost(head, rate).downlinks for rate in (0, 3, 5)] == [4, 3, 1]
    charges = {(size, rate): cost(bytes(size), rate).charge_uah for size in (130, 633) for rate in (0, 3)}
    assert charges == {  # what the emulated node was measured to need, docs/energy.md
        (130, 0): pytest.approx(185, rel=0.1),
        (633, 0): pytest.approx(585, rel=0.1),
        (130, 3): pytest.approx(24, rel=0.15),
        (633, 3): pytest.approx(49, rel=0.15),
    }
    assert cost(full, 5).uplink_airtime_s < cost(full, 0).uplink_airtime_s
    assert cost(bytes(1401), 3) is None, "no node takes so large a block"


def test_a_node_gets_the_smallest_container_it_can_apply(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE nodes SET backbone_id = 1, data_rate = 9 WHERE dev_eui = ?", (f"{0:016x}",))
    expected = {entry.dev_eui: entry for entry in campaigns.forecast(connection, Plan(release=2)).nodes}
    assert expected[f"{0:016x}"].artefact == "full"
    assert expected[f"{1:016x}"].size_bytes < expected[f"{0:016x}"].size_bytes


# Together


@pytest.mark.parametrize("seed", range(6))
def test_the_store_goes_the_way_of_the_state_machine(connection: sqlite3.Connection, seed: int) -> None:
    """Whatever is asked and reported, what is written down is what the machine without a store comes to."""
    chance = random.Random(seed)
    plan = Plan(release=2, groups=["2", "50%", "100%"], error_threshold=0.5, success_threshold=0.5)
    campaign = campaigns.create(connection, "ann", plan, NOW_S)
    for action in (Action.APPROVE, Action.START):
        campaigns.act(connection, "ann", campaign, action, NOW_S)
    nodes = conduct.nodes_of(connection, campaign)
    known = [Node(node["group_index"]) for node in nodes]
    course = conduct.course_of(connection, conduct.find(connection, campaign))
    for step in range(120):
        index = chance.randrange(len(nodes))
        if chance.random() < 0.3:
            action = chance.choices(campaigns.OPERATOR_ACTIONS, weights=(8, 8, 8, 8, 1))[0]
            with contextlib.suppress(CampaignError):
                course = machine.act(course, action)
            with contextlib.suppress(CampaignError):
                campaigns.act(connection, "ann", campaign, action, NOW_S)
        else:
            state = chance.choices(list(UpdateState), weights=(1, 4, 4, 4, 1, 1, 1))[0]
            with contextlib.suppress(CampaignError):
                course = machine.report(course, known[index], state)
                if machine.advances(known[index].state, state):
                    known[index] = replace(known[index], state=state)
            with contextlib.suppress(CampaignError):
                say(connection, campaign, nodes[index], state)
        kept = conduct.course_of(connection, conduct.find(connection, campaign))
        assert kept == course, step
        told = machine.assigned(course)
        sent = {device for message in assignments(connection).values() for device in message.devices}
        assert sent == ({node["dev_eui"] for node in nodes if node["group_index"] <= told[1]} if told else set())
        actions = {message.action for message in assignments(connection).values()}
        assert actions == ({told[0]} if told else set())


def test_no_order_of_actions_puts_a_node_into_two_active_campaigns(connection: sqlite3.Connection) -> None:
    """Two drafts that share nodes, moved by every action in every order, a withdrawal among them."""
    for selected in (["champion"], None):
        campaigns.create(connection, "ann", Plan(release=2, sites=selected), NOW_S)
    steps = [(number, action) for number in (1, 2) for action in campaigns.OPERATOR_ACTIONS]
    saved = bytearray(connection.serialize())
    saved[18:20] = b"\x01\x01"  # not in write-ahead mode: a database in memory has no such log
    seen: set[tuple[object, ...]] = set()
    waiting = [bytes(saved)]
    while waiting:
        snapshot = waiting.pop()
        for step in [*steps, None]:
            world = sqlite3.connect(":memory:", isolation_level=None)
            world.deserialize(snapshot)
            world.row_factory = sqlite3.Row
            try:
                if step is None:
                    withdrawals.withdraw(world, "ann", {"release": 2, "reason": "bad"}, NOW_S)
                else:
                    campaigns.act(world, "ann", *step, NOW_S)
            except (CampaignError, releases.ReleaseError):
                world.close()
                continue
            key = (
                *[(row["state"], row["approved_s"] is None) for row in world.execute("SELECT * FROM campaigns")],
                releases.withdrawn(world, 2),
            )
            if key not in seen:
                seen.add(key)
                waiting.append(world.serialize())
                holders = world.execute(
                    "SELECT max(c) FROM (SELECT count(*) AS c FROM campaign_nodes AS n JOIN campaigns AS c"
                    " ON c.id = n.campaign WHERE c.state IN ('running', 'paused', 'halted') GROUP BY n.dev_eui)"
                ).fetchone()[0]
                assert holders in (None, 1), key
                active = any(state in ("running", "paused", "halted") for state, _ in key[:2])
                assert not (key[2] and active), "nothing active carries a withdrawn release"
            world.close()
    assert len(seen) > 40
