"""Numbers come back as they were, in few bits where they are small, and any input ends."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_models.recompression import Decoder, Encoder, NumberModel, RecompressionError

NUMBERS = st.integers(-(2**31) + 1, 2**31 - 1)
BITS = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32))
ITEMS = st.lists(st.one_of(NUMBERS, st.integers(-9, 9), BITS), max_size=90)


@settings(max_examples=150)
@given(ITEMS)
def test_everything_is_restored(items: list[int | tuple[int, int]]) -> None:
    coder, model = Encoder(), NumberModel()
    for item in items:
        if isinstance(item, tuple):
            coder.bits(*item)
        else:
            coder.number(item, model)
    decoder, model = Decoder(coder.finish()), NumberModel()
    for item in items:
        if isinstance(item, tuple):
            assert decoder.bits(item[1]) == item[0] & ((1 << item[1]) - 1)
        else:
            assert decoder.number(model) == item
    decoder.finish()


@pytest.mark.parametrize(("value", "limit"), [(0, 9), (1, 34), (-127, 130)])
def test_what_repeats_costs_little(value: int, limit: int) -> None:
    coder, model = Encoder(), NumberModel()
    for _ in range(128):
        coder.number(value, model)
    assert len(coder.finish()) <= limit


@given(st.binary(max_size=80), st.integers(0, 200))
def test_any_input_ends(data: bytes, count: int) -> None:
    decoder, model = Decoder(data), NumberModel()
    for _ in range(count):
        assert abs(decoder.number(model)) < 2**31


def test_bytes_left_over_are_refused() -> None:
    decoder = Decoder(bytes(range(1, 9)))
    with pytest.raises(RecompressionError, match="left over"):
        decoder.finish()


def test_what_cannot_be_coded_is_refused() -> None:
    with pytest.raises(RecompressionError):
        Encoder().number(-(1 << 31), NumberModel())
