"""The schedule: once per due time, never starving, whatever fails and however long the server was away."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server_cases import random_image

from gateway.config import GatewaySettings, NetworkServer, Privacy
from gateway.status import site_status
from gateway.store import Store
from server import commands, fleet, store
from server.config import FederationSection, PrivacySection, RoundsSection
from server.scheduler import HOUR_S, SILENT_S, Scheduler, participation, plan
from shared_models.messages import Knowledge, SiteStatus

DAY_S = 24 * HOUR_S
START_S = 1_750_000_000 // DAY_S * DAY_S
BACKBONE = random_image().backbone_id
FEDERATION = FederationSection(minimum_sites=2, minimum_contributors=3, minimum_windows=10)


def new_store() -> sqlite3.Connection:
    """A store in memory with the running release, and two sites with something to say."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.executescript(store.schema())
    connection.execute(
        "INSERT INTO releases VALUES (1, 0, 'factory', NULL, NULL, 1, ?, 'a', x'00', 1, '{}', '{}')", (BACKBONE,)
    )
    return connection


def hear(connection: sqlite3.Connection, now_s: int, windows: int, sites: int = 2, contributors: int = 4) -> None:
    for site in range(sites):
        knowledge = Knowledge(backbone_id=BACKBONE, contributors=contributors, windows=windows)
        time = datetime.fromtimestamp(now_s, UTC)
        status = SiteStatus(site=f"s{site}", time=time, nodes=[], counters={}, knowledge=[knowledge])
        fleet.record_status(connection, f"s{site}", status)


def begin(connection: sqlite3.Connection, command: int, now_s: int) -> None:
    commands.begin(connection, command)
    connection.execute(
        "INSERT INTO rounds (started_s, state, backbone_id, base_version) VALUES (?, 'asking', ?, 1)", (now_s, BACKBONE)
    )


def finish(connection: sqlite3.Connection, command: int, now_s: int, windows: int | None) -> None:
    """The round ends well with so many windows per site, or (None) it fails."""
    number = connection.execute("SELECT max(id) FROM rounds").fetchone()[0]
    state = "failed" if windows is None else "refused"
    connection.execute(
        "UPDATE rounds SET state = ?, finished_s = ?, accepted = ? WHERE id = ?",
        (state, now_s, 0 if windows is None else 2, number),
    )
    if windows is None:
        commands.finish(connection, command, "failed", {"message": "no"}, now_s)
        return
    for site in ("s0", "s1"):
        connection.execute(
            "INSERT INTO site_sums VALUES (?, ?, 4, ?, x'', x'', x'', x'', 1, 0)", (number, site, windows)
        )
    commands.finish(connection, command, "done", {"message": "", "sites": ["s0", "s1"]}, now_s)


def scheduler(connection: sqlite3.Connection, **rounds: object) -> Scheduler:
    return Scheduler(connection, RoundsSection.model_validate({"every_hours": 6, **rounds}), FEDERATION)


def test_without_a_period_no_round_begins_by_itself() -> None:
    connection = new_store()
    hear(connection, START_S, 1000)
    silent = scheduler(connection, every_hours=None)
    assert [silent.step(START_S + hour * HOUR_S) for hour in range(100)] == [None] * 100
    assert commands.pending(connection) == []
    assert silent.plan().waits_for == "somebody to ask for one"


def test_rounds_come_every_so_many_hours_on_a_grid_that_delays_do_not_move() -> None:
    connection, begun = new_store(), []
    for minute in range(0, 3 * 24 * 60, 7):
        now_s, windows = START_S + 60 * minute, 1000 + minute
        hear(connection, now_s, windows)
        if command := scheduler(connection).step(now_s):  # a new one each time: all it knows is in the store
            begun.append(now_s)
            begin(connection, command, now_s)
            finish(connection, command, now_s + 20, windows)
    assert len(begun) == 12
    assert [time_s // (6 * HOUR_S) for time_s in begun] == list(range(START_S // (6 * HOUR_S), START_S // 21_600 + 12))


def test_a_week_away_is_caught_up_with_by_one_round() -> None:
    connection = new_store()
    hear(connection, START_S, 1000)
    command = scheduler(connection).step(START_S)
    assert command is not None
    begin(connection, command, START_S)
    finish(connection, command, START_S, 1000)
    back_s = START_S + 7 * DAY_S + 100
    hear(connection, back_s, 5000)
    command = scheduler(connection).step(back_s)
    assert command is not None
    begin(connection, command, back_s)
    finish(connection, command, back_s, 5000)
    hear(connection, back_s, 9000)
    assert [scheduler(connection).step(back_s + step) for step in range(0, 5 * HOUR_S, 600)] == [None] * 30
    assert plan(connection, RoundsSection(every_hours=6)).due_s == START_S + 7 * DAY_S + 6 * HOUR_S


@pytest.mark.parametrize(
    ("sites", "contributors", "windows", "missing"),
    [
        (1, 4, 500, "sites that may release sums: 1, 2 are needed"),
        (2, 2, 500, "sites that may release sums: 0, 2 are needed"),
        (2, 4, 9, "sites that may release sums: 0, 2 are needed"),
        (2, 4, 24, "dry-down windows no round has seen: 48, at least 50"),
    ],
)
def test_a_round_that_is_due_waits_for_sites_and_windows_and_says_so(
    sites: int, contributors: int, windows: int, missing: str
) -> None:
    connection = new_store()
    hear(connection, START_S, windows, sites, contributors)
    waiting = scheduler(connection)
    assert waiting.step(START_S) is None
    assert missing in waiting.plan().waits_for
    hear(connection, START_S + 60, 25)
    assert waiting.step(START_S + 60) is not None
    assert waiting.plan().waits_for == ""


@pytest.mark.parametrize("rule", ["masking", "accept_noise"])
def test_where_farms_do_not_tell_what_they_know_a_round_that_is_due_begins(rule: str) -> None:
    private = FEDERATION.model_copy(update={"privacy": PrivacySection.model_validate({rule: True})})
    due = Scheduler(new_store(), RoundsSection.model_validate({"every_hours": 6}), private)
    assert due.step(START_S) is not None


def test_windows_that_a_decided_round_has_seen_are_not_new_and_a_failed_round_sees_none() -> None:
    connection = new_store()
    hear(connection, START_S, 100)
    assert participation(connection, FEDERATION, START_S).new_windows == 200
    for windows in (None, 90):
        command = commands.submit(connection, "somebody", "improve", {}, START_S)
        begin(connection, command, START_S)
        finish(connection, command, START_S, windows)
        assert participation(connection, FEDERATION, START_S).new_windows == (200 if windows is None else 20)
    assert participation(connection, FEDERATION, START_S + SILENT_S).sites == 0, "nobody has spoken for two days"


def test_failures_in_a_row_wait_twice_as_long_each_time_and_never_beyond_the_grid() -> None:
    connection, begun = new_store(), []
    failing = scheduler(connection, every_hours=24)
    for minute in range(3 * 24 * 60):
        now_s = START_S + 60 * minute
        if minute % 60 == 0:
            hear(connection, now_s, 1000)
        if command := failing.step(now_s):
            begun.append(minute)
            begin(connection, command, now_s)
            finish(connection, command, now_s, None)
            assert failing.step(now_s + 1) is None
            assert f"failed {len(begun)} times in a row" in failing.plan().waits_for
    assert begun == [0, 15 + 1, 46 + 1, 107 + 1, 228 + 1, 469 + 1, 950 + 1, 1440, 2880]


def test_a_round_that_too_few_sites_answered_counts_as_failed() -> None:
    connection = new_store()
    hear(connection, START_S, 1000)
    alone = scheduler(connection)
    command = alone.step(START_S)
    assert command is not None
    commands.finish(
        connection,
        command,
        "done",
        {"message": "sites that answered usably: 1, 2 are needed", "sites": ["s0"]},
        START_S,
    )
    assert alone.step(START_S + 1) is None
    assert alone.plan().failures == 1
    assert alone.plan().due_s == START_S + 1 + 15 * 60


@pytest.mark.parametrize(
    ("from_hour", "until_hour", "allowed"), [(2, 4, {2, 3}), (22, 2, {22, 23, 0, 1}), (5, 24, set(range(5, 24)))]
)
def test_rounds_begin_within_their_hours_only(from_hour: int, until_hour: int, allowed: set[int]) -> None:
    connection, hours = new_store(), set()
    nightly = scheduler(connection, every_hours=1, from_hour=from_hour, until_hour=until_hour, minimum_new_windows=0)
    for step in range(96):
        now_s = START_S + step * HOUR_S // 2
        hear(connection, now_s, 1000)
        if command := nightly.step(now_s):
            hours.add(now_s // HOUR_S % 24)
            begin(connection, command, now_s)
            finish(connection, command, now_s, 1000)
    assert hours == allowed


def test_an_operator_s_round_in_progress_is_waited_for() -> None:
    connection = new_store()
    hear(connection, START_S, 1000)
    theirs = commands.submit(connection, "somebody", "improve", {}, START_S)
    ours = scheduler(connection)
    assert ours.step(START_S) is None
    assert ours.plan().waits_for == "the end of the round in progress"
    commands.finish(connection, theirs, "done", {"message": "", "sites": []}, START_S)
    assert ours.step(START_S + 5) is not None


def test_a_scheduled_round_in_progress_has_not_failed_and_gets_no_company_however_long_it_takes() -> None:
    connection = new_store()
    hear(connection, START_S, 1000)
    ours = scheduler(connection, minimum_new_windows=0)
    command = ours.step(START_S)
    assert command is not None
    begin(connection, command, START_S)
    late_s = START_S + 13 * HOUR_S
    hear(connection, late_s, 1000)
    assert ours.step(late_s) is None
    assert ours.plan().failures == 0
    finish(connection, command, late_s, 1000)
    assert ours.step(late_s + 5) is not None


def test_a_shorter_period_or_a_clock_put_back_does_not_leave_a_due_time_far_away() -> None:
    connection = new_store()
    hear(connection, START_S, 1000)
    scheduler(connection, every_hours=8784, minimum_new_windows=10**6).step(START_S)
    store.set_meta(connection, "rounds_due_s", str(START_S + 400 * DAY_S))
    assert scheduler(connection).step(START_S) is None
    assert plan(connection, RoundsSection(every_hours=6)).due_s == START_S + 6 * HOUR_S


class World:
    """A server that is killed, a fleet that comes and goes, rounds that fail: what the property is about."""

    def __init__(self, rounds: RoundsSection) -> None:
        self.connection, self.rounds = new_store(), rounds
        self.now_s, self.up, self.ready, self.good = START_S, True, True, True
        self.running: int | None = None
        self.begun: list[int] = []
        self.could_since: int | None = None

    def act(self, event: str, seconds: int) -> None:
        if event == "kill":
            self.up = False
        elif event == "start" and not self.up:
            self.up = True
            commands.conclude_round(self.connection, None, self.now_s)
            self.running = None
        elif event in ("ready", "unready"):
            self.ready = event == "ready"
        elif event in ("good", "bad"):
            self.good = event == "good"
        else:
            self.pass_time(seconds)

    def pass_time(self, seconds: int) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(self.now_s + 1800, end_s)
            if self.up:
                self.live()
            else:
                self.could_since = None

    def live(self) -> None:
        if self.running is not None:
            finish(self.connection, self.running, self.now_s, 1000 if self.good else None)
            self.running = None
        hear(self.connection, self.now_s, 1000, sites=2 if self.ready else 1)
        if not self.ready:
            self.connection.execute("UPDATE knowledge SET contributors = 0")
        due = plan(self.connection, self.rounds).due_s
        command = Scheduler(self.connection, self.rounds, FEDERATION).step(self.now_s)
        assert len(commands.pending(self.connection)) == (command is not None)
        if command is None:
            if not self.ready or self.could_since is None:
                self.could_since = self.now_s if self.ready else None
            every_s = round(HOUR_S * (self.rounds.every_hours or 0))
            assert self.could_since is None or self.now_s - self.could_since <= every_s + DAY_S, "starved"
            return
        assert due is None or due <= self.now_s
        assert due is None or not self.begun or due > self.begun[-1], "one round per due time"
        self.begun.append(self.now_s)
        self.could_since = None
        begin(self.connection, command, self.now_s)
        self.running = command


EVENTS = st.tuples(
    st.sampled_from(["kill", "start", "ready", "unready", "good", "bad", "wait", "wait", "wait"]),
    st.integers(600, 3 * DAY_S),
)


@settings(max_examples=40)
@given(
    events=st.lists(EVENTS, min_size=3, max_size=25),
    every_hours=st.sampled_from([1, 5, 24]),
    hours=st.sampled_from([(0, 24), (2, 6), (22, 3)]),
)
def test_whatever_fails_a_due_time_brings_one_round_at_most_and_no_fleet_starves(
    events: list[tuple[str, int]], every_hours: int, hours: tuple[int, int]
) -> None:
    rounds = RoundsSection(every_hours=every_hours, from_hour=hours[0], until_hour=hours[1], minimum_new_windows=0)
    world = World(rounds)
    for event, seconds in events:
        world.act(event, seconds)
    for event in ("start", "ready", "good"):
        world.act(event, 0)
    before = len(world.begun)
    world.act("wait", 3 * DAY_S)
    assert len(world.begun) > before, "a fleet that can take part is asked, whatever happened before"
    outcomes = [json.loads(row["result"]) for row in world.connection.execute("SELECT result FROM commands")]
    assert len(outcomes) == len(world.begun)


def test_a_gateway_s_heartbeat_says_how_much_it_could_bring(tmp_path) -> None:
    site = GatewaySettings(site="champion", store=tmp_path / "g.db", network=NetworkServer(application="app"), nodes=[])

    class Noon:
        simulated = False

        def now_s(self) -> int:
            return START_S

    with Store(site.store) as farm:
        farm.configure(site)
        for node, season, windows in (("a", 1, 30), ("a", 2, 12), ("b", 1, 0), ("c", 1, 7)):
            farm.execute("INSERT INTO snapshots VALUES (?, 5, ?, 1, ?, 1, x'')", (node, season, windows))
        farm.execute("INSERT INTO snapshots VALUES ('a', 6, 1, 1, 3, 2, x'')")
        status = site_status(farm, Noon(), "champion")
        private = site.model_copy(update={"privacy": Privacy(masking_required=True)})
        farm.configure(private)
        silent = site_status(farm, Noon(), "champion")
    assert [(k.backbone_id, k.contributors, k.windows) for k in status.knowledge] == [(6, 1, 3), (5, 2, 49)]
    assert silent.knowledge == []
