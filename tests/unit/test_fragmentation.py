"""Any enough of the fragments restore the block; nothing else does harm."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_models.fragmentation import (
    BLOCK_LIMIT,
    FRAGMENT_COUNT_LIMIT,
    FragmentationError,
    Fragmenter,
    PackageVersionAnswer,
    Reassembler,
    SessionDeleteAnswer,
    SessionSetupAnswer,
    SessionStatusAnswer,
    SetupRefusal,
    decode_answers,
    encode_answer,
    parity_row,
)


def split(command: bytes) -> tuple[int, bytes]:
    return int.from_bytes(command[1:3], "little"), command[3:]


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=1100), st.sampled_from([51, 115, 222]), st.integers(0, 2**32), st.floats(0, 0.6))
def test_any_loss_is_repaired_by_more_fragments(block: bytes, limit: int, seed: int, loss: float) -> None:
    air, sender = random.Random(seed), Fragmenter(block, limit, descriptor=2)
    receiver = Reassembler(sender.count, sender.fragment_size, sender.padding)
    for step in range(40 * sender.count + 200):
        command = sender.fragment(step)
        assert len(command) <= limit
        if air.random() >= loss and receiver.add(*split(command)):
            break
    assert receiver.block() == block


def test_overhead_at_a_quarter_lost_is_small() -> None:
    block, extra = bytes(range(256)) * 4, []
    for seed in range(200):
        air, sender = random.Random(seed), Fragmenter(block, 51, descriptor=2)
        receiver, step = Reassembler(sender.count, sender.fragment_size, sender.padding), 0
        while receiver.missing:
            if air.random() >= 0.25:
                receiver.add(*split(sender.fragment(step)))
            step += 1
        extra.append(receiver.received - sender.count)
    assert sum(extra) / len(extra) < 3


def test_parity_rows_are_those_of_the_published_generator() -> None:
    # PRBS23 from 1 + 1001 n, as LoRaMac-node draws them; a power of two uses M + 1 as the modulus.
    assert [parity_row(n, 8) for n in (1, 2, 3)] == [_published_row(n, 8) for n in (1, 2, 3)]
    assert [parity_row(n, 29) for n in (1, 2, 200)] == [_published_row(n, 29) for n in (1, 2, 200)]


def _published_row(n: int, m: int) -> int:
    """FragGetParityMatrixRow of LoRaMac-node's FragDecoder.c, followed line by line."""
    line = [0] * m
    power_of_two = m & (m - 1) == 0
    x, coefficient = 1 + 1001 * n, 0
    while coefficient < m // 2:
        r = 1 << 16
        while r >= m:
            b0, b1 = x & 1, (x & 0x20) // 0x20
            x = (x // 2) + ((b0 ^ b1) << 22)
            r = x % (m + (1 if power_of_two else 0))
        line[r] = 1
        coefficient += 1
    return sum(bit << i for i, bit in enumerate(line))


def test_duplicates_add_nothing_and_cost_nothing() -> None:
    sender = Fragmenter(bytes(100), 51, descriptor=2)
    receiver = Reassembler(sender.count, sender.fragment_size, sender.padding)
    for _ in range(5):
        receiver.add(*split(sender.fragment(0)))
    assert receiver.missing == sender.count - 1
    with pytest.raises(FragmentationError):
        receiver.block()


def test_the_setup_request_says_what_the_sender_does() -> None:
    sender = Fragmenter(bytes(130), 51, descriptor=0x01020304)
    assert sender.setup() == bytes([2, 0, 3, 0, 44, 0, 2, 4, 3, 2, 1])


@pytest.mark.parametrize("limit", [3, 0, -5, 20])
def test_a_block_no_node_takes_is_not_sent(limit: int) -> None:
    with pytest.raises(FragmentationError):
        Fragmenter(bytes(1200), limit, descriptor=2)
    with pytest.raises(FragmentationError):
        Fragmenter(b"", 51, descriptor=2)
    with pytest.raises(FragmentationError):
        Fragmenter(bytes(BLOCK_LIMIT + 1), 222, descriptor=2)


@pytest.mark.parametrize(
    ("count", "size", "padding"),
    [(0, 10, 0), (FRAGMENT_COUNT_LIMIT + 1, 10, 0), (1, 0, 0), (1, 220, 0), (40, 36, 0), (2, 10, 10)],
)
def test_a_session_beyond_a_nodes_memory_is_refused(count: int, size: int, padding: int) -> None:
    with pytest.raises(FragmentationError):
        Reassembler(count, size, padding)


@pytest.mark.parametrize(("number", "length"), [(0, 10), (16384, 10), (1, 9), (1, 11)])
def test_a_fragment_that_does_not_fit_the_session_is_refused(number: int, length: int) -> None:
    with pytest.raises(FragmentationError):
        Reassembler(3, 10).add(number, bytes(length))


ANSWERS = st.one_of(
    st.builds(PackageVersionAnswer, st.integers(0, 255), st.integers(0, 255)),
    st.builds(SessionStatusAnswer, st.integers(0, 3), st.integers(0, 16383), st.integers(0, 255), st.booleans()),
    st.builds(SessionSetupAnswer, st.integers(0, 3), st.integers(0, 15).map(SetupRefusal)),
    st.builds(SessionDeleteAnswer, st.integers(0, 3), st.booleans()),
)


@given(st.lists(ANSWERS, min_size=1, max_size=8))
def test_answers_survive_in_order(answers: list[object]) -> None:
    payload = b"".join(encode_answer(answer) for answer in answers)
    assert list(decode_answers(payload).answers) == answers


@given(st.binary(max_size=60))
def test_arbitrary_answers_decode_or_are_refused(payload: bytes) -> None:
    try:
        answers = decode_answers(payload).answers
    except FragmentationError:
        return
    assert answers
