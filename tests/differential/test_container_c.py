"""The firmware opens and refuses exactly what the reference does, with the same code."""

from __future__ import annotations

import ctypes
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
)
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import improved, model
from update_cases import LIBRARY, Flash, Node, provision

from shared_models.codes import Board, EventCode, Refusal
from shared_models.container import (
    Container,
    ContainerError,
    ContainerKind,
    KeyChange,
    Receiver,
    authenticate,
    build_delta,
    build_full,
    build_head,
    build_keys,
    build_personal,
    open_container,
    sign,
)
from shared_models.network import IMAGE_BYTES, ModelImage

FULL, HEAD = CONTAINERS["full"], CONTAINERS["head"]
KINDS = pytest.mark.parametrize("kind", CONTAINERS)


class Trust(ctypes.Structure):
    _fields_ = (
        ("public_keys", ctypes.c_char_p),
        ("update_key", ctypes.c_char_p),
        ("dev_eui", ctypes.c_char_p),
        ("running", ctypes.c_char_p),
        ("highest_version", ctypes.c_uint32),
        ("keys_version", ctypes.c_uint32),
        ("board", ctypes.c_uint8),
    )


class Release(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_uint32),
        ("model_id", ctypes.c_uint32),
        ("key", ctypes.c_void_p),
        ("key_place", ctypes.c_uint8),
    )


def opened(data: bytes, receiver: Receiver) -> tuple[ModelImage | KeyChange | None, Refusal]:
    """What the reference says."""
    try:
        return open_container(data, receiver), Refusal.NONE
    except ContainerError as error:
        return None, error.refusal


def agreed(data: bytes, receiver: Receiver = RECEIVER) -> Refusal:
    """What both say; their disagreement fails the test."""
    running = receiver.running_image
    trust = Trust(
        b"".join(receiver.public_keys),
        receiver.update_key,
        bytes.fromhex(receiver.dev_eui),
        running.pack() if running else None,
        receiver.running_version,
        receiver.keys_version,
        receiver.board,
    )
    image, release = ctypes.create_string_buffer(IMAGE_BYTES), Release()
    kept = ctypes.create_string_buffer(data, max(len(data), 1))  # the new key is read in place
    code = LIBRARY.noria_container_open(
        kept, ctypes.c_size_t(len(data)), ctypes.byref(trust), image, ctypes.byref(release)
    )
    restored, refusal = opened(data, receiver)
    assert Refusal(code) is refusal
    if restored is None:
        return refusal
    if isinstance(restored, KeyChange):
        assert release.key is not None
        assert (release.key_place, ctypes.string_at(release.key, 32)) == (restored.place, restored.key)
    else:
        assert release.key is None
        assert image.raw == restored.pack()
    return Refusal.NONE


@KINDS
def test_a_container_opens(kind: str) -> None:
    assert agreed(CONTAINERS[kind]) is Refusal.NONE
    assert agreed(CONTAINERS[kind], replace(RECEIVER, board=Board.STM32L432)) is Refusal.NONE


@KINDS
def test_every_byte_flip_is_refused_alike(kind: str) -> None:
    data = CONTAINERS[kind]
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        assert agreed(bytes(damaged)) is not Refusal.NONE


@KINDS
def test_every_truncation_is_refused_alike(kind: str) -> None:
    data = CONTAINERS[kind]
    assert Refusal.NONE not in {agreed(data[:length]) for length in range(len(data))}
    assert agreed(data + b"\0") is not Refusal.NONE


def test_splices_are_refused_alike() -> None:
    for one, other in itertools.permutations(CONTAINERS.values(), 2):
        for cut in range(1, min(len(one), len(other)), 7):
            assert agreed(one[:cut] + other[cut:]) is not Refusal.NONE


def test_each_reason_is_given_for_what_deserves_it() -> None:
    full, head = build_full(improved(), 2), build_head(improved(), 2)
    assert agreed(b"\x11" + FULL[1:]) is Refusal.FORMAT
    assert agreed(b"\x26" + FULL[1:]) is Refusal.FORMAT
    assert agreed(b"\x20" + FULL[1:]) is Refusal.FORMAT
    assert agreed(sign(build_full(improved(), 2, [Board.STM32L432]), SECRET)) is Refusal.TARGET
    for version in (2, 0xFFFFFFFF):
        for kind in MODELS:
            assert agreed(CONTAINERS[kind], replace(RECEIVER, running_version=version)) is Refusal.VERSION
    assert agreed(CONTAINERS["keys"], replace(RECEIVER, keys_version=2)) is Refusal.VERSION
    for kind in ("head", "delta", "personal"):
        assert agreed(CONTAINERS[kind], replace(RECEIVER, running_image=None)) is Refusal.BASE
        assert agreed(CONTAINERS[kind], replace(RECEIVER, running_image=model(9))) is Refusal.BASE
    assert agreed(sign(replace(full, base_id=1), SECRET)) is Refusal.BASE
    assert agreed(sign(full, THIEF_SECRET)) is Refusal.SIGNATURE
    assert agreed(FULL, replace(RECEIVER, public_keys=(NO_KEY, NO_KEY))) is Refusal.SIGNATURE
    assert agreed(FULL, replace(RECEIVER, public_keys=(THIEF_PUBLIC, NO_KEY))) is Refusal.SIGNATURE
    assert agreed(FULL, replace(RECEIVER, public_keys=(NO_KEY, PUBLIC))) is Refusal.NONE
    assert agreed(sign(replace(full, payload=full.payload + bytes(range(1, 99))), SECRET)) is Refusal.DECODE
    assert agreed(sign(replace(head, model_id=1), SECRET)) is Refusal.MODEL_ID


def test_a_personal_head_is_refused_alike_by_every_other_node() -> None:
    personal = CONTAINERS["personal"]
    assert agreed(personal, replace(RECEIVER, dev_eui="70b3d57ed0000002")) is Refusal.SIGNATURE
    assert agreed(personal, replace(RECEIVER, update_key=bytes(range(1, 17)))) is Refusal.SIGNATURE
    assert agreed(personal, replace(RECEIVER, update_key=bytes(16))) is Refusal.SIGNATURE


@pytest.mark.parametrize("secret", [SECRET, RECOVERY_SECRET, NEW_SECRET], ids=["release", "recovery", "stranger"])
@pytest.mark.parametrize("place", [RELEASE_KEY, RECOVERY_KEY, 2])
@pytest.mark.parametrize(
    "key", [NEW_PUBLIC, PUBLIC, RECOVERY_PUBLIC, NO_KEY], ids=["new", "release", "recovery", "none"]
)
def test_changes_of_keys_are_taken_and_refused_alike(secret: bytes, place: int, key: bytes) -> None:
    change = sign(build_keys(KeyChange(place, key), 2), secret)
    for trusted in ((PUBLIC, RECOVERY_PUBLIC), (PUBLIC, NO_KEY), (NO_KEY, RECOVERY_PUBLIC)):
        agreed(change, replace(RECEIVER, public_keys=trusted))


def test_a_signed_model_without_the_right_form_is_refused() -> None:
    from shared_models.model_coding import encode_model

    wrong = ModelImage(replace(improved().first, multiplier=5), improved().second, improved().head)
    container = Container(ContainerKind.FULL, 3, 0, 2, 0, wrong.model_id, encode_model(wrong))
    assert agreed(sign(container, SECRET)) is Refusal.SELF_TEST


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_alike(data: bytes) -> None:
    assert agreed(data) is not Refusal.NONE


@settings(max_examples=120)
@given(st.binary(max_size=300), st.sampled_from(["full", "delta", "head", "personal"]))
def test_arbitrary_proven_payloads_are_refused_alike(payload: bytes, kind: str) -> None:
    if kind == "personal":
        built = replace(build_personal(improved(), model(), 2), payload=payload)
        data = authenticate(built, UPDATE_KEY, DEV_EUI)
    else:
        builds = {
            "full": build_full(improved(), 2),
            "head": build_head(improved(), 2),
            "delta": build_delta(improved(), model(), 2),
        }
        data = sign(replace(builds[kind], payload=payload), SECRET)
    assert agreed(data) in {Refusal.DECODE, Refusal.MODEL_ID, Refusal.SELF_TEST}


def provisioned(part: str = "L0") -> Node:
    provision(Flash(part), PUBLIC, model().pack())
    return Node()


@pytest.mark.parametrize("kind", MODELS)
def test_a_container_in_one_frame_is_installed(kind: str) -> None:
    node = provisioned()
    node.container(MODELS[kind] if len(MODELS[kind]) <= 219 else MODELS["head"])
    assert not node.active
    assert node.status() == b"", "nobody polls for what came whole"
    assert node.poll()
    assert Node().model == improved().pack()
    assert [event[0] for event in node.events()] == [EventCode.MODEL_ACTIVATED]


def test_a_container_in_one_frame_outlives_a_reset_before_it_is_opened() -> None:
    provisioned().container(CONTAINERS["head"])
    node = Node()
    assert node.version == 1
    assert node.poll()
    assert node.version == 2


def test_on_probation_a_container_is_put_off_and_a_change_of_keys_is_not() -> None:
    node = provisioned()
    node.container(HEAD)
    assert node.poll()
    node.events()
    later = sign(build_full(improved(head=5), 3), SECRET)
    node.container(sign(build_head(improved(head=5), 3), SECRET))
    assert not node.poll()
    assert node.events() == [(EventCode.UPDATE_REFUSED, Refusal.BUSY, 3)]
    node.container(sign(build_keys(NEW_KEY, 4), SECRET))
    assert not node.poll()
    assert node.events() == [(EventCode.KEYS_CHANGED, Refusal.NONE, 4)]
    assert node.on_probation
    assert node.version == 2
    node.probation(0, 0, 8)
    assert not node.receive(later, 3), "by the old key"
    assert node.receive(sign(build_full(improved(head=5), 3), NEW_SECRET), 3)


def test_a_refused_container_in_one_frame_is_told() -> None:
    node = provisioned()
    node.container(sign(build_head(improved(), 2), THIEF_SECRET))
    assert not node.poll()
    assert node.events() == [(EventCode.UPDATE_REFUSED, Refusal.SIGNATURE, 2)]
    for data in (b"", b"\x21", bytes(15), bytes(220), bytes(222)):
        node.container(data)
    assert not node.poll(), "what is no container or too long"


def test_a_changed_key_holds_through_resets_and_cannot_be_changed_back() -> None:
    node = provisioned("L4")
    change = sign(build_keys(NEW_KEY, 7), SECRET)
    node.container(change)
    assert not node.poll()
    node = Node()
    node.container(sign(build_head(improved(), 8), SECRET))
    assert not node.poll(), "the old key signs nothing any more"
    node.container(change)
    assert not node.poll()
    assert [event[1] for event in node.events()] == [Refusal.SIGNATURE, Refusal.VERSION]
    node.container(sign(build_head(improved(), 8), NEW_SECRET))
    assert node.poll()
    assert Node().version == 8


def test_a_thief_who_used_up_all_versions_is_shut_out_by_the_recovery_key() -> None:
    flash = Flash("L0")
    provision(flash, PUBLIC, model().pack(), recovery_key=RECOVERY_PUBLIC)
    node = Node()
    node.container(sign(build_head(improved(), 0xFFFFFFFF), SECRET))
    assert node.poll()
    assert node.probation(1000, 10, 8), "harmful: rolled back"
    node.container(sign(build_head(improved(head=4), 3), RECOVERY_SECRET))
    assert not node.poll(), "no version is newer"
    node.container(sign(build_keys(NEW_KEY, 2), RECOVERY_SECRET))
    assert not node.poll()
    node.events()
    node.container(sign(build_head(improved(head=4), 3), NEW_SECRET))
    assert node.poll()
    assert node.version == 3


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


def test_probation_returns_to_a_model_before_that_was_better_still() -> None:
    for rival, kept in ((800, False), (1000, True)):
        provision(Flash("L0"), PUBLIC, model().pack())
        node = Node()
        assert node.receive(HEAD, 2)
        assert node.probation(1100, 2000, 8, rival_energy=rival) is not kept
        assert node.version == (2 if kept else 1)
        assert not node.on_probation


def test_a_model_far_worse_goes_after_three_dry_downs() -> None:
    for energy, windows, kept in ((1251, 2, True), (1250, 3, True), (1251, 3, False), (1251, 7, False)):
        provision(Flash("L0"), PUBLIC, model().pack())
        node = Node()
        assert node.receive(HEAD, 2)
        assert node.probation(energy, 1000, windows) is not kept
        assert node.on_probation is kept
        assert node.version == (2 if kept else 1)


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
