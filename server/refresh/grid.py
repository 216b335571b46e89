"""A model as one row of integers on a grid that stays: what a refresh changes, number by number.

Multipliers, shifts and zero points are the running model's, so that a change of a model *is* a few changed integers,
which is what travels. The row holds, layer by layer as the image does, weights and then biases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shared_models.moments import TARGETS
from shared_models.network import ACTIVATIONS, BIAS_LIMIT, HIDDEN, INPUTS, Layer, ModelImage

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

WEIGHT_LIMIT = 127
_SHAPES = ((HIDDEN, INPUTS), (HIDDEN,), (ACTIVATIONS, HIDDEN), (ACTIVATIONS,), (TARGETS, ACTIVATIONS), (TARGETS,))
_STARTS = np.concatenate([[0], np.cumsum([int(np.prod(shape)) for shape in _SHAPES])])
NUMBERS = int(_STARTS[-1])
BACKBONE_NUMBERS = int(_STARTS[4])
"""Those of the two hidden layers come first."""
FIRST, FIRST_BIAS, SECOND, SECOND_BIAS, HEAD, HEAD_BIAS = range(6)


def split(row: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    """The parts of a row, as views: weights and biases of each layer."""
    return [
        row[first:last].reshape(shape) for first, last, shape in zip(_STARTS[:-1], _STARTS[1:], _SHAPES, strict=True)
    ]


def place(part: int, *index: int) -> int:
    """Where in the row an entry of a part stands."""
    return int(_STARTS[part] + np.ravel_multi_index(index, _SHAPES[part]))


@dataclass(frozen=True, eq=False)
class Grid:
    """The running model's grid."""

    base: ModelImage

    @cached_property
    def numbers(self) -> Integers:
        """The running model's row."""
        layers = (self.base.first, self.base.second, self.base.head)
        parts = [part.astype(np.int64).ravel() for layer in layers for part in (layer.weights, layer.bias)]
        return np.concatenate(parts)

    @cached_property
    def limits(self) -> Integers:
        """The largest magnitude of each number."""
        limits = np.full(NUMBERS, WEIGHT_LIMIT, np.int64)
        for part in (FIRST_BIAS, SECOND_BIAS, HEAD_BIAS):
            split(limits)[part][:] = BIAS_LIMIT
        return limits

    @cached_property
    def changeable(self) -> Mask:
        """Numbers that a refresh may change: none that the uptake row hears, for only closed loops judge that one."""
        free = np.ones(NUMBERS, np.bool_)
        first, first_bias, second, second_bias, head, head_bias = split(free)
        head[0], head_bias[0] = False, False
        heard = self.base.head.weights[0] != 0
        second[heard], second_bias[heard] = False, False
        feeding = (self.base.second.weights[heard] != 0).any(axis=0)
        first[feeding], first_bias[feeding] = False, False
        return free

    @cached_property
    def spare_units(self) -> list[int]:
        """Units of the first layer that nothing listens to."""
        return [int(unit) for unit in np.flatnonzero(~self.base.second.weights.any(axis=0))]

    def image(self, numbers: Integers) -> ModelImage:
        """The model that a row is."""
        parts = split(numbers)
        layers = [
            replace_numbers(layer, parts[2 * index], parts[2 * index + 1])
            for index, layer in enumerate((self.base.first, self.base.second, self.base.head))
        ]
        return ModelImage(*layers)

    def clipped(self, numbers: Floats | Integers) -> Integers:
        """The nearest row that an image can hold."""
        return np.clip(np.rint(numbers), -self.limits, self.limits).astype(np.int64)

    def phi(self, numbers: Integers, features: Floats) -> Floats:
        """φ (n, 9) of windows under a row: :meth:`ModelImage.forward` in exact floats, which is faster.

        An accumulator times a 31-bit multiplier stays below 2⁵³ for any weights an image holds on inputs of 8 bits.
        """
        first, first_bias, second, second_bias, _, _ = split(numbers)
        hidden = _layer(self.base.first, features - self.base.first.input_zero, first, first_bias)
        active = _layer(self.base.second, hidden, second, second_bias)
        return np.concatenate([active, np.ones((len(active), 1))], axis=1)

    def head_rows(self, numbers: Integers) -> Floats:
        """The head (4, 9) of a row, in output steps per φ."""
        *_, head, bias = split(numbers)
        rows: Floats = self.base.head.scale * np.concatenate([head, bias[:, None]], axis=1).astype(np.float64)
        return rows


def replace_numbers(layer: Layer, weights: NDArray[np.generic], bias: NDArray[np.generic]) -> Layer:
    """A layer of the same grid with other integers."""
    return replace(layer, weights=weights.astype(np.int8), bias=bias.astype(np.int32))


def _layer(layer: Layer, values: Floats, weights: NDArray[np.generic], bias: NDArray[np.generic]) -> Floats:
    """A hidden layer's outputs above their zero point, from inputs above theirs."""
    accumulated = values @ weights.T.astype(np.float64) + bias.astype(np.float64)
    steps: Floats = np.clip(np.floor(accumulated * layer.scale + 0.5), 0, 127 - layer.output_zero)
    return steps
