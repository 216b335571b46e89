"""TensorFlow goes on from a row of numbers, on the running model's grid, with every changed number held back.

What learns is the *change*, number by number, in units of the grid. Rounding is part of the forward pass (gradients go
straight through, Jacob et al. 2018), and after each step of Adam a proximal step pulls every number toward the running
one, back to it where the gradient has not paid for the way (soft threshold, the L1 penalty's proximal operator; Parikh
and Boyd 2014): most numbers never leave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from server.refresh.grid import (
    FIRST,
    FIRST_BIAS,
    HEAD,
    HEAD_BIAS,
    SECOND,
    SECOND_BIAS,
    Floats,
    Grid,
    Integers,
    split,
)
from server.refresh.lessons import Lessons
from server.training.network import HUBER_DELTA

Tensor: TypeAlias = Any
"""TensorFlow ships no types."""

LEARNING_RATE = 0.01
PULL = 0.02
"""Of the proximal step, in learning rates: the L1 penalty per unit of change, with a loss of 1 per target."""
UNITS = {FIRST: 32.0, FIRST_BIAS: 2048.0, SECOND: 64.0, SECOND_BIAS: 2048.0, HEAD: 32.0, HEAD_BIAS: 2048.0}
"""What one unit of change is in a number's integers, so that all learn at one pace."""


def retrain(
    grid: Grid,
    parts: Sequence[Lessons],
    targets: Sequence[int],
    start: Integers,
    epochs: int,
    batch: int,
    seed: int,
    on_epoch: Callable[[str], None],
) -> Integers:
    """The row that training arrives at; deterministic by ``seed``.

    Args:
        grid: The running model's.
        parts: What to learn from, by simulator.
        targets: Rows of the head that learn.
        start: A row to go on from.
        epochs: Over all windows.
        batch: Windows of one step.
        seed: Of the batches.
        on_epoch: Called after each epoch with a line of progress.
    """
    import tensorflow as tf  # heavy, and only this process needs it

    tf.keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    rng = np.random.default_rng([0x7266, seed])
    units = np.concatenate([np.full(part.size, UNITS[index]) for index, part in enumerate(split(grid.numbers))])
    change = tf.Variable(((start - grid.numbers) / units).astype(np.float32))
    network = _Network(tf, grid, units, targets)
    features = np.concatenate([part.features for part in parts]).astype(np.float32)
    scale = np.sqrt(np.mean([part.running for part in parts], axis=0)).astype(np.float32)
    labels = np.concatenate([part.labels for part in parts]).astype(np.float32) / scale
    # Each simulator and each target weighs as much as any other.
    weights = np.concatenate([part.weights for part in parts]).astype(np.float32)
    weights *= len(features) / len(parts)
    optimiser = tf.keras.optimizers.Adam(LEARNING_RATE)
    free = tf.constant(grid.changeable.astype(np.float32))

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def learn(inputs: Tensor, wanted: Tensor, weight: Tensor, rate: Tensor) -> Tensor:
        with tf.GradientTape() as tape:
            error = tf.abs(network.outputs(change, inputs) / scale - wanted)
            huber = tf.where(error < HUBER_DELTA, 0.5 * error**2, HUBER_DELTA * (error - 0.5 * HUBER_DELTA))
            loss = tf.reduce_mean(tf.reduce_sum(huber * weight, axis=1))
        optimiser.apply_gradients([(tape.gradient(loss, change) * free, change)])
        kept = tf.maximum(tf.abs(change) - PULL * rate, 0.0)
        change.assign(tf.sign(change) * kept * free)
        return loss

    for epoch in range(epochs):
        rate = LEARNING_RATE * (0.02 + 0.49 * (1 + np.cos(np.pi * epoch / epochs)))
        optimiser.learning_rate.assign(rate)
        order, total, steps = rng.permutation(len(features)), 0.0, 0
        for rows in np.split(order, range(batch, len(order), batch)):
            inputs, wanted, weight = (tf.constant(array[rows]) for array in (features, labels, weights))
            total, steps = total + float(learn(inputs, wanted, weight, tf.constant(rate, tf.float32))), steps + 1
        on_epoch(f"loss {total / max(steps, 1):.4f}")
    return grid.clipped(grid.numbers + change.numpy().astype(np.float64) * units)


class _Network:
    """The forward pass in steps, rounding included, of the running numbers and a change."""

    def __init__(self, tf: Any, grid: Grid, units: Floats, targets: Sequence[int]) -> None:  # noqa: ANN401
        self._tf, self._grid, self._targets = tf, grid, list(targets)
        self._numbers = tf.constant(grid.numbers.astype(np.float32))
        self._units = tf.constant(units.astype(np.float32))
        self._limits = tf.constant(grid.limits.astype(np.float32))
        self._sizes = [part.shape for part in split(grid.numbers)]

    def outputs(self, change: Tensor, features: Tensor) -> Tensor:
        """(n, T) in output steps."""
        tf, base = self._tf, self._grid.base
        row = tf.clip_by_value(self._rounded(self._numbers + change * self._units), -self._limits, self._limits)
        flat = tf.split(row, [int(np.prod(size)) for size in self._sizes])
        parts = [tf.reshape(part, size) for part, size in zip(flat, self._sizes, strict=True)]
        values = features - float(base.first.input_zero)
        for layer, weight, bias in ((base.first, *parts[:2]), (base.second, *parts[2:4])):
            steps = (values @ tf.transpose(weight) + bias) * layer.scale
            values = self._rounded(tf.clip_by_value(steps, 0.0, float(127 - layer.output_zero)))
        weight, bias = (tf.gather(part, self._targets) for part in parts[4:])
        return (values @ tf.transpose(weight) + bias) * base.head.scale

    def _rounded(self, values: Tensor) -> Tensor:
        """Rounded going forward, untouched going back."""
        return values + self._tf.stop_gradient(self._tf.round(values) - values)
