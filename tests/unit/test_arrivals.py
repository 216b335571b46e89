"""Which fragment is sent next: none in vain while it is known what arrived, and an end whatever is not known."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.arrivals import Arrivals
from shared_models.fragmentation import Fragmenter, Reassembler


class Node:
    """A receiver whose words may be lost, and who may forget."""

    def __init__(self, count: int, package: int) -> None:
        self.block = bytes(range(count)) * 4
        self.sender = Fragmenter(self.block, 3 + 4, 2, package)
        assert self.sender.count == count
        self.receiver = Reassembler(count, self.sender.fragment_size, 0, package)
        self.useless = 0

    def take(self, number: int) -> None:
        before = self.receiver.missing
        fragment = self.sender.fragment(number - 1)
        self.receiver.add(int.from_bytes(fragment[1:3], "little"), fragment[3:])
        self.useless += before == self.receiver.missing


def fresh(count: int, package: int = 2) -> Arrivals:
    return Arrivals(count, package, count)


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(0, 2**32), st.floats(0, 0.6), st.sampled_from([1, 2]))
def test_a_node_that_is_heard_before_every_fragment_gets_none_in_vain(
    count: int, seed: int, loss: float, package: int
) -> None:
    air, node, arrivals = random.Random(seed), Node(count, package), fresh(count, package)
    for _ in range(50 * count + 500):
        arrivals.say(node.receiver.missing, under_way=False)
        if not node.receiver.missing:
            break
        assert arrivals.useful
        number = arrivals.choose()
        if air.random() >= loss:
            node.take(number)
    assert node.receiver.block() == node.block
    assert node.useless == 0


@settings(max_examples=25)
@given(st.integers(1, 16), st.integers(0, 2**32), st.sampled_from([1, 2]))
def test_lost_words_resets_and_old_words_only_delay(count: int, seed: int, package: int) -> None:
    air, node, arrivals = random.Random(seed), Node(count, package), fresh(count, package)
    sent = 0
    for _ in range(4000):
        if not node.receiver.missing:
            break
        event = air.random()
        if event < 0.5:
            arrivals.say(node.receiver.missing, under_way=False)
        elif event < 0.55:
            arrivals.incomplete()
        elif event < 0.57 and count > 1:  # a reset cost it all it had
            node.receiver = Reassembler(count, node.sender.fragment_size, 0, package)
        arrivals = Arrivals.load(arrivals.dump())
        if arrivals.useful:
            number, sent = arrivals.choose(), sent + 1
            if air.random() < 0.7:
                node.take(number)
            elif air.random() < 0.3:
                arrivals.withdraw()
    assert node.receiver.block() == node.block


@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_a_node_that_knows_other_than_was_thought_is_not_sent_the_same_again_and_again(count: int) -> None:
    node, arrivals = Node(count, 1), fresh(count, 1)
    for number in range(1, count):
        node.take(number)
    arrivals.say(1, under_way=False)  # nothing was sent, as far as the gateway knows
    for _ in range(count + 1):
        if node.receiver.missing:
            node.take(arrivals.choose())
            arrivals.say(node.receiver.missing, under_way=False)
    assert node.receiver.missing == 0


def test_what_may_complete_the_block_is_waited_for() -> None:
    arrivals = fresh(3)
    assert [arrivals.choose() for _ in range(3)] == [1, 2, 3]
    assert not arrivals.useful
    arrivals.say(1, under_way=False)
    assert arrivals.useful
    arrivals.choose()
    assert not arrivals.useful


def test_a_word_does_not_count_what_goes_out_in_answer_to_it() -> None:
    arrivals = fresh(4)
    arrivals.choose()
    arrivals.choose()
    arrivals.say(3, under_way=True)
    assert (arrivals.held, arrivals.fresh) == ([1], [2])
    arrivals.say(3, under_way=False)
    assert [arrivals.choose() for _ in range(3)] == [3, 4, 2], "it was lost, and comes after what was never sent"


def test_a_node_that_only_says_it_is_not_done_gets_one_more() -> None:
    arrivals = fresh(2)
    arrivals.choose()
    arrivals.choose()
    arrivals.incomplete()
    assert arrivals.useful
    arrivals.choose()
    assert not arrivals.useful
