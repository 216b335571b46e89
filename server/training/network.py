"""The backbone's training in TensorFlow: a float phase, then a phase that sees its own quantisation.

The float network is the quantised one with rounding taken away: int8 features times :data:`INPUT_SCALE`,
two ReLU layers, four linear outputs in the head's output steps. In the second phase weights are rounded
per tensor to int8 (or fewer bits on the same grid) and activations to 256 steps, with straight-through
gradients (Jacob et al. 2018), so that what training minimises is what a node will compute.

A label at the end of its range says "at least this much", and an output saturates there too: beyond it the
loss is flat, so that clipped labels neither hold back nor drive a prediction that already says enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
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

OUTPUT_LIMIT = 127
"""An output is int8: what a label asks beyond it cannot be had."""
START_LEAK = 0.2
LEAK_DECAY = 1.5
"""The leak is gone after one over this of the float epochs."""
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
class Recipe:
    """What kind of network, and what it listens to besides the labels."""

    hidden: int = HIDDEN
    """Units of the first layer; a node's image holds up to 16, fewer leave zero rows."""
    activations: int = ACTIVATIONS
    weight_bits: int = 8
    """Of both hidden layers; the head keeps 8, as every round sends a new one."""
    hint_share: float = 0.9
    """Of the loss that a teacher's outputs get, where there are any."""
    group_rate: float = 0.0
    """Step of the groups' weights toward those served worst, per epoch; 0 weighs every window alike."""


PLAIN = Recipe()


@dataclass(frozen=True)
class FloatNetwork:
    """Real weights (inputs, outputs), biases, the two activation ceilings and the weights' bits."""

    kernels: tuple[Float32, Float32, Float32]
    biases: tuple[Float32, Float32, Float32]
    ceilings: tuple[float, float]
    weight_bits: int = 8

    def predict(self, features: npt.NDArray[np.int8]) -> Float32:
        """Outputs in output steps (n, 4), without any rounding."""
        values: Float32 = features.astype(np.float32) * np.float32(INPUT_SCALE)
        for kernel, bias, ceiling in zip(self.kernels[:2], self.biases[:2], self.ceilings, strict=True):
            values = np.clip(values @ kernel + bias, 0, ceiling).astype(np.float32)
        outputs: Float32 = values @ self.kernels[2] + self.biases[2]
        return outputs

    def with_head(self, weights: npt.NDArray[np.float64]) -> FloatNetwork:
        """The same backbone under a head (4, 9) in output steps per activation step, as closed forms give it."""
        step = self.ceilings[1] / 255
        kernel, bias = (weights[:, :-1].T / step).astype(np.float32), weights[:, -1].astype(np.float32)
        return replace(self, kernels=(*self.kernels[:2], kernel), biases=(*self.biases[:2], bias))


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


@dataclass(frozen=True)
class Lessons:
    """Windows to learn from, and what else is known of them."""

    samples: Samples
    hints: Float32 | None = None
    """A teacher's outputs in output steps (n, 4); they count for every target of every window."""
    groups: npt.NDArray[np.int64] | None = None
    """(n,): which group a window belongs to, from 0, for training that serves the worst one best."""


def train_backbone(
    training: Lessons,
    validation: Samples,
    schedule: Schedule,
    seed: int,
    on_epoch: Callable[[str], None],
    recipe: Recipe = PLAIN,
    start: FloatNetwork | None = None,
) -> Trained:
    """The best of ``schedule.restarts`` trainings; deterministic by ``seed``.

    Args:
        training: windows to learn from.
        validation: windows of other seasons, to choose epoch and restart.
        schedule: how long.
        seed: of initialisers and batches.
        on_epoch: called after each epoch with a line of progress.
        recipe: what kind of network.
        start: weights to go on from instead of drawn ones; its size is the recipe's.
    """
    attempts = [
        _train_once(training, validation, schedule, seed + 1000 * n, on_epoch, recipe, start)
        for n in range(schedule.restarts)
    ]
    return min(attempts, key=lambda attempt: (attempt.dead_units, attempt.validation_loss))


def prune(network: FloatNetwork, features: npt.NDArray[np.int8], units: int) -> FloatNetwork:
    """``network`` with only those ``units`` of its first layer that move the second layer most.

    A unit's weight is the spread of its activation times the norm of what leaves it; the constant part of what
    the others said goes into the second layer's biases. Retrain afterwards.
    """
    hidden = np.clip(features.astype(np.float32) * INPUT_SCALE @ network.kernels[0] + network.biases[0], 0, None)
    weight = hidden.std(axis=0) * np.linalg.norm(network.kernels[1], axis=1)
    order = np.argsort(-weight, kind="stable")
    kept, dropped = np.sort(order[:units]), order[units:]
    first, second, head = network.kernels
    constant = hidden[:, dropped].mean(axis=0) @ second[dropped]
    return replace(
        network,
        kernels=(first[:, kept], second[kept], head),
        biases=(network.biases[0][kept], network.biases[1] + constant, network.biases[2]),
    )


def to_image(network: FloatNetwork) -> ModelImage:
    """Quantise to the node's image; units that the network lacks are rows of zeros."""
    spare = HIDDEN - network.kernels[0].shape[1]
    kernels: list[Float32] = [
        np.pad(network.kernels[0], ((0, 0), (0, spare))),
        np.pad(network.kernels[1], ((0, spare), (0, 0))),
    ]
    biases = (np.pad(network.biases[0], (0, spare)), network.biases[1])
    limit = _largest_weight(network.weight_bits)
    scales = [float(np.abs(kernel).max()) / limit for kernel in kernels]
    steps = [INPUT_SCALE, network.ceilings[0] / 255, network.ceilings[1] / 255]
    layers = []
    for index, scale in enumerate(scales):
        multiplier, shift = quantise_multiplier(steps[index] * scale / steps[index + 1])
        layers.append(
            Layer(
                weights=np.clip(np.rint(kernels[index].T / scale), -limit, limit).astype(np.int8),
                bias=np.rint(biases[index] / (steps[index] * scale)).astype(np.int32),
                multiplier=multiplier,
                shift=shift,
                input_zero=0 if index == 0 else -128,
                output_zero=-128,
            )
        )
    placeholder = Layer(np.zeros((TARGETS, ACTIVATIONS), np.int8), np.zeros(TARGETS, np.int32), 1 << 30, -10, -128, 0)
    head = np.concatenate([network.kernels[2].T * steps[2], network.biases[2][:, None]], axis=1)
    return quantise_head(ModelImage(layers[0], layers[1], placeholder), head)


def _largest_weight(bits: int) -> int:
    return int(2 ** (bits - 1)) - 1


class _Trainee:
    """The network while it learns: TensorFlow variables and the one forward pass both phases share."""

    def __init__(self, rng: np.random.Generator, spread: Float32, recipe: Recipe, start: FloatNetwork | None) -> None:
        """Draw the weights (He et al. 2015) or take them over; ``spread`` is each target's root mean square."""
        import tensorflow as tf  # heavy, and only the trainer needs it

        self._tf = tf
        self._recipe = recipe
        self._largest = float(_largest_weight(recipe.weight_bits))
        sizes = (INPUTS, recipe.hidden, recipe.activations, TARGETS)
        kernels = [rng.normal(0, np.sqrt(2 / a), (a, b)).astype(np.float32) for a, b in pairwise(sizes)]
        biases = [np.full(b, 0.1 if n < 2 else 0.0, np.float32) for n, b in enumerate(sizes[1:])]
        if start is not None:
            kernels = [start.kernels[0], start.kernels[1], (start.kernels[2] / spread).astype(np.float32)]
            biases = [start.biases[0], start.biases[1], (start.biases[2] / spread).astype(np.float32)]
        self.kernels = [tf.Variable(kernel) for kernel in kernels]
        self.biases = [tf.Variable(bias) for bias in biases]
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
            step = tf.reduce_max(tf.abs(kernel)) / self._largest
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

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Huber's loss per window and target; flat where output and label are beyond the output's range."""
        tf = self._tf
        limit = OUTPUT_LIMIT / self._spread
        wanted = targets / self._spread
        said = tf.where(wanted >= limit, tf.minimum(outputs, limit), outputs)
        said = tf.where(wanted <= -limit, tf.maximum(said, -limit), said)
        error = tf.abs(wanted - said)
        return tf.where(error < HUBER_DELTA, 0.5 * error**2, HUBER_DELTA * (error - 0.5 * HUBER_DELTA))

    def loss(self, features: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """The mean loss over each target's own windows, summed over targets."""
        return self._mean(self.losses(self.forward(features)[0], targets), weights)

    def distilled_loss(self, features: Tensor, targets: Tensor, weights: Tensor, hints: Tensor) -> Tensor:
        """:meth:`loss` mixed with the distance from a teacher."""
        outputs, share = self.forward(features)[0], self._recipe.hint_share
        taught = self._mean(self.losses(outputs, hints), self._tf.ones_like(hints))
        return (1 - share) * self._mean(self.losses(outputs, targets), weights) + share * taught

    def _mean(self, losses: Tensor, weights: Tensor) -> Tensor:
        tf = self._tf
        return tf.reduce_sum(tf.reduce_sum(losses * weights, 0) / tf.maximum(tf.reduce_sum(weights, 0), 1.0))

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
    training: Lessons,
    validation: Samples,
    schedule: Schedule,
    seed: int,
    on_epoch: Callable[[str], None],
    recipe: Recipe,
    start: FloatNetwork | None,
) -> Trained:
    import tensorflow as tf

    tf.keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    rng = np.random.default_rng([0x7472, seed])
    spread = np.sqrt(np.maximum(training.samples.energy(), 1.0)).astype(np.float32)
    trainee = _Trainee(rng, spread, recipe, start)
    optimiser = tf.keras.optimizers.Adam(schedule.learning_rate)
    objective = trainee.loss if training.hints is None else trainee.distilled_loss

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def learn(*batch: Tensor) -> None:
        with tf.GradientTape() as tape:
            weight = tf.add_n([tf.reduce_sum(kernel**2) for kernel in trainee.kernels])
            loss = objective(*batch) + schedule.weight_decay * weight
            loss += IDLENESS_PENALTY * trainee.idleness(batch[0])
        optimiser.apply_gradients(zip(tape.gradient(loss, trainee.variables), trainee.variables, strict=True))

    validate = tf.function(trainee.loss, reduce_retracing=True)
    features, targets, mask = _tensors(training.samples)
    held = _tensors(validation)
    hints = [] if training.hints is None else [tf.constant(training.hints, tf.float32)]
    scales = _GroupScales(training, recipe.group_rate) if training.groups is not None else None
    weights = mask
    epochs = schedule.float_epochs + schedule.quantised_epochs
    # A network is a candidate once it is what it will stay: rounded, or without its leak where it is never rounded.
    settled = schedule.float_epochs if schedule.quantised_epochs else math.ceil(schedule.float_epochs / LEAK_DECAY)
    best_loss, best = np.inf, trainee.snapshot()
    for epoch in range(epochs):
        if epoch == schedule.float_epochs:
            trainee.quantise(features)
        elif epoch < schedule.float_epochs:
            trainee.leak.assign(START_LEAK * max(1 - LEAK_DECAY * epoch / schedule.float_epochs, 0.0))
        optimiser.learning_rate.assign(schedule.learning_rate * (0.02 + 0.49 * (1 + np.cos(np.pi * epoch / epochs))))
        order = rng.permutation(len(training.samples))
        for rows in np.split(order, range(schedule.batch, len(order), schedule.batch)):
            learn(*(tf.gather(array, rows) for array in (features, targets, weights, *hints)))
        if scales is not None:
            weights = mask * scales.after(trainee.losses(trainee.forward(features)[0], targets).numpy())
        loss = float(validate(*held))
        if epoch >= settled and loss < best_loss:
            best_loss, best = loss, trainee.snapshot()
        on_epoch(f"validation loss {loss:.4f}")
    trainee.restore(best)
    activity = (trainee.forward(features)[1].numpy() > 0).mean(axis=0)
    kernel_1, kernel_2, kernel_3, bias_1, bias_2, bias_3 = best
    network = FloatNetwork(
        kernels=(kernel_1, kernel_2, kernel_3 * spread),
        biases=(bias_1, bias_2, bias_3 * spread),
        ceilings=(float(trainee.ceilings[0].numpy()), float(trainee.ceilings[1].numpy())),
        weight_bits=recipe.weight_bits,
    )
    return Trained(network, best_loss, tuple(float(share) for share in activity))


class _GroupScales:
    """Weights of groups that grow with a group's loss (Sagawa et al. 2020, "Distributionally Robust Neural Networks").

    A group's loss is the mean over its windows, over the targets' mean losses under the physics, so that a group is
    badly served when much of what could be explained is not, and not because its residuals are large.
    """

    def __init__(self, training: Lessons, rate: float) -> None:
        groups = training.groups
        if groups is None:
            raise ValueError("training by groups needs groups")
        self._members = np.eye(int(groups.max()) + 1)[groups]
        self._mask = training.samples.mask.astype(np.float64)
        squared = (training.samples.targets.astype(np.float64) * self._mask) ** 2
        spread = np.maximum(squared.sum(0) / np.maximum(self._mask.sum(0), 1), 1.0)
        self._physics = np.maximum(self._by_group(squared / spread), 1e-3)
        self._logarithms = np.zeros(self._members.shape[1])
        self._rate = rate

    def after(self, losses: npt.NDArray[np.generic]) -> Float32:
        """The windows' weights for the next epoch (n, 1), from ``losses`` (n, 4) after this one; their mean is 1."""
        served = self._by_group(losses.astype(np.float64)) / self._physics
        self._logarithms += self._rate * (served - served.mean())
        scale = np.exp(self._logarithms - self._logarithms.mean())
        weights = self._members @ scale
        result: Float32 = (weights / weights.mean()).astype(np.float32)[:, None]
        return result

    def _by_group(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Mean over a group's windows, then over targets."""
        sums, counts = self._members.T @ (values * self._mask), self._members.T @ self._mask
        mean: npt.NDArray[np.float64] = (sums / np.maximum(counts, 1)).mean(axis=1)
        return mean


def _tensors(samples: Samples) -> tuple[Tensor, Tensor, Tensor]:
    import tensorflow as tf

    features, targets, mask = (
        tf.constant(part, tf.float32) for part in (samples.features, samples.targets, samples.mask)
    )
    return features, targets, mask
