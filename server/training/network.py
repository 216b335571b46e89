"""The backbone's training in TensorFlow: a float phase, then a phase that sees its own quantisation.

The float network is the quantised one with rounding taken away: int8 features times :data:`INPUT_SCALE`,
two ReLU layers, four linear outputs in the head's output steps. In the second phase weights are rounded
per tensor to int8 and activations to 256 steps, with straight-through gradients (Jacob et al. 2018), so
that what training minimises is what a node will compute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from server.training.samples import Samples
from shared_models.moments import TARGETS
from shared_models.network import ACTIVATIONS, HIDDEN, INPUTS, Layer, ModelImage, quantise_head, quantise_multiplier

INPUT_SCALE = 1 / 32
"""Real value of one step of a feature; any constant will do, this one suits usual initialisers."""
HUBER_DELTA = 1.5
"""In units of a target's root mean square: beyond it a residual pulls with constant force."""
ACTIVATION_QUANTILE = 0.9995
"""Where the activations' range ends; the few above are clamped as they will be on the node."""
LEAST_ACTIVITY = 0.03
"""A unit of the second layer that fires on fewer windows counts as dead."""

START_LEAK = 0.2
IDLENESS_PENALTY = 0.3
"""Federations solve for heads on these units; one that never fires is a direction lost to every farm."""

Float32 = npt.NDArray[np.float32]
Tensor: TypeAlias = Any
"""TensorFlow ships no types."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast."""

    float_epochs: int
    quantised_epochs: int
    batch: int
    learning_rate: float = 4e-3
    weight_decay: float = 5e-4
    restarts: int = 1
    """Initialisations tried; the best on validation without dead units wins."""

    @property
    def epochs(self) -> int:
        """Of all restarts."""
        return self.restarts * (self.float_epochs + self.quantised_epochs)


@dataclass(frozen=True)
class FloatNetwork:
    """Real weights (inputs, outputs), biases, and the two activation ceilings."""

    kernels: tuple[Float32, Float32, Float32]
    biases: tuple[Float32, Float32, Float32]
    ceilings: tuple[float, float]

    def predict(self, features: npt.NDArray[np.int8]) -> Float32:
        """Outputs in output steps (n, 4), without any rounding."""
        values: Float32 = features.astype(np.float32) * np.float32(INPUT_SCALE)
        for kernel, bias, ceiling in zip(self.kernels[:2], self.biases[:2], self.ceilings, strict=True):
            values = np.clip(values @ kernel + bias, 0, ceiling).astype(np.float32)
        outputs: Float32 = values @ self.kernels[2] + self.biases[2]
        return outputs


@dataclass(frozen=True)
class Trained:
    """A trained network and how training went."""

    network: FloatNetwork
    validation_loss: float
    activity: tuple[float, ...]
    """Share of training windows on which each unit of the second layer fires."""

    @property
    def dead_units(self) -> int:
        """Units of the second layer that hardly ever fire."""
        return sum(share < LEAST_ACTIVITY for share in self.activity)


def train_backbone(
    training: Samples, validation: Samples, schedule: Schedule, seed: int, on_epoch: Callable[[str], None]
) -> Trained:
    """The best of ``schedule.restarts`` trainings; deterministic by ``seed``.

    Args:
        training: windows to learn from.
        validation: windows of other seasons, to choose epoch and restart.
        schedule: how long.
        seed: of initialisers and batches.
        on_epoch: called after each epoch with a line of progress.
    """
    attempts = [
        _train_once(training, validation, schedule, seed + 1000 * n, on_epoch) for n in range(schedule.restarts)
    ]
    return min(attempts, key=lambda attempt: (attempt.dead_units, attempt.validation_loss))


def to_image(network: FloatNetwork) -> ModelImage:
    """Quantise to the node's image."""
    scales = [float(np.abs(kernel).max()) / 127 for kernel in network.kernels[:2]]
    steps = [INPUT_SCALE, network.ceilings[0] / 255, network.ceilings[1] / 255]
    layers = []
    for index, scale in enumerate(scales):
        multiplier, shift = quantise_multiplier(steps[index] * scale / steps[index + 1])
        layers.append(
            Layer(
                weights=np.clip(np.rint(network.kernels[index].T / scale), -127, 127).astype(np.int8),
                bias=np.rint(network.biases[index] / (steps[index] * scale)).astype(np.int32),
                multiplier=multiplier,
                shift=shift,
                input_zero=0 if index == 0 else -128,
                output_zero=-128,
            )
        )
    placeholder = Layer(np.zeros((TARGETS, ACTIVATIONS), np.int8), np.zeros(TARGETS, np.int32), 1 << 30, -10, -128, 0)
    head = np.concatenate([network.kernels[2].T * steps[2], network.biases[2][:, None]], axis=1)
    return quantise_head(ModelImage(layers[0], layers[1], placeholder), head)


class _Trainee:
    """The network while it learns: TensorFlow variables and the one forward pass both phases share."""

    def __init__(self, rng: np.random.Generator, spread: Float32) -> None:
        """Draw the weights (He et al. 2015); ``spread`` is each target's root mean square."""
        import tensorflow as tf  # heavy, and only the trainer needs it

        self._tf = tf
        sizes = (INPUTS, HIDDEN, ACTIVATIONS, TARGETS)
        self.kernels = [
            tf.Variable(rng.normal(0, np.sqrt(2 / a), (a, b)).astype(np.float32)) for a, b in pairwise(sizes)
        ]
        self.biases = [tf.Variable(np.full(b, 0.1 if n < 2 else 0.0, np.float32)) for n, b in enumerate(sizes[1:])]
        self.ceilings = [tf.Variable(np.float32(1e9)) for _ in range(2)]
        self.leak = tf.Variable(np.float32(START_LEAK))
        """Slope below zero; shrinks to none, so that no unit dies young."""
        self.quantised = tf.Variable(False)
        self._spread = tf.constant(spread)

    @property
    def variables(self) -> list[Tensor]:
        """What the optimiser moves."""
        return [*self.kernels, *self.biases]

    def snapshot(self) -> list[Float32]:
        """The variables' values."""
        return [variable.numpy() for variable in self.variables]

    def restore(self, values: list[Float32]) -> None:
        """Undo training since the snapshot."""
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs in units of each target's spread, and the second layer's activations."""
        tf = self._tf
        values = features * INPUT_SCALE
        for kernel, bias, ceiling in zip(self.kernels, self.biases, self.ceilings, strict=False):
            step = tf.reduce_max(tf.abs(kernel)) / 127
            values = values @ tf.where(self.quantised, self._rounded(kernel, step), kernel) + bias
            values = tf.maximum(values, self.leak * values)
            limited = self._rounded(tf.clip_by_value(values, 0.0, ceiling), ceiling / 255)
            values = tf.where(self.quantised, limited, values)
        return values @ self.kernels[2] + self.biases[2], values

    def idleness(self, features: Tensor) -> Tensor:
        """How far second-layer units are from firing at all: zero when each fires on about a tenth of the windows."""
        tf = self._tf
        hidden = tf.nn.relu(features * INPUT_SCALE @ self.kernels[0] + self.biases[0])
        mean, variance = tf.nn.moments(hidden @ self.kernels[1] + self.biases[1], axes=[0])
        return tf.reduce_sum(tf.nn.relu(-(mean + 1.3 * tf.sqrt(variance + 1e-6))) ** 2)

    def loss(self, features: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """Huber's loss, the mean over each target's own windows, summed over targets."""
        tf = self._tf
        error = tf.abs(targets / self._spread - self.forward(features)[0])
        huber = tf.where(error < HUBER_DELTA, 0.5 * error**2, HUBER_DELTA * (error - 0.5 * HUBER_DELTA))
        return tf.reduce_sum(tf.reduce_sum(huber * mask, 0) / tf.maximum(tf.reduce_sum(mask, 0), 1.0))

    def quantise(self, features: Tensor) -> None:
        """Fix the activations' ranges from ``features``, layer by layer, and start rounding."""
        tf = self._tf
        self.leak.assign(0.0)
        values = features * INPUT_SCALE
        for kernel, bias, ceiling in zip(self.kernels, self.biases, self.ceilings, strict=False):
            values = tf.nn.relu(values @ kernel + bias)
            ceiling.assign(max(float(np.quantile(values.numpy(), ACTIVATION_QUANTILE)), 0.1))
            values = tf.minimum(values, ceiling)
        self.quantised.assign(True)

    def _rounded(self, values: Tensor, step: Tensor) -> Tensor:
        """Rounded going forward, untouched going back."""
        return values + self._tf.stop_gradient(self._tf.round(values / step) * step - values)


def _train_once(
    training: Samples, validation: Samples, schedule: Schedule, seed: int, on_epoch: Callable[[str], None]
) -> Trained:
    import tensorflow as tf

    tf.keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    rng = np.random.default_rng([0x7472, seed])
    spread = np.sqrt(np.maximum(training.energy(), 1.0)).astype(np.float32)
    trainee = _Trainee(rng, spread)
    optimiser = tf.keras.optimizers.Adam(schedule.learning_rate)

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def learn(features: Tensor, targets: Tensor, mask: Tensor) -> None:
        with tf.GradientTape() as tape:
            weight = tf.add_n([tf.reduce_sum(kernel**2) for kernel in trainee.kernels])
            loss = trainee.loss(features, targets, mask) + schedule.weight_decay * weight
            loss += IDLENESS_PENALTY * trainee.idleness(features)
        optimiser.apply_gradients(zip(tape.gradient(loss, trainee.variables), trainee.variables, strict=True))

    validate = tf.function(trainee.loss, reduce_retracing=True)
    arrays, held = ([tf.constant(part, tf.float32) for part in _arrays(samples)] for samples in (training, validation))
    epochs = schedule.float_epochs + schedule.quantised_epochs
    best_loss, best = np.inf, trainee.snapshot()
    for epoch in range(epochs):
        if epoch == schedule.float_epochs:
            trainee.quantise(arrays[0])
        elif epoch < schedule.float_epochs:
            trainee.leak.assign(START_LEAK * max(1 - 1.5 * epoch / schedule.float_epochs, 0.0))
        optimiser.learning_rate.assign(schedule.learning_rate * (0.02 + 0.49 * (1 + np.cos(np.pi * epoch / epochs))))
        order = rng.permutation(len(training))
        for rows in np.split(order, range(schedule.batch, len(order), schedule.batch)):
            learn(*(tf.gather(array, rows) for array in arrays))
        loss = float(validate(*held))
        if epoch >= schedule.float_epochs and loss < best_loss:
            best_loss, best = loss, trainee.snapshot()
        on_epoch(f"validation loss {loss:.4f}")
    trainee.restore(best)
    activity = (trainee.forward(arrays[0])[1].numpy() > 0).mean(axis=0)
    kernel_1, kernel_2, kernel_3, bias_1, bias_2, bias_3 = best
    network = FloatNetwork(
        kernels=(kernel_1, kernel_2, kernel_3 * spread),
        biases=(bias_1, bias_2, bias_3 * spread),
        ceilings=(float(trainee.ceilings[0].numpy()), float(trainee.ceilings[1].numpy())),
    )
    return Trained(network, best_loss, tuple(float(share) for share in activity))


def _arrays(samples: Samples) -> tuple[npt.NDArray[np.generic], ...]:
    return samples.features, samples.targets, samples.mask
