"""Only the right container for the right node opens; every other is refused with the right reason."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace

import pytest
from container_cases import (
    CONTAINERS,
    DEV_EUI,
    MODELS,
    NEW_KEY,
    NEW_PUBLIC,
    NEW_SECRET,
    NO_KEY,
    PUBLIC,
    RECEIVER,
    RECOVERY_KEY,
    RECOVERY_PUBLIC,
    RECOVERY_SECRET,
    RELEASE_KEY,
    SECRET,
    THIEF_PUBLIC,
    THIEF_SECRET,
    UPDATE_KEY,
    refusal,
)
from hypothesis import given
from hypothesis import strategies as st
from model_cases import improved, model

from shared_models.codes import Board, Refusal
from shared_models.container import (
    HEADER_SIZE,
    PERSONAL_HEADER_SIZE,
    SIGNATURE_SIZE,
    TAG_SIZE,
    Container,
    ContainerError,
    ContainerKind,
    KeyChange,
    authenticate,
    build_delta,
    build_full,
    build_head,
    build_keys,
    build_personal,
    open_container,
    read_container,
    sign,
)
from shared_models.network import ModelImage

KINDS = pytest.mark.parametrize("kind", CONTAINERS)
MODEL_KINDS = pytest.mark.parametrize("kind", MODELS)


@MODEL_KINDS
def test_what_was_packed_is_what_opens(kind: str) -> None:
    opened = open_container(MODELS[kind], replace(RECEIVER, board=Board.STM32L432))
    assert isinstance(opened, ModelImage)
    assert opened.pack() == improved().pack()


def test_a_change_of_keys_is_what_opens() -> None:
    assert open_container(CONTAINERS["keys"], RECEIVER) == NEW_KEY


def test_a_full_model_needs_no_running_model() -> None:
    opened = open_container(CONTAINERS["full"], replace(RECEIVER, running_image=None, running_version=0))
    assert isinstance(opened, ModelImage)


def test_sizes_on_the_air() -> None:
    """A signed head fits a frame at DR3, a personal one the smallest frame, a change of keys a frame at DR3."""
    sizes = {kind: len(data) for kind, data in CONTAINERS.items()}
    assert sizes["head"] <= 115
    assert sizes["personal"] <= 51
    assert sizes["keys"] <= 115
    assert HEADER_SIZE + SIGNATURE_SIZE == 79
    assert PERSONAL_HEADER_SIZE + TAG_SIZE == 16


@KINDS
def test_every_changed_byte_is_refused(kind: str) -> None:
    data = CONTAINERS[kind]
    for position, change in itertools.product(range(len(data)), (0x01, 0x10, 0x80, 0xFF)):
        damaged = bytearray(data)
        damaged[position] ^= change
        assert refusal(bytes(damaged)) is not Refusal.NONE, (position, change)


@KINDS
def test_every_truncation_and_extension_is_refused(kind: str) -> None:
    data = CONTAINERS[kind]
    for length in range(len(data)):
        assert refusal(data[:length]) is not Refusal.NONE
    for more in (b"\0", b"\xff", bytes(64), data):
        assert refusal(data + more) is not Refusal.NONE


def test_every_splice_of_two_containers_is_refused() -> None:
    for one, other in itertools.permutations(CONTAINERS.values(), 2):
        for cut in range(1, min(len(one), len(other))):
            assert refusal(one[:cut] + other[cut:]) is not Refusal.NONE
            assert refusal(one[:-cut] + other[-cut:]) is not Refusal.NONE


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    assert refusal(data) is not Refusal.NONE


def test_another_board_is_a_wrong_target() -> None:
    for build in (build_full, build_head):
        only_m4 = sign(build(improved(), 2, [Board.STM32L432]), SECRET)
        assert refusal(only_m4) is Refusal.TARGET
        assert refusal(only_m4, replace(RECEIVER, board=Board.STM32L432)) is Refusal.NONE


@MODEL_KINDS
def test_a_replayed_or_older_release_is_refused(kind: str) -> None:
    for version in (2, 3, 0xFFFFFFFF):
        assert refusal(MODELS[kind], replace(RECEIVER, running_version=version)) is Refusal.VERSION


def test_a_change_of_keys_has_a_sequence_of_its_own() -> None:
    assert refusal(CONTAINERS["keys"], replace(RECEIVER, running_version=0xFFFFFFFF)) is Refusal.NONE
    assert refusal(CONTAINERS["keys"], replace(RECEIVER, keys_version=2)) is Refusal.VERSION
    assert refusal(CONTAINERS["full"], replace(RECEIVER, keys_version=7)) is Refusal.NONE


@pytest.mark.parametrize("kind", ["head", "delta", "personal"])
def test_what_needs_a_base_is_refused_without_it(kind: str) -> None:
    assert refusal(MODELS[kind], replace(RECEIVER, running_image=None)) is Refusal.BASE
    assert refusal(MODELS[kind], replace(RECEIVER, running_image=model(9))) is Refusal.BASE


def test_a_delta_and_a_personal_head_need_the_very_model_not_only_its_backbone() -> None:
    other = replace(RECEIVER, running_image=improved(head=5))
    assert refusal(CONTAINERS["head"], other) is Refusal.NONE
    assert refusal(CONTAINERS["delta"], other) is Refusal.BASE
    assert refusal(CONTAINERS["personal"], other) is Refusal.BASE


def test_only_trusted_keys_sign() -> None:
    forged = sign(build_full(improved(), 2), THIEF_SECRET)
    assert refusal(forged) is Refusal.SIGNATURE
    assert refusal(forged, replace(RECEIVER, public_keys=(PUBLIC, THIEF_PUBLIC))) is Refusal.NONE
    assert refusal(CONTAINERS["full"], replace(RECEIVER, public_keys=(NO_KEY, NO_KEY))) is Refusal.SIGNATURE
    renamed = forged[:2] + CONTAINERS["full"][2:3] + forged[3:]
    assert refusal(renamed) is Refusal.SIGNATURE


def test_a_personal_head_is_for_one_node_with_one_key_alone() -> None:
    personal = CONTAINERS["personal"]
    assert refusal(personal, replace(RECEIVER, dev_eui="70b3d57ed0000002")) is Refusal.SIGNATURE
    assert refusal(personal, replace(RECEIVER, update_key=bytes(range(1, 17)))) is Refusal.SIGNATURE
    assert refusal(personal, replace(RECEIVER, update_key=bytes(16))) is Refusal.SIGNATURE
    with pytest.raises(ContainerError):
        authenticate(build_personal(improved(), model(), 2), bytes(16), DEV_EUI)
    with pytest.raises(ContainerError):
        authenticate(build_head(improved(), 2), UPDATE_KEY, DEV_EUI)
    with pytest.raises(ContainerError):
        sign(build_personal(improved(), model(), 2), SECRET)


def test_a_personal_head_is_proven_as_the_formats_say() -> None:
    """A known answer, computed here from the description alone."""
    personal = CONTAINERS["personal"]
    covered = personal[:-TAG_SIZE] + bytes.fromhex(DEV_EUI) + model().model_id.to_bytes(4, "little")
    assert personal[-TAG_SIZE:] == hashlib.blake2b(covered, digest_size=8, key=UPDATE_KEY).digest()


def keys_by(secret: bytes, place: int, key: bytes, version: int = 2) -> bytes:
    return sign(build_keys(KeyChange(place, key), version), secret)


def test_who_may_change_which_key() -> None:
    assert refusal(keys_by(SECRET, RELEASE_KEY, NEW_PUBLIC)) is Refusal.NONE
    assert refusal(keys_by(RECOVERY_SECRET, RELEASE_KEY, NEW_PUBLIC)) is Refusal.NONE
    assert refusal(keys_by(RECOVERY_SECRET, RECOVERY_KEY, NEW_PUBLIC)) is Refusal.NONE
    assert refusal(keys_by(SECRET, RECOVERY_KEY, NEW_PUBLIC)) is Refusal.BASE, "a thief would lock the owner out"
    assert refusal(keys_by(NEW_SECRET, RELEASE_KEY, NEW_PUBLIC)) is Refusal.SIGNATURE
    alone = replace(RECEIVER, public_keys=(PUBLIC, NO_KEY))
    assert refusal(keys_by(SECRET, RECOVERY_KEY, NEW_PUBLIC), alone) is Refusal.NONE, "the first recovery key"


def test_a_node_never_trusts_nobody() -> None:
    alone = replace(RECEIVER, public_keys=(PUBLIC, NO_KEY))
    assert refusal(keys_by(SECRET, RELEASE_KEY, NO_KEY), alone) is Refusal.BASE
    assert refusal(keys_by(RECOVERY_SECRET, RELEASE_KEY, NO_KEY)) is Refusal.NONE, "revoked, the other remains"
    assert refusal(keys_by(RECOVERY_SECRET, RELEASE_KEY, RECOVERY_PUBLIC)) is Refusal.BASE


def test_a_signed_mistake_is_still_refused() -> None:
    full = build_full(improved(), 2)
    assert refusal(sign(replace(full, payload=full.payload + bytes([1] * 200)), SECRET)) is Refusal.DECODE
    assert refusal(sign(replace(full, model_id=7), SECRET)) is Refusal.MODEL_ID
    assert refusal(sign(replace(full, payload=full.payload[:300]), SECRET)) in {Refusal.MODEL_ID, Refusal.DECODE}
    keys = build_keys(NEW_KEY, 2)
    assert refusal(sign(replace(keys, payload=keys.payload[:-1]), SECRET)) is Refusal.DECODE
    assert refusal(sign(replace(keys, payload=b"\2" + keys.payload[1:]), SECRET)) is Refusal.DECODE
    assert refusal(sign(replace(keys, model_id=1), SECRET)) is Refusal.MODEL_ID


def test_an_unsupported_format_or_kind_is_refused_before_its_signature() -> None:
    full = CONTAINERS["full"]
    assert refusal(b"\x11" + full[1:]) is Refusal.FORMAT
    assert refusal(b"\x26" + full[1:]) is Refusal.FORMAT
    assert refusal(b"\x20" + full[1:]) is Refusal.FORMAT


def test_only_what_fits_the_fields_is_built() -> None:
    with pytest.raises(ContainerError):
        sign(build_full(improved(), 2), SECRET[:32])
    with pytest.raises(ContainerError):
        Container(ContainerKind.FULL, 300, 0, 1, 0, 0, b"").proven_bytes()
    with pytest.raises(ContainerError):
        Container(ContainerKind.FULL, 3, 0, 1, 0, 0, bytes(1025)).proven_bytes()
    with pytest.raises(ContainerError):
        authenticate(build_personal(improved(), model(), 65_536), UPDATE_KEY, DEV_EUI)
    with pytest.raises(ContainerError):
        build_personal(improved(9), model(), 2)
    with pytest.raises(ContainerError):
        build_delta(ModelImage(replace(improved().first, multiplier=1 << 30), improved().second, improved().head),
                    model(), 2)  # fmt: skip


def test_the_signature_covers_everything_before_it() -> None:
    full = CONTAINERS["full"]
    assert len(full) == HEADER_SIZE + len(read_container(full).payload) + SIGNATURE_SIZE
