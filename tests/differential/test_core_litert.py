"""The network equals LiteRT's reference kernels to the last bit: in Python, in C here, and on both emulated cores."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cores import BareCore
from benchmarks.litert import random_network, reference
from nodes.emulator.firmware import Firmware
from nodes.firmware.build import build
from nodes.hostcore import forward
from shared_models.codes import Board
from shared_models.network import BIAS_LIMIT, Layer, ModelImage


@pytest.fixture(scope="module", params=[Board.STM32L072, Board.STM32L432], ids=lambda board: board.name)
def core(request: pytest.FixtureRequest) -> BareCore:
    return BareCore(Firmware.load(build()[request.param]), count=False)


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_activations_and_outputs_equal_the_reference_kernels(seed: int, *, extreme: bool) -> None:
    image, model = random_network(seed, extreme=extreme)
    inputs = np.random.default_rng(seed + 50).integers(-128, 128, (2000, 24)).astype(np.int8)
    expected = reference(model, inputs)
    for got in (image.forward(inputs), forward(image, inputs, sanitize=True)):
        assert int(np.count_nonzero(np.concatenate(got, axis=-1) != expected)) == 0
    assert extreme or len(np.unique(expected[:, :8])) > 5


@pytest.mark.parametrize("extreme", [False, True])
def test_both_cores_give_the_same_bits(core: BareCore, *, extreme: bool) -> None:
    for seed in range(20):
        image, _ = random_network(seed, extreme=extreme)
        inputs = np.random.default_rng(seed + 50).integers(-128, 128, (100, 24)).astype(np.int8)
        inputs[0], inputs[1] = -128, 127
        core.load(image)
        expected = np.concatenate(image.forward(inputs), axis=-1)
        got = np.array([np.frombuffer(core.forward(row.tobytes())[0], np.int8) for row in inputs])
        assert int(np.count_nonzero(got != expected)) == 0


def image_at_the_limits(shift: int) -> ModelImage:
    """Weights, biases and multipliers at the ends of their ranges, one shift for all layers."""
    rng = np.random.default_rng(-shift)
    zeros = [int(zero) for zero in rng.choice([-128, 0, 127], 3)] + [0]
    layers = [
        Layer(
            rng.choice(np.array([-128, 127], np.int8), (outputs, inputs)),
            rng.choice([-BIAS_LIMIT, -1, 0, 1, BIAS_LIMIT], outputs).astype(np.int32),
            int(rng.choice([1 << 30, (1 << 31) - 1])),
            shift,
            zeros[index],
            zeros[index + 1],
        )
        for index, (inputs, outputs) in enumerate(((24, 16), (16, 8), (8, 4)))
    ]
    return ModelImage(*layers)


def test_every_shift_at_the_limits_gives_the_same_bits_here_and_on_both_cores(core: BareCore) -> None:
    for shift in range(-31, 1):
        image = image_at_the_limits(shift)
        inputs = np.random.default_rng(shift + 100).choice(np.array([-128, -1, 0, 127], np.int8), (40, 24))
        expected = np.concatenate(image.forward(inputs), axis=-1)
        assert int(np.count_nonzero(np.concatenate(forward(image, inputs, sanitize=True), axis=-1) != expected)) == 0
        core.load(image)
        got = np.array([np.frombuffer(core.forward(row.tobytes())[0], np.int8) for row in inputs])
        assert int(np.count_nonzero(got != expected)) == 0
