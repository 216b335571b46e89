"""The node's network: int8 24→16→8→4, its image in flash, and a forward pass equal to LiteRT's reference kernels.

Image, little endian, :data:`IMAGE_BYTES` long:

======  =======  ==============================================================
offset  bytes    content
======  =======  ==============================================================
0       4        magic ``NRMD``
4       1        format, 1
5       4        24, 16, 8, 4
9       3        zero
12      4        backbone id: first 4 bytes of BLAKE2b-256 of the backbone
16      624      backbone: layer 24→16, layer 16→8
640     56       head: layer 8→4
696     4        self-test: CRC-32 of activations and outputs for the test inputs
======  =======  ==============================================================

A layer: multiplier i32 (2³⁰ … 2³¹−1), shift i8 (−31 … 0), input zero point i8, output zero point i8, a zero
byte, then its biases i32 and its weights i8 (output-major). An output is
``clamp(((Σ w·(x − zx) + b)·multiplier + 2^(30−shift)) >> (31 − shift)) + zy)``: LiteRT's single rounding.
Hidden layers are clamped from below at their zero point (ReLU).

Units of the four outputs (zero point 0): *uptake* 1/256 of a natural logarithm on the ET rate; *dry-down*
1e-4 m³/m³ per day on the node's own dry-rate average, over 24, 48 and 72 h. A zero head is exactly the physics.
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

INPUTS, HIDDEN, ACTIVATIONS, OUTPUTS = 24, 16, 8, 4
MAGIC = b"NRMD"
FORMAT = 1
HEADER = struct.Struct("<4s5B3xI")
LAYER_HEADER = struct.Struct("<ibbbx")
IMAGE_START = HEADER.pack(MAGIC, FORMAT, INPUTS, HIDDEN, ACTIVATIONS, OUTPUTS, 0)[:12]
"""What every image of this format begins with, before the backbone id."""
BACKBONE_OFFSET = HEADER.size
BACKBONE_BYTES = sum(LAYER_HEADER.size + outputs * (4 + inputs) for inputs, outputs in ((24, 16), (16, 8)))
HEAD_OFFSET = BACKBONE_OFFSET + BACKBONE_BYTES
HEAD_BYTES = LAYER_HEADER.size + OUTPUTS * (4 + ACTIVATIONS) + 4
"""The head's layer and the self-test that belongs to it."""
IMAGE_BYTES = HEAD_OFFSET + HEAD_BYTES
BIAS_LIMIT = 1 << 28
GRID_PER_OCTAVE = 4
"""Scales of a quantised head are powers of 2^(1/4), so that one byte names them."""
GRID_CODES = 32 * GRID_PER_OCTAVE
HEAD_LEVELS = 63
"""Steps on either side of zero of a quantised head's largest weight: more cost bytes on the air and gain nothing."""
ROUNDING_DAMPING = 0.01
"""What is added to the diagonal of the sums that share out rounding errors: they are rounded themselves."""
HEAD_BIAS_SHARE = 16
"""A quantised head's biases are multiples of the largest power of two below this share of an output step."""
SELF_TEST_VECTORS = 8
SELF_TEST_SEED = 0x4E6F7269

Int8 = npt.NDArray[np.int8]
Float = npt.NDArray[np.float64]


class ModelError(ValueError):
    """Bytes or weights that are not a usable model; the text says why."""


def quantise_multiplier(real: float) -> tuple[int, int]:
    """LiteRT's ``QuantizeMultiplier`` for 0 < ``real`` < 1: (multiplier, shift).

    Raises:
        ModelError: ``real`` is outside what the kernel can represent.
    """
    if not 2.0**-32 < real < 1.0:
        raise ModelError(f"rescaling factor {real} is outside 2^-32 … 1")
    fraction, exponent = math.frexp(real)
    multiplier = math.floor(fraction * (1 << 31) + 0.5)
    if multiplier == 1 << 31:
        multiplier, exponent = multiplier // 2, exponent + 1
    if exponent > 0 or exponent < -31:
        raise ModelError(f"rescaling factor {real} is outside 2^-32 … 1")
    return multiplier, exponent


def grid_scale(code: int) -> tuple[int, int]:
    """(multiplier, shift) of the factor 2^(−(code + 1)/4), for codes below :data:`GRID_CODES`."""
    return round(2.0 ** (31 - (code % GRID_PER_OCTAVE + 1) / GRID_PER_OCTAVE)), -(code // GRID_PER_OCTAVE)


@dataclass(frozen=True, eq=False)
class Layer:
    """One fully connected layer: weights (outputs, inputs) int8, bias (outputs) int32."""

    weights: Int8
    bias: npt.NDArray[np.int32]
    multiplier: int
    shift: int
    input_zero: int
    output_zero: int

    @property
    def scale(self) -> float:
        """The real rescaling factor from accumulator to output steps."""
        return self.multiplier * 2.0 ** (self.shift - 31)

    def pack(self) -> bytes:
        """The layer's bytes."""
        header = LAYER_HEADER.pack(self.multiplier, self.shift, self.input_zero, self.output_zero)
        return header + self.bias.astype("<i4").tobytes() + self.weights.astype(np.int8).tobytes()

    @classmethod
    def unpack(cls, data: bytes, inputs: int, outputs: int) -> Self:
        """Read a layer whose length the caller has checked.

        Raises:
            ModelError: a field is out of its range.
        """
        multiplier, shift, input_zero, output_zero = LAYER_HEADER.unpack_from(data)
        if data[LAYER_HEADER.size - 1] != 0 or not (1 << 30) <= multiplier < (1 << 31) or not -31 <= shift <= 0:
            raise ModelError("a layer's rescaling is out of range")
        bias = np.frombuffer(data, "<i4", outputs, LAYER_HEADER.size).astype(np.int32)
        if np.any(np.abs(bias.astype(np.int64)) > BIAS_LIMIT):
            raise ModelError("a layer's bias is out of range")
        weights = np.frombuffer(data, np.int8, outputs * inputs, LAYER_HEADER.size + 4 * outputs)
        return cls(weights.reshape(outputs, inputs), bias, multiplier, shift, input_zero, output_zero)

    def forward(self, values: Int8, lowest: int) -> Int8:
        """Apply the layer to (…, inputs); ``lowest`` is the lower clamp."""
        shifted = values.astype(np.int64) - self.input_zero
        accumulated = shifted @ self._wide_weights + self._wide_bias
        total_shift = 31 - self.shift
        scaled = (accumulated * self.multiplier + (1 << (total_shift - 1))) >> total_shift
        result: Int8 = np.clip(scaled + self.output_zero, lowest, 127).astype(np.int8)
        return result

    @cached_property
    def _wide_weights(self) -> npt.NDArray[np.int64]:
        return np.ascontiguousarray(self.weights.T.astype(np.int64))

    @cached_property
    def _wide_bias(self) -> npt.NDArray[np.int64]:
        return self.bias.astype(np.int64)


def self_test_inputs() -> Int8:
    """The pseudo-random inputs of the self-test (xorshift32), (vectors, 24)."""
    state, values = SELF_TEST_SEED, []
    for _ in range(SELF_TEST_VECTORS * INPUTS):
        state ^= (state << 13) & 0xFFFFFFFF
        state ^= state >> 17
        state ^= (state << 5) & 0xFFFFFFFF
        values.append((state >> 24) - 128)
    return np.array(values, np.int8).reshape(SELF_TEST_VECTORS, INPUTS)


_SELF_TEST = self_test_inputs()


@dataclass(frozen=True, eq=False)
class ModelImage:
    """A complete model: backbone, head, and what a node checks before running it."""

    first: Layer
    second: Layer
    head: Layer

    @cached_property
    def backbone_bytes(self) -> bytes:
        """Both hidden layers, as in the image."""
        return self.first.pack() + self.second.pack()

    @cached_property
    def head_bytes(self) -> bytes:
        """Head layer and self-test, as in the image."""
        return self.head.pack() + struct.pack("<I", self.self_test)

    @cached_property
    def self_test(self) -> int:
        """CRC-32 over activations and outputs, vector by vector, for the self-test inputs."""
        activations, outputs = self.forward(_SELF_TEST)
        return zlib.crc32(np.concatenate([activations, outputs], axis=-1).tobytes())

    @cached_property
    def backbone_id(self) -> int:
        """First 4 bytes, little endian, of BLAKE2b-256 of the backbone."""
        return identity(self.backbone_bytes)

    @cached_property
    def model_id(self) -> int:
        """First 4 bytes, little endian, of BLAKE2b-256 of the image."""
        return identity(self.pack())

    def pack(self) -> bytes:
        """The image as it lies in flash."""
        header = HEADER.pack(MAGIC, FORMAT, INPUTS, HIDDEN, ACTIVATIONS, OUTPUTS, self.backbone_id)
        return header + self.backbone_bytes + self.head_bytes

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read and check an image.

        Raises:
            ModelError: not an image, out of range, or its self-test does not agree.
        """
        if len(data) != IMAGE_BYTES:
            raise ModelError(f"a model image has {IMAGE_BYTES} bytes, not {len(data)}")
        *_, backbone_id = HEADER.unpack_from(data)
        if data[: len(IMAGE_START)] != IMAGE_START:
            raise ModelError("not a model image of this format")
        second = BACKBONE_OFFSET + LAYER_HEADER.size + HIDDEN * (4 + INPUTS)
        image = cls(
            Layer.unpack(data[BACKBONE_OFFSET:second], INPUTS, HIDDEN),
            Layer.unpack(data[second:HEAD_OFFSET], HIDDEN, ACTIVATIONS),
            Layer.unpack(data[HEAD_OFFSET:], ACTIVATIONS, OUTPUTS),
        )
        if (
            image.second.input_zero != image.first.output_zero
            or image.head.input_zero != image.second.output_zero
            or image.head.output_zero != 0
        ):
            raise ModelError("zero points of neighbouring layers differ")
        if backbone_id != image.backbone_id:
            raise ModelError("the backbone id does not belong to the backbone")
        if data[-4:] != struct.pack("<I", image.self_test):
            raise ModelError("the self-test does not agree")
        return image

    def forward(self, inputs: Int8) -> tuple[Int8, Int8]:
        """Activations (…, 8) and outputs (…, 4) for int8 inputs (…, 24)."""
        hidden = self.first.forward(inputs, self.first.output_zero)
        activations = self.second.forward(hidden, self.second.output_zero)
        return activations, self.head.forward(activations, -128)

    def with_head(self, head: Layer) -> ModelImage:
        """The same backbone under another head.

        Raises:
            ModelError: the head does not fit.
        """
        if head.weights.shape != (OUTPUTS, ACTIVATIONS) or head.input_zero != self.second.output_zero:
            raise ModelError("this head does not fit the backbone")
        return replace(self, head=head)

    def with_head_bytes(self, data: bytes) -> ModelImage:
        """The same backbone under a head as :attr:`head_bytes` holds it.

        Raises:
            ModelError: malformed, or its self-test does not agree with this backbone.
        """
        if len(data) != HEAD_BYTES:
            raise ModelError(f"a head has {HEAD_BYTES} bytes, not {len(data)}")
        return ModelImage.unpack(self.pack()[:HEAD_OFFSET] + data)

    def moments_input(self, activations: Int8) -> npt.NDArray[np.int64]:
        """φ (…, 9): activations above their zero point, and the constant 1."""
        lifted = activations.astype(np.int64) - self.second.output_zero
        return np.concatenate([lifted, np.ones((*lifted.shape[:-1], 1), np.int64)], axis=-1)


def identity(data: bytes) -> int:
    """First 4 bytes, little endian, of BLAKE2b-256."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=32).digest()[:4], "little")


def quantise_head(image: ModelImage, weights: npt.ArrayLike, gram: npt.ArrayLike | None = None) -> ModelImage:
    """``image`` with the head nearest to real ``weights`` (4, 9), in output steps per φ.

    Args:
        image: The model whose head it becomes.
        weights: (4, 9), the constant last.
        gram: Σφφᵀ behind each row, (4, 9, 9), where it is known: then the rows that forecast alike are nearest, not the
            numbers, and what one weight loses by rounding the others make good.

    Raises:
        ModelError: wrong shape, not finite, or too large for an int8 head.
    """
    real = np.asarray(weights, np.float64)
    if real.shape != (OUTPUTS, ACTIVATIONS + 1) or not np.all(np.isfinite(real)):
        raise ModelError("head weights must be finite and of shape (4, 9)")
    scale = max(
        float(np.abs(real[:, :-1]).max()) / HEAD_LEVELS,
        float(np.abs(real[:, -1]).max()) / (1 << 24),
        2.0**-12,
    )
    code = math.floor(-GRID_PER_OCTAVE * math.log2(scale)) - 1
    if code < 0:
        raise ModelError(f"no scale of a head is as large as {scale}")
    multiplier, shift = grid_scale(code)
    exact = multiplier * 2.0 ** (shift - 31)
    coarse = 1 << max(0, math.floor(-math.log2(HEAD_BIAS_SHARE * exact)))
    steps = np.array([exact] * ACTIVATIONS + [coarse * exact])
    behind = np.zeros((OUTPUTS, len(steps), len(steps))) if gram is None else np.asarray(gram, np.float64)
    rounded = np.stack(
        [_round_row(row / steps, of_row * np.outer(steps, steps)) for row, of_row in zip(real, behind, strict=True)]
    )
    head = Layer(
        weights=rounded[:, :-1].astype(np.int8),
        bias=(coarse * rounded[:, -1]).astype(np.int32),
        multiplier=multiplier,
        shift=shift,
        input_zero=image.second.output_zero,
        output_zero=0,
    )
    return image.with_head(head)


def _round_row(row: Float, gram: Float) -> Float:
    """Whole numbers for a head's row, one after the other: each error is shared out among those still to come."""
    rest, rounded = row.copy(), np.zeros_like(row)
    damped = gram + np.diag(ROUNDING_DAMPING * np.diag(gram) + np.finfo(np.float64).tiny)
    for index in range(len(row)):
        last = index == len(row) - 1
        rounded[index] = np.rint(rest[index]) if last else np.clip(np.rint(rest[index]), -127, 127)
        later = slice(index + 1, None)
        if not last and gram[index, index] > 0:
            error = rounded[index] - rest[index]
            rest[later] -= error * np.linalg.lstsq(damped[later, later], gram[later, index], rcond=None)[0]
    return rounded


def head_weights(image: ModelImage) -> Float:
    """The quantised head's real weights (4, 9), in the units of :class:`shared_models.moments.Sums`."""
    head = image.head
    return head.scale * np.concatenate([head.weights, head.bias[:, None]], axis=1).astype(np.float64)


def zero_head(image: ModelImage) -> ModelImage:
    """``image`` with a head that is exactly the physics."""
    return quantise_head(image, np.zeros((OUTPUTS, ACTIVATIONS + 1)))


def c_definitions() -> str:
    """What C must know of this module."""
    names = {
        "INPUTS": INPUTS,
        "HIDDEN": HIDDEN,
        "ACTIVATIONS": ACTIVATIONS,
        "OUTPUTS": OUTPUTS,
        "MODEL_FORMAT": FORMAT,
        "MODEL_BACKBONE_ID_OFFSET": 12,
        "MODEL_BACKBONE_OFFSET": BACKBONE_OFFSET,
        "MODEL_BACKBONE_BYTES": BACKBONE_BYTES,
        "MODEL_SECOND_OFFSET": BACKBONE_OFFSET + LAYER_HEADER.size + HIDDEN * (4 + INPUTS),
        "MODEL_HEAD_OFFSET": HEAD_OFFSET,
        "MODEL_HEAD_BYTES": HEAD_BYTES,
        "MODEL_SELF_TEST_OFFSET": IMAGE_BYTES - 4,
        "MODEL_BYTES": IMAGE_BYTES,
        "LAYER_HEADER_BYTES": LAYER_HEADER.size,
        "BIAS_LIMIT": BIAS_LIMIT,
        "SELF_TEST_VECTORS": SELF_TEST_VECTORS,
    }
    lines = [f"#define NORIA_{name} {value}" for name, value in names.items()]
    lines.append(f"#define NORIA_SELF_TEST_SEED 0x{SELF_TEST_SEED:08X}u")
    lines.append(f"#define NORIA_MODEL_START {{{', '.join(str(byte) for byte in IMAGE_START)}}}")
    lines.append(f"#define NORIA_MODEL_MAGIC 0x{int.from_bytes(MAGIC, 'little'):08X}u")
    return "\n".join(lines) + "\n"
