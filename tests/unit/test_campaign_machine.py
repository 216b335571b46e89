"""Every course a small campaign can take, and what holds in all of them."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.campaigns import groups, machine
from server.campaigns.groups import GroupError
from server.campaigns.machine import (
    ACTIVE,
    FAILED,
    FINAL,
    OPERATOR_ACTIONS,
    RUNNING_IT,
    SUCCEEDED,
    TRANSITIONS,
    Action,
    CampaignError,
    Course,
    Judgement,
    Node,
    Standing,
    assigned,
)
from shared_models.codes import CampaignState, UpdateState

ALLOWED = {
    ("draft", False, "approve"): "draft",
    ("draft", False, "abort"): "aborted",
    ("draft", True, "start"): "running",
    ("draft", True, "abort"): "aborted",
    ("running", True, "pause"): "paused",
    ("running", True, "abort"): "aborted",
    ("running", True, "halt"): "halted",
    ("running", True, "finish"): "done",
    ("paused", True, "resume"): "running",
    ("paused", True, "abort"): "aborted",
    ("paused", True, "halt"): "halted",
    ("halted", True, "abort"): "aborted",
}
FLEETS = [
    ((1,), 0.9, 0.2),
    ((2,), 0.5, 0.5),
    ((1, 1), 0.9, 0.2),
    ((1, 1), 0.5, 0.99),
    ((1, 2), 0.9, 0.2),
    ((2, 1), 0.5, 0.4),
    ((1, 1, 1), 0.6, 0.7),
    ((2, 2), 0.6, 0.4),
    ((4,), 0.9, 0.3),
]
REPORTS = [state for state in UpdateState if state is not UpdateState.PENDING]


def drafted(sizes: tuple[int, ...], success: float, error: float) -> Course:
    return Course(machine.crowd({Node(group): size for group, size in enumerate(sizes)}), success, error)


def steps(course: Course) -> Iterator[tuple[str, Course]]:
    """Everything that can happen to a campaign: every operator, every node, and time."""
    for action in OPERATOR_ACTIONS:
        try:
            yield action.value, machine.act(course, action)
        except CampaignError:
            continue
    for node, _ in course.crowd:
        for state in UpdateState:
            try:
                yield f"node {node} {state.value}", machine.report(course, node, state)
            except CampaignError:
                assert node.group > course.open_group, "only what was not asked for is refused"
        for ailing in (True, False):
            yield f"node {node} {'ailing' if ailing else 'well'}", machine.observe(course, [(node, ailing)])
    yield "time", machine.expire(course, "its time was over")


def explore(start: Course) -> dict[Course, list[tuple[str, Course]]]:
    """Every course that can be reached, with what follows from each."""
    reached: dict[Course, list[tuple[str, Course]]] = {}
    waiting = deque([start])
    while waiting:
        course = waiting.popleft()
        if course in reached:
            continue
        reached[course] = [(what, after) for what, after in steps(course) if after != course]
        waiting.extend(after for _, after in reached[course])
    return reached


@pytest.fixture(scope="module", params=FLEETS, ids=lambda fleet: f"{fleet[0]} {fleet[1]} {fleet[2]}")
def world(request: pytest.FixtureRequest) -> dict[Course, list[tuple[str, Course]]]:
    return explore(drafted(*request.param))


World = dict[Course, list[tuple[str, Course]]]


def nodes_of(course: Course) -> list[Node]:
    return list(Counter(dict(course.crowd)).elements())


def transitions(world: World) -> Iterator[tuple[Course, str, Course]]:
    for before, following in world.items():
        for what, after in following:
            yield before, what, after


def test_nobody_is_told_anything_before_approval_and_start(world: World) -> None:
    for course in world:
        if course.state is CampaignState.DRAFT:
            assert assigned(course) is None
            assert {node.state for node in nodes_of(course)} == {UpdateState.PENDING}
        elif course.state is not CampaignState.ABORTED:
            assert course.approved
    for before, what, after in transitions(world):
        if assigned(before) is None and assigned(after) is not None:
            assert (what, before.approved, after.state) == ("start", True, CampaignState.RUNNING)
        if not before.approved and after.approved:
            assert what == "approve"


def test_a_group_opens_only_when_the_one_before_has_succeeded(world: World) -> None:
    opened = 0
    for before, what, after in transitions(world):
        if after.open_group > max(before.open_group, 0):
            opened += 1
            assert after.state in (CampaignState.RUNNING, CampaignState.DONE)
            done = [node for node in nodes_of(after) if node.group < after.open_group]
            for group in range(after.open_group):
                members = [node for node in done if node.group == group]
                well = sum(node.state in SUCCEEDED for node in members)
                assert well >= machine.needed(after.success_threshold, len(members)), what
            newly = [node for node in done if node.group >= before.open_group]
            assert sum(node.state in FAILED or node.ailing for node in done) <= after.error_threshold * len(done)
            assert newly
            assert all(node.state is UpdateState.PENDING for node in nodes_of(after) if node.group >= after.open_group)
    groups_of = {course.groups for course in world}
    assert opened > 0 or groups_of == {1}


def test_after_a_pause_a_halt_or_an_abort_nothing_new_is_assigned(world: World) -> None:
    for before, what, after in transitions(world):
        told = {CampaignState.PAUSED: "pause", CampaignState.HALTED: "pause", CampaignState.ABORTED: "abort"}
        if after.state in told and assigned(after) is not None:
            assert assigned(after)[0] == told[after.state]
            assert after.open_group == before.open_group, what
        if after.open_group > before.open_group:
            assert after.state in (CampaignState.RUNNING, CampaignState.DONE)


def test_groups_never_close_and_nodes_never_go_back(world: World) -> None:
    for before, what, after in transitions(world):
        assert after.open_group >= before.open_group
        gone, come = (Counter(dict(course.crowd)) for course in (before, after))
        gone, come = gone - come, come - gone
        assert gone.total() == come.total() <= what.startswith("node "), "one node moves at a time, and none is lost"
        for old, new in zip(gone, come, strict=True):
            assert old.group == new.group
            assert new.state is old.state or machine.advances(old.state, new.state)
            assert not new.ailing or new.state in RUNNING_IT


def test_an_end_is_an_end(world: World) -> None:
    for before, what, after in transitions(world):
        if before.state in FINAL:
            assert after.state is before.state, what
            assert assigned(after) == assigned(before), what


def test_no_state_is_dead_and_every_end_can_be_reached(world: World) -> None:
    sources: dict[Course, set[Course]] = {}
    for before, _, after in transitions(world):
        sources.setdefault(after, set()).add(before)
    for final in FINAL:
        ends = [course for course in world if course.state is final]
        assert ends, f"nothing ends {final}"
    alive = {course for course in world if course.state in FINAL}
    waiting = list(alive)
    while waiting:
        for source in sources.get(waiting.pop(), set()) - alive:
            alive.add(source)
            waiting.append(source)
    assert alive == set(world)


def test_a_campaign_that_waits_waits_for_something(world: World) -> None:
    """Left alone by operators, a running campaign moves on by what its nodes can still say; it never hangs."""
    for course, following in world.items():
        if course.state is CampaignState.RUNNING:
            moved = [after for what, after in following if what.startswith("node ")]
            assert moved, course


def test_the_figures_add_up_and_judgements_are_carried_out(world: World) -> None:
    for course in world:
        seen = machine.standing(course)
        assert 0 <= seen.group_succeeded + seen.group_failed <= seen.group <= seen.opened <= len(nodes_of(course))
        assert seen.failed <= seen.through <= seen.opened
        assert seen.opened == sum(node.group <= course.open_group for node in nodes_of(course))
        if course.state is CampaignState.RUNNING:
            judgement, _ = machine.judge(seen, course.success_threshold, course.error_threshold)
            assert judgement is Judgement.WAIT, "whatever else follows has been done"
        if course.state is CampaignState.HALTED:
            assert course.reason
        if course.state is CampaignState.DONE:
            assert seen.last_group


def test_the_fleets_reach_every_state_by_every_transition() -> None:
    seen = set()
    for before, _, after in transitions(explore(drafted((1, 1), 0.9, 0.2))):
        seen |= {(before.state, after.state)} if before.state is not after.state else set()
    wanted = {(state, following) for (state, _), following in TRANSITIONS.items() if state is not following}
    assert wanted <= seen
    assert {following for _, following in seen} | {CampaignState.DRAFT} == set(CampaignState)


def test_time_halts_what_it_finds_unfinished_and_lets_trials_end() -> None:
    course = machine.act(machine.act(drafted((2,), 0.9, 0.2), Action.APPROVE), Action.START)
    one = machine.report(course, Node(0), UpdateState.ACTIVATED)
    halted = machine.expire(one, "its time was over")
    assert (halted.state, halted.reason) == (
        CampaignState.HALTED,
        "its time was over; 1 of 2 nodes have not been reached",
    )
    both = machine.report(one, Node(0), UpdateState.ACTIVATED)
    assert machine.expire(both, "its time was over") == both


# One step at a time


@pytest.mark.parametrize(
    ("state", "approved", "action"),
    [
        (state, approved, action)
        for state, approved, action in itertools.product(CampaignState, (False, True), Action)
        if approved or state is CampaignState.DRAFT  # whatever else a campaign is, it has been approved or aborted
    ],
)
def test_every_action_in_every_state_does_what_the_table_says(
    state: CampaignState, action: Action, *, approved: bool
) -> None:
    expected = ALLOWED.get((state.value, approved, action.value))
    if expected is None:
        with pytest.raises(CampaignError):
            machine.next_state(state, action, approved=approved)
    else:
        assert machine.next_state(state, action, approved=approved) == expected


def test_the_operators_guide_draws_this_very_state_machine() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "operator.md").read_text(encoding="utf-8")
    assert f"```mermaid\n{machine.diagram()}```" in guide


@pytest.mark.parametrize(("before", "after"), list(itertools.product(UpdateState, UpdateState)))
def test_reports_only_ever_advance_a_node(before: UpdateState, after: UpdateState) -> None:
    order = {"pending": 0, "sending": 1, "activated": 2}
    assert machine.advances(before, after) == (order.get(after, 3) > order.get(before, 3))


def standing(**values: object) -> Standing:
    defaults = {"opened": 4, "failed": 0, "ailing": 0, "group": 3, "group_succeeded": 0, "group_failed": 0}
    return Standing(**{**defaults, "last_group": False, "through": 0, **values})


@pytest.mark.parametrize(
    ("given_standing", "expected"),
    [
        (standing(), Judgement.WAIT),
        (standing(group_succeeded=3, through=4), Judgement.OPEN_NEXT),
        (standing(group_succeeded=2, through=3), Judgement.WAIT),
        (standing(group_succeeded=3, through=4, last_group=True), Judgement.FINISH),
        (standing(group_succeeded=3, through=3, last_group=True), Judgement.WAIT),
        (standing(failed=1, group_failed=1, through=1), Judgement.HALT),
        (standing(ailing=1), Judgement.HALT),
        (standing(opened=10, failed=1, ailing=1, group=10, group_failed=1), Judgement.WAIT),
        (standing(opened=10, failed=1, ailing=2, group=10, group_failed=1), Judgement.HALT),
        (standing(opened=10, failed=2, group=10, group_failed=2, group_succeeded=8, through=10), Judgement.HALT),
        (standing(opened=10, failed=1, group=10, group_failed=1, group_succeeded=9, through=10), Judgement.OPEN_NEXT),
        (standing(opened=1, failed=1, group=1, group_failed=1, through=1), Judgement.HALT),
    ],
)
def test_the_judgement_follows_from_the_figures(given_standing: Standing, expected: Judgement) -> None:
    judgement, reason = machine.judge(given_standing, 0.9, 0.2)
    assert judgement is expected
    assert bool(reason) == (expected is Judgement.HALT)


def test_an_ailing_node_that_confirmed_does_not_open_the_next_group() -> None:
    course = machine.act(machine.act(drafted((2, 1), 1.0, 0.5), Action.APPROVE), Action.START)
    well, ailing = Node(0, UpdateState.CONFIRMED), Node(0, UpdateState.CONFIRMED, ailing=True)
    course = machine.report(course, Node(0), UpdateState.CONFIRMED)
    course = machine.observe(course, [(well, True)])
    course = machine.report(course, Node(0), UpdateState.CONFIRMED)
    assert (course.state, course.open_group) == (CampaignState.RUNNING, 0)
    assert machine.observe(course, [(ailing, False)]).open_group == 1
    assert set(ACTIVE).isdisjoint(FINAL)
    assert machine.observe(replace(course, state=CampaignState.PAUSED), [(ailing, False)]).open_group == 0


# Groups


@given(st.integers(1, 5000), st.integers(1, 200), st.floats(1, 100))
def test_groups_hold_every_node_once_and_never_shrink_before_the_last(nodes: int, canary: int, growth: float) -> None:
    sizes = groups.growing(nodes, canary, growth)
    assert sum(sizes) == nodes
    assert min(sizes) >= 1
    assert sizes[0] == min(nodes, canary)
    assert sizes[:-1] == sorted(sizes[:-1])


@given(
    st.integers(1, 5000),
    st.lists(st.one_of(st.integers(1, 50).map(str), st.integers(1, 99).map("{}%".format)), max_size=6),
)
def test_listed_groups_hold_every_node_once(nodes: int, listed: list[str]) -> None:
    sizes = groups.listed(nodes, [*listed, "100%"])
    assert sum(sizes) == nodes
    assert min(sizes) >= 1


@pytest.mark.parametrize(
    ("nodes", "listed", "sizes"),
    [
        (100, ["1", "10%", "100%"], [1, 10, 89]),
        (1, ["1", "10%", "100%"], [1]),
        (8, ["50%", "50%", "2"], [4, 2, 2]),
        (3, ["0.5%", "100%"], [1, 2]),
        (5, ["5"], [5]),
    ],
)
def test_shares_are_of_the_nodes_left_and_rounded_up(nodes: int, listed: list[str], sizes: list[int]) -> None:
    assert groups.listed(nodes, listed) == sizes


def test_groups_that_leave_nodes_out_are_refused() -> None:
    with pytest.raises(GroupError, match="3 of 8 nodes are in none"):
        groups.listed(8, ["1", "4"])
