"""The network on both cores: whether it is exact, and what it costs beside a plain int8 loop and emlearn's floats."""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import emlearn
import numpy as np
from emlearn.net import c_generate_net_loadable

from benchmarks.cores import CPUS, FEATURES, OUTPUT_VALUES, BareCore, compile_alone
from benchmarks.litert import random_network, reference
from nodes.emulator.firmware import Firmware
from nodes.firmware.build import PROJECT, build
from nodes.hostcore import forward
from shared_models.codes import Board
from shared_models.factory import factory_image
from shared_models.network import IMAGE_BYTES, INPUTS, OUTPUTS, Float, Int8, ModelImage

RUNS = 50
EXACTNESS_MODELS, EXACTNESS_INPUTS = 20, 10_000
BUDGET_CYCLES = {Board.STM32L072: 9_000, Board.STM32L432: 4_500}
SHIPPED_FLAGS = ("-O2", "-fno-schedule-insns")
"""As in ``platform/arm-bare/builder/main.py``; only to weigh the engine by itself."""

FLAGS: tuple[tuple[str, ...], ...] = (("-Os",), ("-O2",))


def measure() -> dict[str, Any]:
    """Exactness, then per board the engine that ships, the loop and emlearn on the factory model."""
    image = factory_image()
    inputs = np.random.default_rng(1).integers(-128, 128, (RUNS, INPUTS)).astype(np.int8)
    firmwares = {board: Firmware.load(path) for board, path in build().items()}
    result: dict[str, Any] = {"exactness": _exactness(firmwares), "emlearn": version("emlearn")}
    with tempfile.TemporaryDirectory() as folder:
        for board, firmware in firmwares.items():
            result[board.name.lower()] = _board(board, firmware, image, inputs, Path(folder))
    return result


def table(result: dict[str, Any]) -> str:
    """The comparison at ``-O2``, everyone's fastest, as Markdown for ``docs/node-core.md``."""
    lines = [
        "| core | engine | cycles | × ours | flash with weights, B | static RAM, B | stack, B |",
        "|---|---|---|---|---|---|---|",
    ]
    for board, cpu in CPUS.items():
        lines += [
            f"| {cpu} | {row['engine']} | {row['cycles_max']:,} | {row['cycles_ratio']:.1f} | {row['flash_bytes']:,} |"
            f" {row['static_ram_bytes']:,} | {row['stack_bytes']:,} |"
            for row in result[board.name.lower()]["engines"]
            if not row["engine"].endswith("-Os")
        ]
    return "\n".join(lines)


def _board(board: Board, firmware: Firmware, image: ModelImage, inputs: Int8, folder: Path) -> dict[str, Any]:
    expected = np.concatenate(image.forward(inputs), axis=-1)
    shipped = _int8_engine(firmware, "noria_engine_run", image, inputs, expected)
    alone = compile_alone(PROJECT / "core/engine.c", "noria_engine_run", board, SHIPPED_FLAGS, folder)
    rows = [{"engine": "Noria", **shipped, **_sizes(alone, weights=IMAGE_BYTES)}]
    loop = Path(__file__).with_name("int8_loop.c")
    net = folder / "emlearn_net.c"
    net.write_text(emlearn_source(image), encoding="utf-8")
    for flags in FLAGS:
        program = compile_alone(loop, "int8_loop", board, flags, folder)
        costs = _int8_engine(program, "int8_loop", image, inputs, expected)
        rows.append({"engine": f"int8 loop {flags[0]}", **costs, **_sizes(program, weights=IMAGE_BYTES)})
    for flags in FLAGS:
        program = compile_alone(net, "model_regress", board, flags, folder, Path(emlearn.__file__).parent)
        rows.append({"engine": f"emlearn {flags[0]}", **_emlearn(program, image, inputs), **_sizes(program, weights=0)})
    for row in rows:
        row["cycles_ratio"] = round(row["cycles_max"] / rows[0]["cycles_max"], 2)
    return {"budget_cycles": BUDGET_CYCLES[board], "flash_image_bytes": len(firmware.image), "engines": rows}


def _int8_engine(program: Firmware, name: str, image: ModelImage, inputs: Int8, expected: Int8) -> dict[str, int]:
    core = BareCore(program)
    core.load(image)
    core.clear_stack()
    cycles = []
    for row, want in zip(inputs, expected, strict=True):
        got, spent = core.forward(row.tobytes(), name)
        if got != want.tobytes():
            raise RuntimeError(f"{program.core}: the numbers of {name} are not the reference's")
        cycles.append(spent)
    return _costs(cycles, core)


def _emlearn(program: Firmware, image: ModelImage, inputs: Int8) -> dict[str, int]:
    """emlearn neither rounds nor saturates between layers, so it is held to the same network in floats."""
    core = BareCore(program)
    core.clear_stack()
    cycles, farthest = [], 0.0
    _, int8_outputs = image.forward(inputs)
    weights, biases = real_weights(image)
    for row, int8_output in zip(inputs, int8_outputs, strict=True):
        values = row.astype(np.float64) - image.first.input_zero
        core.write(FEATURES, values.astype("<f4").tobytes())
        cycles.append(core.call("model_regress", FEATURES, INPUTS, OUTPUT_VALUES, OUTPUTS))
        got = np.frombuffer(core.read(OUTPUT_VALUES, 4 * OUTPUTS), "<f4")
        for index in range(3):
            values = values @ weights[index] + biases[index]
            values = np.maximum(values, 0) if index < 2 else values
        if not np.allclose(got, values, rtol=1e-3, atol=0.1):
            raise RuntimeError(f"{program.core}: emlearn computes {got}, the same network in floats {values}")
        farthest = max(farthest, float(np.abs(np.clip(got, -128, 127) - int8_output).max()))
    return _costs(cycles, core) | {"farthest_from_int8_steps": round(farthest, 2)}


def real_weights(image: ModelImage) -> tuple[list[Float], list[Float]]:
    """Weights (inputs, outputs) and biases that give each layer's outputs in int8 steps above its zero point."""
    layers = (image.first, image.second, image.head)
    return [layer.scale * layer.weights.T.astype(float) for layer in layers], [
        layer.scale * layer.bias.astype(float) for layer in layers
    ]


def emlearn_source(image: ModelImage) -> str:
    """emlearn's C of the same weights."""
    code: str = c_generate_net_loadable(["relu", "relu", "identity"], *real_weights(image), prefix="model")
    return code


def _costs(cycles: list[int], core: BareCore) -> dict[str, int]:
    return {"cycles_mean": round(float(np.mean(cycles))), "cycles_max": max(cycles), "stack_bytes": core.stack_bytes()}


def _sizes(program: Firmware, weights: int) -> dict[str, int]:
    """Flash of a program linked alone, with ``weights`` that lie outside it, and its static RAM."""
    symbols = program.symbols
    data, bss = symbols["_data_end"] - symbols["_data_start"], symbols["_bss_end"] - symbols["_bss_start"]
    return {"flash_bytes": len(program.image) + weights, "static_ram_bytes": data + bss}


def _exactness(firmwares: dict[Board, Firmware]) -> dict[str, int]:
    """Bytes that differ from LiteRT's reference kernels, over random models of which half are extreme."""
    cores = {CPUS[board]: BareCore(firmware, count=False) for board, firmware in firmwares.items()}
    differing = dict.fromkeys(("python", "c_host", *cores), 0)
    for seed in range(EXACTNESS_MODELS):
        image, model = random_network(seed, extreme=seed % 2 == 1)
        inputs = np.random.default_rng(seed + 50).integers(-128, 128, (EXACTNESS_INPUTS, INPUTS)).astype(np.int8)
        expected = reference(model, inputs)
        got = {name: np.concatenate(run(image, inputs), axis=-1) for name, run in _HERE.items()}
        for name, core in cores.items():
            core.load(image)
            rows = b"".join(core.forward(row.tobytes())[0] for row in inputs)
            got[name] = np.frombuffer(rows, np.int8).reshape(expected.shape)
        for name, values in got.items():
            differing[name] += int(np.count_nonzero(values != expected))
    return {"models": EXACTNESS_MODELS, "inputs": EXACTNESS_INPUTS} | {
        f"differing_bytes_{name.replace('-', '_')}": count for name, count in differing.items()
    }


_HERE = {"python": ModelImage.forward, "c_host": forward}
