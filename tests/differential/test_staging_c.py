"""A session outlives resets: what has arrived is in flash, what is torn is stepped over, what is over stays over."""

from __future__ import annotations

import random

import pytest
from model_cases import improved, key_pair, model
from update_cases import STAGING, Flash, Node, provision

from shared_models.codes import EventCode, Refusal
from shared_models.container import build_full, sign
from shared_models.fragmentation import (
    BLOCK_LIMIT,
    FRAGMENT_COUNT_LIMIT,
    Fragmenter,
    SessionStatusAnswer,
    SetupRefusal,
    decode_answers,
    session_delete_request,
)

SECRET, PUBLIC = key_pair(1)
PARTS = ("L0", "L4", "L4_ECC")
FULL = sign(build_full(improved(), 2), SECRET)
OPENINGS = 4


def new_flash(part: str = "L0") -> Flash:
    flash = Flash(part)
    provision(flash, PUBLIC, model().pack())
    return flash


def missing(node: Node, version: int = 1) -> int | None:
    poll = node.status()
    return decode_answers(poll).read(version)[0].missing if poll else None


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("limit", [51, 115, 222])
@pytest.mark.parametrize("seed", range(4))
def test_a_node_reset_after_every_fragment_needs_no_more_of_them(part: str, limit: int, seed: int) -> None:
    air, version = random.Random(seed), 1 + seed % 2
    new_flash(part)
    patient, sender = Node(), Fragmenter(FULL, limit, 2, version)
    steps = [step for step in range(8 * sender.count) if air.random() > 0.3]
    air.shuffle(steps)
    patient.downlink(sender.setup())
    wanted = []
    for step in steps:
        patient.downlink(sender.fragment(step))
        wanted.append(missing(patient, version) or 0)
    new_flash(part)
    Node().downlink(sender.setup())
    for step, left in zip(steps, wanted, strict=True):
        node = Node()
        node.downlink(sender.fragment(step))
        assert (missing(node, version) or 0) == left
    assert 0 in wanted
    assert Node().poll()
    assert Node().model == improved().pack()


@pytest.mark.parametrize("part", PARTS)
def test_a_complete_block_is_installed_after_a_reset_and_only_once(part: str) -> None:
    new_flash(part)
    node, sender = Node(), Fragmenter(FULL, 115, descriptor=2)
    node.downlink(sender.setup() + sender.fragment(0))
    for step in range(1, sender.count):
        node.downlink(sender.fragment(step))
    node = Node()
    assert not node.active
    assert decode_answers(node.status()).answers == (SessionStatusAnswer(0, sender.count, 0, out_of_memory=False),)
    assert node.poll()
    assert node.version == 2
    again = Node()
    assert missing(again) is None
    assert not again.poll()


@pytest.mark.parametrize("part", PARTS)
def test_a_refused_block_is_refused_once(part: str) -> None:
    new_flash(part)
    node = Node()
    assert not node.receive(bytes(len(FULL)), 2)
    assert [event[:2] for event in node.events()] == [(EventCode.UPDATE_REFUSED, Refusal.FORMAT)]
    again = Node()
    assert not again.poll()
    assert not again.events()
    assert again.receive(FULL, 2), "the next session is taken"


def test_a_deleted_session_does_not_come_back() -> None:
    new_flash()
    node, sender = Node(), Fragmenter(FULL, 115, descriptor=2)
    node.downlink(sender.setup())
    node.downlink(sender.fragment(0))
    node.downlink(session_delete_request())
    assert missing(Node()) is None


def test_another_session_takes_the_place_of_the_one_kept() -> None:
    new_flash()
    node = Node()
    node.downlink(Fragmenter(FULL, 51, descriptor=2).setup() + Fragmenter(FULL, 51, descriptor=2).fragment(0))
    sender = Fragmenter(FULL, 115, descriptor=3)
    node.downlink(sender.setup())
    assert missing(Node()) == sender.count


def test_the_longest_and_the_most_divided_block_both_fit_in_flash_beside_all_marks() -> None:
    for count, size in ((FRAGMENT_COUNT_LIMIT, BLOCK_LIMIT // FRAGMENT_COUNT_LIMIT), (6, 219), (27, 51), (40, 1)):
        flash = new_flash()
        sender = Fragmenter(bytes(i % 251 for i in range(count * size)), size + 3, descriptor=2)
        assert (sender.count, sender.fragment_size) == (count, size)
        Node().downlink(sender.setup())
        for step in range(count):
            Node().downlink(sender.fragment(step))
        for _ in range(OPENINGS):
            with flash.cut(1, torn=False):  # the mark of the opening is written, then the power fails
                assert not Node().poll()
        node = Node()
        assert not node.poll()
        assert [event[:2] for event in node.events()] == [(EventCode.UPDATE_REFUSED, Refusal.FLASH)]
        assert not Node().poll()


@pytest.mark.parametrize("part", PARTS)
def test_an_opening_that_never_ends_is_given_up(part: str) -> None:
    flash = new_flash(part)
    with flash.cut(10_000, torn=False):
        node, sender = Node(), Fragmenter(FULL, 115, descriptor=2)
        node.downlink(sender.setup())
        for step in range(sender.count):
            node.downlink(sender.fragment(step))
    for opening in range(OPENINGS):
        with flash.cut(20, torn=True, seed=opening):
            assert not Node().poll()
    node = Node()
    assert not node.poll()
    assert node.version == 1
    assert (EventCode.UPDATE_REFUSED, Refusal.FLASH, 2) in node.events()
    assert Node().receive(FULL, 2), "a new session is taken"


@pytest.mark.parametrize("part", PARTS)
def test_torn_fragments_are_stepped_over_until_the_room_is_used_up_and_then_kept_in_ram(part: str) -> None:
    flash = new_flash(part)
    sender = Fragmenter(bytes(i % 251 for i in range(BLOCK_LIMIT)), 38, descriptor=2)
    assert sender.count == FRAGMENT_COUNT_LIMIT
    Node().downlink(sender.setup())
    kept = 0
    for step in range(sender.count):
        node = Node()
        with flash.cut(4, torn=True, seed=step):  # each record is torn near its end
            node.downlink(sender.fragment(step))
        assert missing(Node()) == sender.count - kept
        node = Node()
        node.downlink(sender.fragment(step))
        kept = sender.count - (missing(Node()) or 0)
        if kept <= step:
            break
    assert 10 < kept < sender.count
    for step in range(sender.count):
        node.downlink(sender.fragment(step))
    assert missing(node) == 0, "RAM holds what flash no longer takes"


@pytest.mark.parametrize("part", PARTS)
def test_a_flash_that_refuses_costs_the_copy_but_not_the_session(part: str) -> None:
    flash = new_flash(part)
    node, sender = Node(), Fragmenter(FULL, 115, descriptor=2)
    flash.refuse(on=True)
    assert decode_answers(node.downlink(sender.setup())).answers[0].refusal is SetupRefusal.NONE
    for step in range(sender.count):
        node.downlink(sender.fragment(step))
    assert missing(node) == 0
    flash.refuse(on=False)
    assert node.poll()
    assert Node().version == 2


@pytest.mark.parametrize("part", PARTS)
def test_a_sector_of_noise_is_no_session(part: str) -> None:
    for seed in range(20):
        flash = new_flash(part)
        Node()
        flash.write(STAGING, random.Random(seed).randbytes(2048))
        node = Node()
        assert missing(node) is None
        assert not node.poll()
        assert node.receive(FULL, 2)
        assert Node().version == 2


@pytest.mark.parametrize("part", PARTS)
def test_rot_in_what_was_kept_costs_only_what_it_hit(part: str) -> None:
    air = random.Random(5)
    sender = Fragmenter(FULL, 51, descriptor=2)
    for _ in range(40):
        flash = new_flash(part)
        node = Node()
        node.downlink(sender.setup())
        for step in range(sender.count):
            node.downlink(sender.fragment(step))
        at = STAGING + 16 + air.randrange(sender.count * 56)
        flash.write(at, bytes([flash.read(at, 1)[0] ^ 1 << air.randrange(8)]))
        node = Node()
        left = missing(node)
        assert left == 1
        for step in range(sender.count):
            node.downlink(sender.fragment(step))
        assert node.poll()
        assert node.model == improved().pack()
