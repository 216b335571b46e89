"""Any enough of the fragments restore the block; nothing else does harm."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_models.fragmentation import (
    BLOCK_LIMIT,
    FRAGMENT_COUNT_LIMIT,
    BlockReceived,
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


@settings(max_examples=60)
@given(
    st.binary(min_size=1, max_size=1100),
    st.sampled_from([51, 115, 222]),
    st.integers(0, 2**32),
    st.floats(0, 0.6),
    st.sampled_from([1, 2]),
)
def test_any_loss_is_repaired_by_more_fragments(block: bytes, limit: int, seed: int, loss: float, version: int) -> None:
    air, sender = random.Random(seed), Fragmenter(block, limit, 2, version)
    receiver = Reassembler(sender.count, sender.fragment_size, sender.padding, version)
    for step in range(40 * sender.count + 200):
        command = sender.fragment(step)
        assert len(command) <= limit
        if air.random() >= loss and receiver.add(*split(command)):
            break
    assert receiver.block() == block


@pytest.mark.parametrize("version", [1, 2])
def test_overhead_at_a_quarter_lost_is_small(version: int) -> None:
    block, extra = bytes(range(256)) * 4, []
    for seed in range(200):
        air, sender = random.Random(seed), Fragmenter(block, 51, 2, version)
        receiver, step = Reassembler(sender.count, sender.fragment_size, sender.padding, version), 0
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


def test_parity_rows_of_version_2_are_the_same_drawing_until_half_are_chosen() -> None:
    for count in range(2, FRAGMENT_COUNT_LIMIT + 1):
        for number in (1, 2, 3, 77):
            first, second = parity_row(number, count), parity_row(number, count, version=2)
            assert second.bit_count() == count // 2
            assert first & second == first, "what version 1 draws, version 2 has drawn"


def test_which_form_a_status_has_is_the_sessions_to_say() -> None:
    status = SessionStatusAnswer(0, 3, 5, out_of_memory=False)
    assert decode_answers(encode_answer(status, 2)).read(2) == (status,)
    assert decode_answers(encode_answer(status, 1)).read(2) != (status,)
    gone = SessionStatusAnswer(0, 0, 0, out_of_memory=False, exists=False)
    assert encode_answer(gone, 2) == bytes([1, 4])
    assert decode_answers(bytes([1, 4])).read(2) == (gone,)
    assert decode_answers(bytes([1, 4])).answers == ()


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
    second = Fragmenter(bytes(130), 51, 0x01020304, version=2, session_count=0x0506)
    assert second.setup() == sender.setup() + bytes([6, 5, 0, 0, 0, 0])


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


def _answers(version: int) -> st.SearchStrategy[object]:
    session = st.integers(0, 3)
    mic = st.just(False) if version == 1 else st.booleans()
    return st.one_of(
        st.builds(PackageVersionAnswer, st.integers(0, 255), st.integers(0, 255)),
        st.builds(
            SessionStatusAnswer, st.integers(0, 3), st.integers(0, 16383), st.integers(0, 255), st.booleans(), mic
        ),
        st.builds(SessionSetupAnswer, session, st.integers(0, 31).map(SetupRefusal)),
        st.builds(SessionDeleteAnswer, session, st.booleans()),
        st.builds(BlockReceived, session, st.booleans()),
    )


@pytest.mark.parametrize("version", [1, 2])
@given(data=st.data())
def test_answers_survive_in_order(version: int, data: st.DataObject) -> None:
    answers = data.draw(st.lists(_answers(version), min_size=1, max_size=8))
    payload = b"".join(encode_answer(answer, version) for answer in answers)
    assert list(decode_answers(payload).read(version)) == answers


@given(st.binary(max_size=60))
def test_arbitrary_answers_decode_or_are_refused(payload: bytes) -> None:
    try:
        answers = decode_answers(payload)
    except FragmentationError:
        return
    assert answers.read(1) or answers.read(2)
