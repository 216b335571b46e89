"""Recompression loses nothing, gains where there is something to gain, and survives any input."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_models.recompression import RecompressionError, Segment, SegmentType, decode, encode

BLOCKS = st.lists(st.tuples(st.sampled_from(SegmentType), st.integers(0, 40)), max_size=6)


@settings(max_examples=80, deadline=None)
@given(BLOCKS, st.randoms(use_true_random=False))
def test_every_block_is_restored(shape: list[tuple[SegmentType, int]], source: random.Random) -> None:
    segments = [Segment(kind, count) for kind, count in shape]
    data = b""
    for segment in segments:
        if segment.type is SegmentType.INT32:
            numbers = [source.getrandbits(source.randint(0, 31)) * source.choice([-1, 1]) for _ in range(segment.count)]
            data += struct.pack(f"<{segment.count}i", *numbers)
        else:
            data += source.randbytes(segment.count)
    assert decode(encode(data, segments), segments) == data


@pytest.mark.parametrize("value", [0, 1, -1, 127, -127, -128])
def test_extreme_bytes_are_restored(value: int) -> None:
    data = struct.pack("b", value) * 50
    segments = [Segment(SegmentType.INT8, 50)]
    coded = encode(data, segments)
    assert decode(coded, segments) == data
    assert len(coded) <= 60


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), BLOCKS)
def test_any_input_ends_in_a_block_or_a_refusal(data: bytes, shape: list[tuple[SegmentType, int]]) -> None:
    segments = [Segment(kind, count) for kind, count in shape]
    try:
        block = decode(data, segments)
    except RecompressionError:
        return
    assert len(block) == sum(segment.size for segment in segments)


def test_bytes_left_over_are_refused() -> None:
    segments = [Segment(SegmentType.INT8, 4)]
    with pytest.raises(RecompressionError, match="left over"):
        decode(encode(bytes(4), segments) + bytes(range(1, 9)), segments)


def test_what_cannot_be_coded_is_refused() -> None:
    with pytest.raises(RecompressionError):
        encode(bytes(3), [Segment(SegmentType.INT8, 4)])
    with pytest.raises(RecompressionError):
        encode(struct.pack("<i", -(1 << 31)), [Segment(SegmentType.INT32, 1)])
