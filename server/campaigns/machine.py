"""What a campaign may do: a state machine without a store, moved by operators, by nodes' reports and by time.

A group opens when the one before it has succeeded; too many failures halt the campaign. Everything here is a function
from a :class:`Course` to the next one, so that every course of small fleets can be tried
(``tests/unit/test_campaign_machine.py``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from shared_models.codes import CampaignState, UpdateState


class CampaignError(ValueError):
    """A request that must not be carried out; the text says why."""


class Action(StrEnum):
    """What moves a campaign from state to state."""

    APPROVE = "approve"
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    HALT = "halt"
    """By the server: too many failures, or out of time."""
    FINISH = "finish"
    """By the server: every node is through."""


OPERATOR_ACTIONS = (Action.APPROVE, Action.START, Action.PAUSE, Action.RESUME, Action.ABORT)

TRANSITIONS: dict[tuple[CampaignState, Action], CampaignState] = {
    (CampaignState.DRAFT, Action.APPROVE): CampaignState.DRAFT,
    (CampaignState.DRAFT, Action.START): CampaignState.RUNNING,
    (CampaignState.DRAFT, Action.ABORT): CampaignState.ABORTED,
    (CampaignState.RUNNING, Action.PAUSE): CampaignState.PAUSED,
    (CampaignState.RUNNING, Action.ABORT): CampaignState.ABORTED,
    (CampaignState.RUNNING, Action.HALT): CampaignState.HALTED,
    (CampaignState.RUNNING, Action.FINISH): CampaignState.DONE,
    (CampaignState.PAUSED, Action.RESUME): CampaignState.RUNNING,
    (CampaignState.PAUSED, Action.ABORT): CampaignState.ABORTED,
    (CampaignState.PAUSED, Action.HALT): CampaignState.HALTED,
    (CampaignState.HALTED, Action.ABORT): CampaignState.ABORTED,
}
"""All that may happen; a draft starts only once approved, see :func:`next_state`."""

ACTIVE = (CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.HALTED)
"""States in which a campaign holds its nodes: no other may have them."""
FINAL = (CampaignState.ABORTED, CampaignState.DONE)
MOVING = (CampaignState.RUNNING, CampaignState.PAUSED)
"""States in which what nodes report decides what follows."""

SUCCEEDED = (UpdateState.CONFIRMED,)
FAILED = (UpdateState.ROLLED_BACK, UpdateState.REFUSED, UpdateState.FAILED)
UNREACHED = (UpdateState.PENDING, UpdateState.SENDING)
RUNNING_IT = (UpdateState.ACTIVATED, UpdateState.CONFIRMED)
"""States in which a node runs the release."""

_RANK = {UpdateState.PENDING: 0, UpdateState.SENDING: 1, UpdateState.ACTIVATED: 2}
_THROUGH = 3

GatewayAction = Literal["run", "pause", "abort"]

_GATEWAY_ACTION: dict[CampaignState, GatewayAction] = {
    CampaignState.RUNNING: "run",
    CampaignState.PAUSED: "pause",
    CampaignState.HALTED: "pause",
    CampaignState.ABORTED: "abort",
    CampaignState.DONE: "run",
}
"""What gateways are told. After a halt the operator decides whether to abort; until then nothing more is sent."""


def next_state(state: CampaignState, action: Action, *, approved: bool) -> CampaignState:
    """Where ``action`` leads from ``state``.

    Raises:
        CampaignError: the action is not possible now.
    """
    following = TRANSITIONS.get((state, action))
    if following is None:
        raise CampaignError(f"a campaign that is {state.value} cannot be asked to {action.value}")
    if action is Action.START and not approved:
        raise CampaignError("the campaign has not been approved")
    if action is Action.APPROVE and approved:
        raise CampaignError("the campaign has been approved already")
    return following


def advances(before: UpdateState, after: UpdateState) -> bool:
    """Whether a report of ``after`` is news; late and repeated reports are not, and an end is an end."""
    return _RANK.get(after, _THROUGH) > _RANK.get(before, _THROUGH)


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """All that a campaign's course asks of a node; nodes of which the same is known are interchangeable."""

    group: int
    state: UpdateState = UpdateState.PENDING
    ailing: bool = False
    """Unhealthy or silent since it runs the release."""


Crowd = tuple[tuple[Node, int], ...]
"""How many nodes of each kind there are, in order: ten thousand nodes are a few dozen entries."""


def crowd(nodes: Mapping[Node, int]) -> Crowd:
    """Nodes counted by kind; kinds of which there are none left out."""
    return tuple(sorted((node, count) for node, count in nodes.items() if count))


@dataclass(frozen=True)
class Course:
    """All that decides what may happen to a campaign next."""

    crowd: Crowd
    success_threshold: float
    """Share of a group that must confirm before the next opens."""
    error_threshold: float
    """Share of the opened nodes that may fail or ail before the campaign halts."""
    state: CampaignState = CampaignState.DRAFT
    approved: bool = False
    open_group: int = -1
    """Groups 0 … ``open_group`` are open."""
    reason: str = ""
    """Why it halted."""

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return max(node.group for node, _ in self.crowd) + 1


def assigned(course: Course) -> tuple[GatewayAction, int] | None:
    """What gateways are told, and up to which group they are told of nodes; None while nobody is told anything."""
    return None if course.open_group < 0 else (_GATEWAY_ACTION[course.state], course.open_group)


def act(course: Course, action: Action) -> Course:
    """An operator's action.

    Raises:
        CampaignError: the action is not possible now.
    """
    state = next_state(course.state, action, approved=course.approved)
    after = replace(course, state=state, approved=course.approved or action is Action.APPROVE)
    if action is Action.START:
        after = replace(after, open_group=0, reason="")
    return settle(after)


def report(course: Course, node: Node, state: UpdateState) -> Course:
    """The step of a node; the same course where it is no news.

    Args:
        course: Of the campaign.
        node: What is known of the one that reports.
        state: Which it reports.

    Raises:
        CampaignError: the node's group is not open.
    """
    if node.group > course.open_group:
        raise CampaignError("the node's group is not open yet")
    if not advances(node.state, state):
        return course
    return settle(_moved(course, [(node, replace(node, state=state, ailing=node.ailing and state in RUNNING_IT))]))


def observe(course: Course, heard: Iterable[tuple[Node, bool]]) -> Course:
    """What has been heard of nodes' health, whether each ails; it counts for those that run the release."""
    moves = [(node, replace(node, ailing=ailing)) for node, ailing in heard if node.state in RUNNING_IT]
    return settle(_moved(course, moves))


def expire(course: Course, reason: str) -> Course:
    """The campaign's time is over: it halts, unless every node has been reached and need only confirm."""
    left = _count(course.crowd, UNREACHED)
    if course.state not in MOVING or not left:
        return course
    return _halt(course, f"{reason}; {left} of {_count(course.crowd)} nodes have not been reached")


def settle(course: Course) -> Course:
    """Open groups, halt or finish, as the nodes' standing demands."""
    while course.state in MOVING:
        judgement, reason = judge(standing(course), course.success_threshold, course.error_threshold)
        if judgement is Judgement.HALT:
            return _halt(course, reason)
        # A paused campaign goes on, or ends, when it is resumed.
        if judgement is Judgement.WAIT or course.state is CampaignState.PAUSED:
            return course
        if judgement is Judgement.FINISH:
            return replace(course, state=next_state(course.state, Action.FINISH, approved=True))
        course = replace(course, open_group=course.open_group + 1)
    return course


def _halt(course: Course, reason: str) -> Course:
    return replace(course, state=next_state(course.state, Action.HALT, approved=True), reason=reason)


def _moved(course: Course, moves: Iterable[tuple[Node, Node]]) -> Course:
    """Each node becomes what stands beside it."""
    counts = Counter(dict(course.crowd))
    for before, after in moves:
        counts[before] -= 1
        counts[after] += 1
    return replace(course, crowd=crowd(counts))


@dataclass(frozen=True)
class Standing:
    """How the nodes of a campaign stand, for :func:`judge`."""

    opened: int
    """Nodes in open groups."""
    failed: int
    """Of those, how many failed."""
    ailing: int
    """Of those, how many run the release and are unhealthy or silent since."""
    group: int
    """Nodes in the newest open group."""
    group_succeeded: int
    """Confirmed, and well."""
    group_failed: int
    last_group: bool
    through: int
    """Nodes in open groups that succeeded or failed."""


def standing(course: Course) -> Standing:
    """Count the nodes of the open groups."""
    opened = tuple((node, count) for node, count in course.crowd if node.group <= course.open_group)
    newest = tuple((node, count) for node, count in opened if node.group == course.open_group)
    return Standing(
        opened=_count(opened),
        failed=_count(opened, FAILED),
        ailing=sum(count for node, count in opened if node.ailing),
        group=_count(newest),
        group_succeeded=sum(count for node, count in newest if node.state in SUCCEEDED and not node.ailing),
        group_failed=_count(newest, FAILED),
        last_group=course.open_group == course.groups - 1,
        through=_count(opened, (*SUCCEEDED, *FAILED)),
    )


def _count(nodes: Crowd, states: Container[UpdateState] = tuple(UpdateState)) -> int:
    return sum(count for node, count in nodes if node.state in states)


class Judgement(StrEnum):
    """What the server does next by itself."""

    WAIT = "wait"
    OPEN_NEXT = "open the next group"
    HALT = "halt"
    FINISH = "finish"


def needed(success_threshold: float, nodes: int) -> int:
    """How many of a group's nodes must confirm."""
    return math.ceil(success_threshold * nodes - 1e-9)


def judge(seen: Standing, success_threshold: float, error_threshold: float) -> tuple[Judgement, str]:
    """What follows from how the nodes stand, and why where it is a halt."""
    if seen.failed + seen.ailing > error_threshold * seen.opened:
        ailing = f" and {seen.ailing} are unhealthy or silent since they run it" if seen.ailing else ""
        return (
            Judgement.HALT,
            f"{seen.failed} of {seen.opened} nodes failed{ailing}, more than {error_threshold:.0%}",
        )
    wanted = needed(success_threshold, seen.group)
    if seen.group - seen.group_failed < wanted:
        return Judgement.HALT, f"the group cannot reach {wanted} of {seen.group} confirmed nodes any more"
    if seen.last_group:
        return (Judgement.FINISH if seen.through == seen.opened else Judgement.WAIT), ""
    return (Judgement.OPEN_NEXT if seen.group_succeeded >= wanted else Judgement.WAIT), ""


def diagram() -> str:
    """:data:`TRANSITIONS` as a Mermaid state diagram, for docs/operator.md."""
    lines = ["stateDiagram-v2", f"    [*] --> {CampaignState.DRAFT.value}: create"]
    lines += [
        f"    {state.value} --> {following.value}: {action.value}" for (state, action), following in TRANSITIONS.items()
    ]
    lines += [f"    {state.value} --> [*]" for state in FINAL]
    return "\n".join(lines) + "\n"
