"""A model as numbers in an update: the whole of it or its head, from nothing or as a change of a base.

Whole model
    Both hidden layers, then the head. From nothing a hidden layer is its multiplier (31 bits), its shift (5 bits,
    negated), the first layer's input zero point (8 bits), its output zero point (8 bits), its biases, its weights. As a
    change of a base the layers' rescaling and zero points are the base's (the frozen grid), and biases and weights are
    differences, most of them zero.
Head
    With a base first one bit: 1 says that the numbers are differences and the scale is the base's. Without, the
    scale: 8 bits, the code c of the factor 2^(−(c + 1)/4), or 128 and then multiplier (31 bits) and shift (5 bits,
    negated). Then the biases, the weights. The second and third dry-down row are coded as what they differ from the
    row before: horizons resemble each other.

Each array of biases or weights begins with 4 bits z, and its numbers are in units of 2^z: weights of fewer than 8 bits,
and biases that were rounded, cost no more than they say. Biases and weights have a model each
(:class:`shared_models.recompression.NumberModel`), fresh for the hidden layers and again for the head. What follows
from the rest does not travel: zero points of layers that meet, the backbone id, and the self-test, which the receiver
computes; the model id, which covers them all, says whether it computed the same. ``core/restore.c`` does the same step
by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

import numpy as np

from shared_models.layout import c_constants
from shared_models.network import (
    ACTIVATIONS,
    BIAS_LIMIT,
    GRID_CODES,
    GRID_PER_OCTAVE,
    HIDDEN,
    INPUTS,
    OUTPUTS,
    Layer,
    ModelError,
    ModelImage,
    grid_scale,
)
from shared_models.recompression import Decoder, Encoder, NumberModel, RecompressionError

OFF_GRID = GRID_CODES
"""The scale code that says: multiplier and shift follow."""
MULTIPLIER_BITS, SHIFT_BITS, SCALE_BITS, ZEROS_BITS = 31, 5, 8, 4
_SHAPES = ((INPUTS, HIDDEN), (HIDDEN, ACTIVATIONS))
FIRST_LIKE = 2
"""The first row of a head that is coded as a difference from the one before it."""


def encode_model(image: ModelImage, base: ModelImage | None = None) -> bytes:
    """The whole model; with ``base`` as a change of it.

    Raises:
        RecompressionError: the base has another grid.
    """
    coder, biases, weights = Encoder(), NumberModel(), NumberModel()
    for layer, before in zip((image.first, image.second), _hidden_layers(base), strict=True):
        if before is None:
            _put_rescaling(coder, layer.multiplier, layer.shift)
            if layer is image.first:
                coder.bits(layer.input_zero & 0xFF, 8)
            coder.bits(layer.output_zero & 0xFF, 8)
        elif replace(before, weights=layer.weights, bias=layer.bias).pack() != layer.pack():
            raise RecompressionError("a change of a model keeps its rescaling and zero points")
        _put_numbers(coder, _differences(layer.bias, None if before is None else before.bias), biases)
        _put_numbers(coder, _differences(layer.weights, None if before is None else before.weights), weights)
    return _finish_with_head(coder, image, base)


def encode_head(image: ModelImage, base: ModelImage | None = None) -> bytes:
    """The head alone; with ``base``, which has the same backbone, as a change of its head where that is shorter."""
    return _finish_with_head(Encoder(), image, base)


def decode_model(payload: bytes, base: ModelImage | None = None) -> ModelImage:
    """Restore what :func:`encode_model` was given.

    Raises:
        RecompressionError: a number does not fit, or bytes are left over.
        ModelError: the numbers are no model.
    """
    coder, biases, weights = Decoder(payload), NumberModel(), NumberModel()
    layers: list[Layer] = []
    for (inputs, outputs), before in zip(_SHAPES, _hidden_layers(base), strict=True):
        if before is None:
            multiplier, shift = _get_rescaling(coder)
            input_zero = layers[0].output_zero if layers else _signed(coder.bits(8))
            grid = (multiplier, shift, input_zero, _signed(coder.bits(8)))
        else:
            grid = (before.multiplier, before.shift, before.input_zero, before.output_zero)
        bias = _get_numbers(coder, outputs, biases)
        weight = _get_numbers(coder, outputs * inputs, weights)
        layers.append(_layer(grid, bias, weight, before, inputs))
    first, second = layers
    head = _get_head(coder, second.output_zero, base)
    coder.finish()
    return _checked(ModelImage(first, second, head))


def decode_head(payload: bytes, backbone: ModelImage, base: ModelImage | None = None) -> ModelImage:
    """Restore what :func:`encode_head` was given, above ``backbone``'s hidden layers.

    Raises:
        RecompressionError: a number does not fit, or bytes are left over.
        ModelError: the numbers are no model.
    """
    coder = Decoder(payload)
    head = _get_head(coder, backbone.second.output_zero, base)
    coder.finish()
    return _checked(replace(backbone, head=head))


# Heads


def _finish_with_head(coder: Encoder, image: ModelImage, base: ModelImage | None) -> bytes:
    """The shortest block: with a base that has the head's scale there are two ways to say it."""
    ways: list[bytes] = []
    if base is not None and (base.head.multiplier, base.head.shift) == (image.head.multiplier, image.head.shift):
        relative = copy(coder)
        relative.bits(1, 1)
        _put_head_numbers(relative, image.head, base.head)
        ways.append(relative.finish())
    if base is not None:
        coder.bits(0, 1)
    _put_scale(coder, image.head)
    _put_head_numbers(coder, image.head, None)
    ways.append(coder.finish())
    return min(ways, key=len)


def _put_head_numbers(coder: Encoder, head: Layer, base: Layer | None) -> None:
    bias = _differences(head.bias, None if base is None else base.bias)
    weights = _differences(head.weights, None if base is None else base.weights)
    _put_numbers(coder, _unlike(bias, 1), NumberModel())
    _put_numbers(coder, _unlike(weights, ACTIVATIONS), NumberModel())


def _get_head(coder: Decoder, input_zero: int, base: ModelImage | None) -> Layer:
    before = base.head if base is not None and coder.bits(1) else None
    multiplier, shift = (before.multiplier, before.shift) if before is not None else _get_scale(coder)
    bias = _like(_get_numbers(coder, OUTPUTS, NumberModel()), 1)
    weight = _like(_get_numbers(coder, OUTPUTS * ACTIVATIONS, NumberModel()), ACTIVATIONS)
    return _layer((multiplier, shift, input_zero, 0), bias, weight, before, ACTIVATIONS)


def _unlike(values: list[int], width: int) -> list[int]:
    """Rows from :data:`FIRST_LIKE` on less the row before."""
    return [value - values[i - width] if i >= FIRST_LIKE * width else value for i, value in enumerate(values)]


def _like(values: list[int], width: int) -> list[int]:
    """What :func:`_unlike` was given."""
    for i in range(FIRST_LIKE * width, len(values)):
        values[i] += values[i - width]
    return values


# Scales


def _put_scale(coder: Encoder, head: Layer) -> None:
    for code in range(OFF_GRID):
        if grid_scale(code) == (head.multiplier, head.shift):
            coder.bits(code, SCALE_BITS)
            return
    coder.bits(OFF_GRID, SCALE_BITS)
    _put_rescaling(coder, head.multiplier, head.shift)


def _get_scale(coder: Decoder) -> tuple[int, int]:
    code = coder.bits(SCALE_BITS)
    return grid_scale(code) if code < OFF_GRID else _get_rescaling(coder)


def _put_rescaling(coder: Encoder, multiplier: int, shift: int) -> None:
    coder.bits(multiplier, MULTIPLIER_BITS)
    coder.bits(-shift, SHIFT_BITS)


def _get_rescaling(coder: Decoder) -> tuple[int, int]:
    multiplier = coder.bits(MULTIPLIER_BITS)
    return multiplier, -coder.bits(SHIFT_BITS)


# Numbers


def _hidden_layers(base: ModelImage | None) -> tuple[Layer | None, Layer | None]:
    return (None, None) if base is None else (base.first, base.second)


def _put_numbers(coder: Encoder, values: Sequence[int], model: NumberModel) -> None:
    zeros = min([(value & -value).bit_length() - 1 for value in values if value] + [(1 << ZEROS_BITS) - 1])
    coder.bits(zeros, ZEROS_BITS)
    for value in values:
        coder.number(value >> zeros, model)


def _get_numbers(coder: Decoder, count: int, model: NumberModel) -> list[int]:
    zeros = coder.bits(ZEROS_BITS)
    return [coder.number(model) << zeros for _ in range(count)]


def _differences(values: np.ndarray, base: np.ndarray | None) -> list[int]:
    wide = values.astype(np.int64) if base is None else values.astype(np.int64) - base.astype(np.int64)
    return [int(value) for value in wide.ravel()]


def _layer(
    grid: tuple[int, int, int, int], bias: Sequence[int], weights: Sequence[int], base: Layer | None, inputs: int
) -> Layer:
    """A layer from its numbers, or from differences to ``base``'s."""
    bias_of = np.array(bias, object) + (0 if base is None else base.bias.astype(object))
    weights_of = np.array(weights, object).reshape(-1, inputs) + (0 if base is None else base.weights.astype(object))
    if any(not -128 <= value <= 127 for value in weights_of.ravel()):
        raise RecompressionError("a weight does not fit a byte")
    # As the node's arithmetic has it: modulo 2³²; what is out of range there is out of range here.
    wrapped = [(int(value) + (1 << 31)) % (1 << 32) - (1 << 31) for value in bias_of]
    return Layer(weights_of.astype(np.int8), np.array(wrapped, np.int64).astype(np.int32), *grid)


def _checked(image: ModelImage) -> ModelImage:
    """The image, if a node would run it.

    Raises:
        ModelError: a field is out of its range.
    """
    for layer in (image.first, image.second, image.head):
        if not layer.multiplier >= 1 << 30:
            raise ModelError("a layer's rescaling is out of range")
        if np.any(np.abs(layer.bias.astype(np.int64)) > BIAS_LIMIT):
            raise ModelError("a layer's bias is out of range")
    return image


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def c_definitions() -> str:
    """What C must know of this module."""
    multipliers = ", ".join(f"{grid_scale(code)[0]}" for code in range(GRID_PER_OCTAVE))
    constants = {
        "OFF_GRID": OFF_GRID,
        "MULTIPLIER_BITS": MULTIPLIER_BITS,
        "RESCALING_SHIFT_BITS": SHIFT_BITS,
        "SCALE_BITS": SCALE_BITS,
        "ZEROS_BITS": ZEROS_BITS,
        "FIRST_LIKE": FIRST_LIKE,
        "GRID_PER_OCTAVE": GRID_PER_OCTAVE,
    }
    return c_constants(constants) + f"\n#define NORIA_GRID_MULTIPLIERS {{{multipliers}}}\n"
