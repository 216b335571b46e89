"""Campaigns in the store: groups, reports, schedules, health, retries, and operators' mistakes."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from server_cases import KEY, new_store, random_image, shared_truth

from server import campaigns, commands, fleet, releases, store
from server.campaigns import Action, CampaignError, Plan
from server.config import CampaignsSection
from shared_models.codes import Board, CampaignState, UpdateState
from shared_models.messages import Assignment, NodeStatus, Progress, SiteStatus
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
    releases.register_improvement(with_store, KEY, image, base, 1, NOW_S, provenance={}, evidence={})
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
    releases.register_improvement(connection, KEY, image, base, 1, NOW_S, provenance={}, evidence=evidence)
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
