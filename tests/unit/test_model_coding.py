"""A model comes back bit by bit, whatever it was told as, and changes cost what changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import improved, model

from shared_models.factory import factory_image
from shared_models.model_coding import decode_head, decode_model, encode_head, encode_model
from shared_models.network import ACTIVATIONS, BIAS_LIMIT, OUTPUTS, Layer, ModelError, ModelImage, quantise_head
from shared_models.recompression import RecompressionError


def random_image(seed: int, *, extreme: bool = False) -> ModelImage:
    """Anything a model can be."""
    random = np.random.default_rng(seed)

    def layer(inputs: int, outputs: int, input_zero: int, output_zero: int) -> Layer:
        weights = (
            random.choice([-128, 127, 0], (outputs, inputs))
            if extreme
            else random.integers(-128, 128, (outputs, inputs))
        )
        bias = random.integers(-BIAS_LIMIT, BIAS_LIMIT + 1, outputs)
        rescaling = (int(random.integers(1 << 30, 1 << 31)), -int(random.integers(0, 32)))
        return Layer(weights.astype(np.int8), bias.astype(np.int32), *rescaling, input_zero, output_zero)

    zeros = [int(zero) for zero in random.integers(-128, 128, 3)]
    return ModelImage(layer(24, 16, zeros[0], zeros[1]), layer(16, 8, zeros[1], zeros[2]), layer(8, 4, zeros[2], 0))


def on_the_grid_of(base: ModelImage, other: ModelImage) -> ModelImage:
    """The numbers of another model on the base's quantisation grid."""
    pairs = ((base.first, other.first), (base.second, other.second))
    first, second = (replace(mine, weights=theirs.weights, bias=theirs.bias) for mine, theirs in pairs)
    return ModelImage(first, second, replace(other.head, input_zero=second.output_zero))


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(0, 2**32), st.booleans())
def test_every_model_is_restored(seed: int, base_seed: int, extreme: bool) -> None:  # noqa: FBT001
    image, base = random_image(seed, extreme=extreme), random_image(base_seed)
    assert decode_model(encode_model(image)).pack() == image.pack()
    assert decode_head(encode_head(image), image).pack() == image.pack()
    changed = on_the_grid_of(base, image)
    assert decode_model(encode_model(changed, base), base).pack() == changed.pack()
    head = replace(base, head=replace(image.head, input_zero=base.second.output_zero))
    assert decode_head(encode_head(head, base), base, base).pack() == head.pack()


def test_a_change_of_the_head_alone_on_its_own_scale_is_told_as_differences() -> None:
    base = improved()
    moved = replace(base.head, weights=(base.head.weights + np.eye(OUTPUTS, ACTIVATIONS)).astype(np.int8))
    image = replace(base, head=moved)
    assert len(encode_head(image, base)) < len(encode_head(image)) / 2
    assert decode_head(encode_head(image, base), base, base).pack() == image.pack()


def test_no_change_at_all_costs_next_to_nothing() -> None:
    assert len(encode_model(improved(), improved())) <= 16


def test_a_dozen_changed_weights_and_a_new_head_fit_a_signed_frame_at_dr3() -> None:
    base, random = factory_image(), np.random.default_rng(3)
    weights = base.first.weights.copy()
    weights.ravel()[random.choice(weights.size, 12, replace=False)] = random.integers(-40, 41, 12)
    refreshed = ModelImage(replace(base.first, weights=weights), base.second, base.head)
    head = np.hstack([random.normal(0, 0.1, (OUTPUTS, ACTIVATIONS)), random.normal(0, 9, (OUTPUTS, 1))])
    assert len(encode_model(quantise_head(refreshed, head), base)) <= 222 - 79


def test_another_grid_is_no_change() -> None:
    with pytest.raises(RecompressionError, match="rescaling"):
        encode_model(random_image(1), random_image(2))


@settings(max_examples=200)
@given(st.binary(max_size=200), st.sampled_from(["full", "delta", "head", "personal"]))
def test_any_payload_ends_in_a_model_or_a_refusal(payload: bytes, kind: str) -> None:
    base = model()
    try:
        if kind in ("full", "delta"):
            restored = decode_model(payload, base if kind == "delta" else None)
        else:
            restored = decode_head(payload, base, base if kind == "personal" else None)
    except (RecompressionError, ModelError):
        return
    assert ModelImage.unpack(restored.pack()).pack() == restored.pack()
