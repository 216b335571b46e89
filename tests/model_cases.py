"""Models and keys for tests of the update path: reproducible, of realistic shape."""

from __future__ import annotations

import warnings
from functools import cache

import monocypher
import numpy as np

from shared_models.network import ACTIVATIONS, HIDDEN, INPUTS, OUTPUTS, Layer, ModelImage, quantise_head
from shared_models.network import quantise_multiplier as rescaling


def key_pair(seed: int) -> tuple[bytes, bytes]:
    """A signing key (64 bytes) and its public key (32 bytes) from a number."""
    secret = bytes([seed]) * 32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        public = monocypher.compute_signing_public_key(secret)
    return secret + public, public


@cache
def model(seed: int = 1) -> ModelImage:
    """A model with bell-shaped weights."""
    random = np.random.default_rng(seed)

    def layer(inputs: int, outputs: int, input_zero: int, output_zero: int) -> Layer:
        weights = np.clip(np.rint(random.normal(0, 35, (outputs, inputs))), -127, 127).astype(np.int8)
        bias = random.normal(0, 1500, outputs).astype(np.int32)
        return Layer(weights, bias, *rescaling(0.004), input_zero, output_zero)

    return ModelImage(
        layer(INPUTS, HIDDEN, -3, -128), layer(HIDDEN, ACTIVATIONS, -128, -128), layer(ACTIVATIONS, OUTPUTS, -128, 0)
    )


@cache
def improved(seed: int = 1, head: int = 2) -> ModelImage:
    """The same backbone under another head."""
    return quantise_head(model(seed), np.random.default_rng(head).normal(0, 0.1, (OUTPUTS, ACTIVATIONS + 1)))
