"""The firmware's TS004 receiver against the reference's sender and receiver, and against nonsense."""

from __future__ import annotations

import ctypes
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import improved, key_pair, model
from update_cases import LIBRARY, Flash, Node, provision

from shared_models.codes import EventCode, Refusal
from shared_models.container import build_full, build_head, sign
from shared_models.fragmentation import (
    FRAGMENT_COUNT_LIMIT,
    POLL_LIMIT,
    Fragmenter,
    PackageVersionAnswer,
    Reassembler,
    SessionDeleteAnswer,
    SessionSetupAnswer,
    SessionStatusAnswer,
    SetupRefusal,
    decode_answers,
    package_version_request,
    parity_row,
    session_delete_request,
    session_status_request,
)

SECRET, PUBLIC = key_pair(1)
LIBRARY.noria_fragment_parity.restype = ctypes.c_uint64
FULL = sign(build_full(improved(), 2), SECRET)


def new_node(part: str = "L0") -> Node:
    flash = Flash(part)
    provision(flash, PUBLIC, model().pack())
    return Node()


def answers(payload: bytes, version: int = 1) -> tuple[object, ...]:
    return decode_answers(payload).read(version)


@pytest.mark.parametrize("version", [1, 2])
def test_every_parity_row_is_the_references(version: int) -> None:
    for count in range(1, FRAGMENT_COUNT_LIMIT + 1):
        for number in (1, 2, 3, 50, 16383 - count):
            row = LIBRARY.noria_fragment_parity(
                ctypes.c_uint16(number), ctypes.c_uint8(count), ctypes.c_uint8(version - 1)
            )
            assert row == parity_row(number, count, version)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("limit", [51, 115, 222])
@pytest.mark.parametrize("seed", range(6))
def test_lost_repeated_and_reordered_fragments_are_handled_as_the_reference_does(
    limit: int, seed: int, version: int
) -> None:
    air, node = random.Random(seed), new_node()
    sender = Fragmenter(FULL, limit, 2, version, session_count=seed)
    reference = Reassembler(sender.count, sender.fragment_size, sender.padding, version)
    assert answers(node.downlink(sender.setup())) == (SessionSetupAnswer(0, SetupRefusal.NONE),)
    steps = list(range(4 * sender.count))
    air.shuffle(steps)
    while reference.missing:
        step = steps.pop() if air.random() > 0.3 else air.randrange(4 * sender.count)
        command = sender.fragment(step)
        assert node.downlink(command) == b""
        reference.add(int.from_bytes(command[1:3], "little"), command[3:])
        assert answers(node.status(), version) == (
            SessionStatusAnswer(0, reference.received, reference.missing, out_of_memory=False),
        )
    assert node.poll()
    assert node.model == improved().pack()


def test_a_node_polls_until_it_is_tired_and_wakes_up_again() -> None:
    node, sender = new_node(), Fragmenter(FULL, 115, descriptor=2)
    assert node.status() == b""
    node.downlink(sender.setup())
    assert all(node.status() for _ in range(POLL_LIMIT))
    assert node.status() == b""
    assert node.active
    node.downlink(sender.fragment(0))
    assert node.status()


def test_the_last_poll_says_that_nothing_is_missing() -> None:
    node, sender = new_node(), Fragmenter(FULL, 222, descriptor=2)
    node.downlink(sender.setup() + b"".join(sender.fragment(step) for step in range(sender.count)))
    assert answers(node.status())[0].missing == 0
    assert node.status() == b""


def test_a_repeated_setup_keeps_what_has_arrived() -> None:
    node, sender = new_node(), Fragmenter(FULL, 115, descriptor=2)
    node.downlink(sender.setup())
    node.downlink(sender.fragment(0))
    node.downlink(sender.setup())
    assert answers(node.status())[0].missing == sender.count - 1
    node.downlink(Fragmenter(FULL, 115, descriptor=3).setup())
    assert answers(node.status())[0].missing == sender.count


def test_package_status_and_delete_requests_are_answered() -> None:
    node, sender = new_node(), Fragmenter(FULL, 115, descriptor=2)
    assert answers(node.downlink(package_version_request())) == (PackageVersionAnswer(3, 2),)
    (nothing,) = answers(node.downlink(session_status_request()), version=2)
    assert not nothing.exists
    assert answers(node.downlink(session_delete_request())) == (SessionDeleteAnswer(0, existed=False),)
    node.downlink(sender.setup())
    both = answers(node.downlink(session_status_request() + session_delete_request()))
    assert both == (SessionStatusAnswer(0, 0, sender.count, out_of_memory=False), SessionDeleteAnswer(0, existed=True))
    assert not node.active


def test_a_session_keeps_the_form_it_was_set_up_in() -> None:
    node, first, second = new_node(), Fragmenter(FULL, 115, 2), Fragmenter(FULL, 115, 2, version=2)
    assert len(second.setup()) == len(first.setup()) + 6
    node.downlink(first.setup())
    node.downlink(first.fragment(0))
    assert answers(node.downlink(second.setup()), 2) == (SessionSetupAnswer(0, SetupRefusal.NONE),)
    assert answers(node.status(), 2)[0].missing == second.count, "of another form, so another session"
    node.downlink(second.fragment(0))
    again = Fragmenter(FULL, 115, 2, version=2, session_count=7)
    node.downlink(again.setup())
    assert answers(node.status(), 2)[0].missing == second.count - 1, "the session count is not looked at"
    both = answers(node.downlink(package_version_request() + session_status_request()), 2)
    assert both == (PackageVersionAnswer(3, 2), SessionStatusAnswer(0, 1, second.count - 1, out_of_memory=False))
    assert node.downlink(bytes([4, 0]) + session_status_request())[0] == 1, "an acknowledgement nobody asked for"


def test_a_setup_of_the_second_form_is_refused_as_one_of_the_first_and_may_follow_other_commands() -> None:
    node, sender = new_node(), Fragmenter(FULL, 115, 1, version=2)
    both = answers(node.downlink(session_delete_request() + sender.setup()), 2)
    assert both == (SessionDeleteAnswer(0, existed=False), SessionSetupAnswer(0, SetupRefusal.DESCRIPTOR))


@pytest.mark.parametrize(
    ("setup", "refusal"),
    [
        ("02 10 0300 2c 00 00 02000000", SetupRefusal.SESSION_INDEX),
        ("02 00 0300 2c 08 00 02000000", SetupRefusal.ENCODING),
        ("02 00 0000 2c 00 00 02000000", SetupRefusal.ENCODING),
        ("02 00 0300 2c 00 2c 02000000", SetupRefusal.ENCODING),
        ("02 00 2900 0a 00 00 02000000", SetupRefusal.MEMORY),
        ("02 00 0800 db 00 00 02000000", SetupRefusal.MEMORY),
        ("02 00 ffff ff 00 00 02000000", SetupRefusal.MEMORY),
        ("02 00 0300 2c 00 00 01000000", SetupRefusal.DESCRIPTOR),
    ],
)
def test_a_session_a_node_cannot_take_is_refused_and_leaves_the_old_one(setup: str, refusal: SetupRefusal) -> None:
    node, sender = new_node(), Fragmenter(FULL, 115, descriptor=2)
    node.downlink(sender.setup())
    (answer,) = answers(node.downlink(bytes.fromhex(setup)))
    assert answer.refusal is refusal
    assert answers(node.status())[0].missing == sender.count


@settings(max_examples=80)
@given(st.lists(st.binary(max_size=240), max_size=12), st.booleans())
def test_arbitrary_downlinks_do_no_harm(payloads: list[bytes], in_session: bool) -> None:  # noqa: FBT001
    node = new_node()
    if in_session:
        node.downlink(Fragmenter(FULL, 51, descriptor=2).setup())
    for payload in payloads:
        assert len(node.downlink(payload)) <= 16
        assert not node.poll()
    assert node.version == 1
    assert node.model == model().pack()


def test_garbage_in_every_fragment_is_refused_as_an_update() -> None:
    node, sender = new_node(), Fragmenter(bytes(700), 115, descriptor=2)
    assert not node.receive(bytes(700), 2)
    assert sender.count
    assert node.events() == [(EventCode.UPDATE_REFUSED, Refusal.FORMAT, 2)]
    assert node.version == 1


def test_a_head_arrives_in_two_frames_at_dr3() -> None:
    node, head = new_node(), sign(build_head(improved(), 2), SECRET)
    assert Fragmenter(head, 115, 2).count == 2
    assert node.receive(head, 2)
    assert node.model == improved().pack()
