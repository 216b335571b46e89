"""Only the right container for the right node opens; every other is refused with the right reason."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_cases import improved, key_pair, model

from shared_models.codes import Board, Refusal
from shared_models.container import (
    HEADER_SIZE,
    SIGNATURE_SIZE,
    Container,
    ContainerError,
    ContainerKind,
    build_full,
    build_head,
    open_container,
    read_container,
    sign,
)

SECRET, PUBLIC = key_pair(1)
OTHER_SECRET, OTHER_PUBLIC = key_pair(2)
KEYS = [PUBLIC, bytes(32)]


def refusal(
    data: bytes, *, keys: list[bytes] | None = None, board: Board = Board.STM32L072, version: int = 1
) -> Refusal:
    try:
        open_container(data, KEYS if keys is None else keys, board, version, model())
    except ContainerError as error:
        return error.refusal
    return Refusal.NONE


FULL = sign(build_full(improved(), 2), SECRET)
HEAD = sign(build_head(improved(), 2), SECRET)


@pytest.mark.parametrize("data", [FULL, HEAD], ids=["full", "head"])
def test_what_was_packed_is_what_opens(data: bytes) -> None:
    assert open_container(data, KEYS, Board.STM32L432, 1, model()).pack() == improved().pack()


def test_a_full_model_needs_no_running_model() -> None:
    assert open_container(FULL, KEYS, Board.STM32L072, 0, None).model_id == improved().model_id


def test_a_head_fits_two_frames_and_recompression_beats_zlib() -> None:
    assert len(HEAD) <= 140
    full_payload, head_payload = len(read_container(FULL).payload), len(read_container(HEAD).payload)
    assert full_payload < 0.9 * len(zlib.compress(improved().pack(), 9))
    assert head_payload < len(improved().head_bytes) < len(zlib.compress(improved().head_bytes, 9))


@pytest.mark.parametrize("data", [FULL, HEAD], ids=["full", "head"])
def test_every_single_bit_flip_is_refused(data: bytes) -> None:
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        assert refusal(bytes(damaged)) is not Refusal.NONE


@pytest.mark.parametrize("data", [FULL, HEAD], ids=["full", "head"])
def test_every_truncation_and_extension_is_a_wrong_length(data: bytes) -> None:
    for length in range(len(data)):
        assert refusal(data[:length]) is Refusal.LENGTH
    assert refusal(data + b"\0") is Refusal.LENGTH


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    assert refusal(data) is not Refusal.NONE


def test_another_board_is_a_wrong_target() -> None:
    only_m4 = sign(build_full(improved(), 2, [Board.STM32L432]), SECRET)
    assert refusal(only_m4) is Refusal.TARGET
    assert refusal(only_m4, board=Board.STM32L432) is Refusal.NONE


def test_a_replayed_or_older_release_is_refused() -> None:
    assert refusal(FULL, version=2) is Refusal.VERSION
    assert refusal(FULL, version=3) is Refusal.VERSION


def test_a_head_for_another_backbone_is_refused() -> None:
    assert refusal(sign(build_head(improved(seed=9), 2), SECRET)) is Refusal.BASE
    with pytest.raises(ContainerError) as caught:
        open_container(HEAD, KEYS, Board.STM32L072, 1, None)
    assert caught.value.refusal is Refusal.BASE


def test_only_trusted_keys_sign() -> None:
    forged = sign(build_full(improved(), 2), OTHER_SECRET)
    assert refusal(forged) is Refusal.SIGNATURE
    assert refusal(forged, keys=[PUBLIC, OTHER_PUBLIC]) is Refusal.NONE
    assert refusal(FULL, keys=[bytes(32), bytes(32)]) is Refusal.SIGNATURE
    renamed = forged[:3] + FULL[3:4] + forged[4:]
    assert refusal(renamed) is Refusal.SIGNATURE


def resigned(payload: bytes | None = None, model_id: int | None = None) -> bytes:
    full = build_full(improved(), 2)
    wrong = Container(
        full.kind, full.board_mask, 0, full.version, 0, full.model_id if model_id is None else model_id,
        full.payload if payload is None else payload,
    )  # fmt: skip
    return sign(wrong, SECRET)


def test_a_signed_mistake_is_still_refused() -> None:
    good = build_full(improved(), 2).payload
    assert refusal(resigned(good + bytes([1] * 200))) is Refusal.DECODE
    assert refusal(resigned(model_id=7)) is Refusal.MODEL_ID
    assert refusal(resigned(good[:300])) in {Refusal.MODEL_ID, Refusal.DECODE}


def test_an_unsupported_format_or_kind_is_refused_before_its_signature() -> None:
    assert refusal(b"\2" + FULL[1:]) is Refusal.FORMAT
    assert refusal(FULL[:1] + b"\3" + FULL[2:]) is Refusal.FORMAT


def test_only_a_whole_signing_key_signs() -> None:
    with pytest.raises(ContainerError):
        sign(build_full(improved(), 2), SECRET[:32])
    with pytest.raises(ContainerError):
        Container(ContainerKind.FULL, 300, 0, 1, 0, 0, b"").signed_bytes()
    with pytest.raises(ContainerError):
        Container(ContainerKind.FULL, 3, 0, 1, 0, 0, bytes(1025)).signed_bytes()


def test_the_signature_covers_everything_before_it() -> None:
    assert len(FULL) == HEADER_SIZE + len(read_container(FULL).payload) + SIGNATURE_SIZE
