"""A model image survives its journey exactly, and nothing damaged passes as one."""

from __future__ import annotations

import random

import numpy as np
import pytest
from core_cases import random_model

from shared_models.network import (
    HEAD_BYTES,
    HEAD_OFFSET,
    IMAGE_BYTES,
    ModelError,
    ModelImage,
    head_weights,
    quantise_head,
    quantise_multiplier,
    zero_head,
)


def test_an_image_packs_and_unpacks_to_itself() -> None:
    image = random_model(1)
    packed = image.pack()
    again = ModelImage.unpack(packed)
    assert len(packed) == IMAGE_BYTES <= 1024
    assert again.pack() == packed
    assert (again.model_id, again.backbone_id) == (image.model_id, image.backbone_id)


def test_a_damaged_bit_is_noticed_or_makes_another_model_of_the_same_backbone() -> None:
    image = random_model(2)
    packed = image.pack()
    for position in range(0, IMAGE_BYTES * 8, 7):
        damaged = bytearray(packed)
        damaged[position // 8] ^= 1 << position % 8
        try:
            other = ModelImage.unpack(bytes(damaged))
        except ModelError:
            continue
        # Few test vectors do not see every bit of the head. Containers are signed and slots hashed for that.
        assert position // 8 >= HEAD_OFFSET
        assert other.backbone_id == image.backbone_id
        assert other.model_id != image.model_id


@pytest.mark.parametrize("length", [0, 1, IMAGE_BYTES - 1, IMAGE_BYTES + 1, 4096])
def test_other_lengths_are_refused(length: int) -> None:
    with pytest.raises(ModelError, match="bytes"):
        ModelImage.unpack(bytes(length))


def test_random_bytes_are_refused() -> None:
    rng = random.Random(1)
    for _ in range(50):
        with pytest.raises(ModelError):
            ModelImage.unpack(rng.randbytes(IMAGE_BYTES))


def test_a_quantised_head_is_near_the_real_one_and_says_what_it_is() -> None:
    image, rng = random_model(3), np.random.default_rng(0)
    real = rng.normal(0, 0.1, (4, 9))
    quantised = quantise_head(image, real)
    step, error = quantised.head.scale, np.abs(head_weights(quantised) - real)
    assert error[:, :-1].max() <= step / 2 + 1e-12
    assert error[:, -1].max() <= 1 / 32 + 1e-12, "an output step is 1"
    inputs = rng.integers(-128, 128, (200, 24)).astype(np.int8)
    activations, outputs = quantised.forward(inputs)
    exact = quantised.moments_input(activations) @ head_weights(quantised).T
    assert np.abs(np.clip(exact, -128, 127) - outputs).max() <= 0.5 + 1e-6
    assert quantised.backbone_id == image.backbone_id
    assert quantised.model_id != image.model_id


@pytest.mark.parametrize("largest", [52.9, 53.0, 60.0, 62.9, 64.0, 1e6])
def test_a_head_that_no_scale_holds_is_refused_and_any_other_is_a_model(largest: float) -> None:
    real = np.full((4, 9), largest)
    if largest / 63 > 2.0**-0.25:
        with pytest.raises(ModelError):
            quantise_head(random_model(3), real)
    else:
        image = quantise_head(random_model(3), real)
        assert ModelImage.unpack(image.pack()).pack() == image.pack()


def test_rounding_errors_are_shared_out_where_the_sums_are_known() -> None:
    image, rng = random_model(3), np.random.default_rng(2)
    phi = image.moments_input(image.forward(rng.integers(-128, 128, (500, 24)).astype(np.int8))[0])
    gram = np.repeat((phi.T @ phi)[None], 4, axis=0).astype(np.float64)
    lost = {"alone": 0.0, "together": 0.0}
    for _ in range(20):
        real = rng.normal(0, 0.1, (4, 9))
        for name, known in (("alone", None), ("together", gram)):
            lost[name] += float((((head_weights(quantise_head(image, real, known)) - real) @ phi.T) ** 2).sum())
    assert lost["together"] < 0.7 * lost["alone"]


def test_a_zero_head_is_exactly_the_physics() -> None:
    inputs = np.random.default_rng(0).integers(-128, 128, (200, 24)).astype(np.int8)
    assert not zero_head(random_model(4)).forward(inputs)[1].any()


def test_a_head_travels_alone_but_only_to_its_own_backbone() -> None:
    image = random_model(5)
    better = quantise_head(image, np.full((4, 9), 0.05))
    assert len(better.head_bytes) == HEAD_BYTES
    assert image.with_head_bytes(better.head_bytes).pack() == better.pack()
    with pytest.raises(ModelError):
        random_model(6).with_head_bytes(better.head_bytes)


@pytest.mark.parametrize("weights", [np.full((4, 9), np.nan), np.full((4, 8), 0.1), np.full((4, 9), 1e6)])
def test_heads_that_cannot_be_are_refused(weights: np.ndarray) -> None:
    with pytest.raises(ModelError):
        quantise_head(random_model(7), weights)


@pytest.mark.parametrize("real", [0.0, 1.0, 2.0, -0.1, 2.0**-40, float("nan")])
def test_rescaling_factors_outside_the_kernel_are_refused(real: float) -> None:
    with pytest.raises(ModelError):
        quantise_multiplier(real)
