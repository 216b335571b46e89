"""Known answers: containers of fixed models and keys, byte by byte. Who changes the format changes these on purpose."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import replace

import monocypher
import numpy as np
import pytest

from shared_models.codes import Board
from shared_models.container import (
    RELEASE_KEY,
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
from shared_models.network import Layer, ModelImage, grid_scale

SEED = bytes(range(32))
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    PUBLIC = bytes(monocypher.compute_signing_public_key(SEED))
SECRET = SEED + PUBLIC
UPDATE_KEY, DEV_EUI = bytes(range(100, 116)), "0123456789abcdef"


def pattern(inputs: int, outputs: int, step: int, zeros: tuple[int, int]) -> Layer:
    """Numbers from a rule, so that no generator stands between this and the answers."""
    weights = (np.arange(outputs * inputs) * step % 41 - 20).reshape(outputs, inputs)
    bias = (np.arange(outputs) * 97 * step % 4001 - 2000) * 4
    return Layer(weights.astype(np.int8), bias.astype(np.int32), *grid_scale(29), *zeros)


BASE = ModelImage(pattern(24, 16, 7, (0, -128)), pattern(16, 8, 11, (-128, -128)), pattern(8, 4, 13, (-128, 0)))
HEAD = replace(BASE, head=pattern(8, 4, 17, (-128, 0)))
CHANGED = replace(HEAD, first=replace(BASE.first, bias=BASE.first.bias + np.int32(8)))

CONTAINERS = {
    "full": sign(build_full(BASE, 2), SECRET),
    "head": sign(build_head(HEAD, 3), SECRET),
    "delta": sign(build_delta(CHANGED, BASE, 4), SECRET),
    "personal": authenticate(build_personal(HEAD, BASE, 5), UPDATE_KEY, DEV_EUI),
    "keys": sign(build_keys(KeyChange(RELEASE_KEY, bytes(range(50, 82))), 6), SECRET),
}
ANSWERS = {
    "full": (538, "b6e1f657cff5522305c2d60e7e87af56"),
    "head": (116, "4c0ca034845d5be6fe77ba90a6dbfab9"),
    "delta": (128, "d0acea2f57fe4ecd37842cd04d67e1a2"),
    "personal": (52, "49aa00506c24e1e1e675063b0ecef79b"),
    "keys": (112, "20549af65c229ecc6d9c9dd4b85e2737"),
}
"""Length, and BLAKE2b-128 of the container."""


@pytest.mark.parametrize("kind", CONTAINERS)
def test_the_container_is_what_it_always_was(kind: str) -> None:
    data = CONTAINERS[kind]
    assert (len(data), hashlib.blake2b(data, digest_size=16).hexdigest()) == ANSWERS[kind]


def test_the_smallest_ones_byte_by_byte() -> None:
    assert CONTAINERS["personal"].hex() == PERSONAL
    assert CONTAINERS["keys"].hex() == KEYS


def test_they_open() -> None:
    receiver = Receiver(Board.STM32L432, (PUBLIC, bytes(32)), 1, BASE, 0, DEV_EUI, UPDATE_KEY)
    expected = {"full": BASE, "head": HEAD, "delta": CHANGED, "personal": HEAD}
    for kind, image in expected.items():
        opened = open_container(CONTAINERS[kind], receiver)
        assert isinstance(opened, ModelImage)
        assert opened.pack() == image.pack()
    assert open_container(CONTAINERS["keys"], receiver) == KeyChange(RELEASE_KEY, bytes(range(50, 82)))


PERSONAL = "243a05008caaf60c0e97be9c314ed88a3f3a50f717b65bc1c0e48ee1a21274eec76095f5ef9e33fc92ab3b6c6a2b1dfe4723a4bc"
KEYS = (
    "2503150600000000000000d2f184e40032333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f5051"
    "f3f16bb9f1b7b66658d05b2136f5837b1e8fa03311e2edeb370cdbce3a16655941273cdb4db9e01780c6e1130d50d90d"
    "63900be53f118068c1c0720051afd60f"
)
