"""The firmware opens and refuses exactly what the reference does, with the same code."""

from __future__ import annotations

import ctypes
import dataclasses
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import improved, key_pair, model
from update_cases import LIBRARY, Flash, Node, provision

from shared_models.codes import Board, EventCode, Refusal
from shared_models.container import (
    ContainerError,
    build_full,
    build_head,
    open_container,
    sign,
)
from shared_models.network import IMAGE_BYTES
from shared_models.recompression import RecompressionError, Segment, SegmentType, decode

SECRET, PUBLIC = key_pair(1)
OTHER_SECRET, OTHER_PUBLIC = key_pair(2)
FULL = sign(build_full(improved(), 2), SECRET)
HEAD = sign(build_head(improved(), 2), SECRET)
NO_KEY = bytes(32)


class Trust(ctypes.Structure):
    _fields_ = (
        ("public_keys", ctypes.c_char_p),
        ("running", ctypes.c_char_p),
        ("highest_version", ctypes.c_uint32),
        ("board", ctypes.c_uint8),
    )


class Release(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("model_id", ctypes.c_uint32))


class SegmentC(ctypes.Structure):
    _fields_ = (("type", ctypes.c_uint8), ("count", ctypes.c_uint16))


LIBRARY.noria_decode.restype = ctypes.c_bool


def agreed(
    data: bytes,
    *,
    keys: tuple[bytes, bytes] = (PUBLIC, NO_KEY),
    board: Board = Board.STM32L072,
    version: int = 1,
    running: bool = True,
) -> Refusal:
    """What both say; their disagreement fails the test."""
    trust = Trust(b"".join(keys), model().pack() if running else None, version, board)
    image, release = ctypes.create_string_buffer(IMAGE_BYTES), Release()
    code = LIBRARY.noria_container_open(
        data, ctypes.c_size_t(len(data)), ctypes.byref(trust), image, ctypes.byref(release)
    )
    try:
        restored = open_container(data, keys, board, version, model() if running else None)
        refusal = Refusal.NONE
    except ContainerError as error:
        restored, refusal = None, error.refusal
    assert Refusal(code) is refusal
    assert restored is None or image.raw == restored.pack()
    return refusal


@pytest.mark.parametrize("data", [FULL, HEAD], ids=["full", "head"])
def test_a_signed_release_opens(data: bytes) -> None:
    assert agreed(data) is Refusal.NONE
    assert agreed(data, keys=(NO_KEY, PUBLIC), board=Board.STM32L432) is Refusal.NONE


@pytest.mark.parametrize("data", [FULL, HEAD], ids=["full", "head"])
def test_every_byte_flip_is_refused_alike(data: bytes) -> None:
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        assert agreed(bytes(damaged)) is not Refusal.NONE


@pytest.mark.parametrize("data", [FULL, HEAD], ids=["full", "head"])
def test_every_truncation_is_refused_alike(data: bytes) -> None:
    assert {agreed(data[:length]) for length in range(len(data))} == {Refusal.LENGTH}
    assert agreed(data + b"\0") is Refusal.LENGTH


def test_each_reason_is_given_for_what_deserves_it() -> None:
    full, head = build_full(improved(), 2), build_head(improved(), 2)
    assert agreed(b"\2" + FULL[1:]) is Refusal.FORMAT
    assert agreed(FULL[:1] + b"\3" + FULL[2:]) is Refusal.FORMAT
    assert agreed(sign(build_full(improved(), 2, [Board.STM32L432]), SECRET)) is Refusal.TARGET
    assert agreed(FULL, version=2) is Refusal.VERSION
    assert agreed(HEAD, version=0xFFFFFFFF) is Refusal.VERSION
    assert agreed(sign(build_head(improved(seed=9), 2), SECRET)) is Refusal.BASE
    assert agreed(HEAD, running=False) is Refusal.BASE
    assert agreed(sign(dataclasses.replace(full, base_id=1), SECRET)) is Refusal.BASE
    assert agreed(sign(full, OTHER_SECRET)) is Refusal.SIGNATURE
    assert agreed(FULL, keys=(NO_KEY, NO_KEY)) is Refusal.SIGNATURE
    assert agreed(FULL, keys=(OTHER_PUBLIC, NO_KEY)) is Refusal.SIGNATURE
    assert agreed(sign(dataclasses.replace(full, payload=full.payload + bytes(range(1, 99))), SECRET)) is Refusal.DECODE
    assert agreed(sign(dataclasses.replace(head, model_id=1), SECRET)) is Refusal.MODEL_ID


def test_a_signed_model_whose_self_test_disagrees_is_refused() -> None:
    from shared_models.container import _IMAGE_START, FULL_SEGMENTS, Container, ContainerKind
    from shared_models.network import HEADER, identity
    from shared_models.recompression import encode

    right = improved().pack()
    assert right.startswith(_IMAGE_START)
    wrong_self_test = right[:-4] + struct.pack("<I", 1)
    wrong_backbone_id = right[:12] + struct.pack("<I", 1) + right[HEADER.size :]
    wrong_multiplier = right[: HEADER.size] + bytes(4) + right[HEADER.size + 4 :]
    for image in (wrong_self_test, wrong_backbone_id, wrong_multiplier):
        payload = encode(image[len(_IMAGE_START) :], FULL_SEGMENTS)
        container = Container(ContainerKind.FULL, 3, 0, 2, 0, identity(image), payload)
        assert agreed(sign(container, SECRET)) is Refusal.SELF_TEST


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_alike(data: bytes) -> None:
    assert agreed(data) is not Refusal.NONE


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=700))
def test_arbitrary_signed_payloads_are_refused_alike(payload: bytes) -> None:
    container = dataclasses.replace(build_full(improved(), 2), payload=payload)
    assert agreed(sign(container, SECRET)) in {Refusal.DECODE, Refusal.MODEL_ID}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120), st.lists(st.tuples(st.sampled_from(SegmentType), st.integers(0, 30)), max_size=5))
def test_arbitrary_input_decodes_alike(data: bytes, shape: list[tuple[SegmentType, int]]) -> None:
    segments = [Segment(kind, count) for kind, count in shape]
    table = (SegmentC * max(len(shape), 1))(*((int(kind), count) for kind, count in shape))
    size = sum(segment.size for segment in segments)
    out = ctypes.create_string_buffer(size + 1)
    arguments = (table, ctypes.c_size_t(len(shape)), out, ctypes.c_size_t(size))
    accepted = LIBRARY.noria_decode(data, ctypes.c_size_t(len(data)), *arguments)
    try:
        reference = decode(data, segments)
    except RecompressionError:
        assert not accepted
        return
    assert accepted
    assert out.raw[:size] == reference


def test_a_node_refuses_what_ran_before_even_after_rolling_back() -> None:
    provision(Flash("L4"), PUBLIC, model().pack())
    node = Node()
    assert node.receive(FULL, 2)
    assert node.probation(1000, 10, 8)
    assert node.version == 1
    assert not node.receive(FULL, 2)  # the setup is refused: not a newer descriptor
    assert not node.receive(FULL, 3)  # a lying descriptor does not help
    assert [event[:2] for event in node.events()] == [
        (EventCode.MODEL_ACTIVATED, Refusal.NONE),
        (EventCode.MODEL_ROLLED_BACK, Refusal.NONE),
        (EventCode.UPDATE_REFUSED, Refusal.VERSION),
    ]


def test_probation_confirms_what_is_no_worse_than_the_physics() -> None:
    provision(Flash("L0"), PUBLIC, model().pack())
    node = Node()
    assert node.receive(HEAD, 2)
    assert node.on_probation
    assert not node.probation(1100, 1000, 7)
    assert node.on_probation
    assert not node.probation(1100, 1000, 8)
    assert not node.on_probation
    assert [event[0] for event in node.events()] == [EventCode.MODEL_ACTIVATED, EventCode.MODEL_CONFIRMED]
    assert Node().version == 2


def test_probation_without_dry_downs_ends_in_favour_of_the_model() -> None:
    provision(Flash("L0"), PUBLIC, model().pack())
    node = Node()
    node.receive(HEAD, 2)
    node.probation(0, 0, 0, 1_000 + 28 * 86_400 - 1)
    assert node.on_probation
    node.probation(0, 0, 0, 1_000 + 28 * 86_400)
    assert not node.on_probation
    assert node.version == 2


def test_a_model_that_keeps_resetting_the_node_is_given_up() -> None:
    provision(Flash("L0"), PUBLIC, model().pack())
    Node().receive(HEAD, 2)
    for _ in range(8):
        assert Node().version == 2
    node = Node()
    assert node.version == 1
    assert node.events() == [(EventCode.MODEL_ROLLED_BACK, Refusal.NONE, 2)]


def test_no_update_displaces_the_way_back() -> None:
    provision(Flash("L0"), PUBLIC, model().pack())
    node = Node()
    node.receive(HEAD, 2)
    assert not node.receive(sign(build_full(improved(head=5), 3), SECRET), 3)
    assert node.version == 2
    assert not node.active


def test_an_unprovisioned_slot_runs_no_model_and_takes_a_full_one() -> None:
    provision(Flash("L4"), PUBLIC, None)
    node = Node()
    assert (node.model, node.version) == (None, 0)
    assert not node.receive(HEAD, 2)
    assert node.receive(FULL, 2)
    assert Node().model == improved().pack()


def test_many_updates_in_a_row_wear_both_slots_and_the_log_evenly() -> None:
    for part in ("L0", "L4"):
        provision(Flash(part), PUBLIC, model().pack())
        for version in range(2, 60):
            node = Node()
            image = improved(head=version)
            assert node.receive(sign(build_head(image, version), SECRET), version)
            node.probation(0, 0, 8)
            assert Node().model == image.pack()
            assert Node().version == version
