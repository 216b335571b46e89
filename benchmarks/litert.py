"""Random networks, each as our model image and as a LiteRT file, and what LiteRT's reference kernels make of them."""

from __future__ import annotations

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from shared_models.network import Int8, Layer, ModelImage, quantise_multiplier

SIZES = (24, 16, 8, 4)


def tensor(name: str, shape: list[int], kind: int, buffer: int, scale: float, zero: int) -> schema.TensorT:
    result = schema.TensorT()
    result.name, result.shape, result.type, result.buffer = name.encode(), shape, kind, buffer
    result.quantization = schema.QuantizationParametersT()
    result.quantization.scale, result.quantization.zeroPoint = [scale], [zero]
    return result


def tflite(layers: list[Layer], scales: list[tuple[float, float]], input_scale: float) -> bytes:
    """A flat buffer of three FULLY_CONNECTED operators; ``scales`` are (weights, output) per layer."""
    int8, int32 = schema.TensorType.INT8, schema.TensorType.INT32
    graph, model = schema.SubGraphT(), schema.ModelT()
    model.version, model.buffers = 3, [schema.BufferT()]
    graph.tensors = [tensor("input", [1, 24], int8, 0, input_scale, layers[0].input_zero)]
    graph.operators = []
    scale_in = input_scale
    for index, (layer, (weight_scale, scale_out)) in enumerate(zip(layers, scales, strict=True)):
        for data in (layer.weights.tobytes(), layer.bias.astype("<i4").tobytes()):
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data, np.uint8)
            model.buffers.append(buffer)
        outputs, inputs = layer.weights.shape
        first, count = len(graph.tensors), len(model.buffers)
        bias_scale = float(np.float32(scale_in) * np.float32(weight_scale))
        graph.tensors += [
            tensor(f"w{index}", [outputs, inputs], int8, count - 2, weight_scale, 0),
            tensor(f"b{index}", [outputs], int32, count - 1, bias_scale, 0),
            tensor(f"y{index}", [1, outputs], int8, 0, scale_out, layer.output_zero),
        ]
        operator = schema.OperatorT()
        operator.opcodeIndex = 0
        operator.inputs, operator.outputs = [first - 1, first, first + 1], [first + 2]
        operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
        operator.builtinOptions = schema.FullyConnectedOptionsT()
        kinds = schema.ActivationFunctionType
        operator.builtinOptions.fusedActivationFunction = kinds.NONE if index == 2 else kinds.RELU
        graph.operators.append(operator)
        scale_in = scale_out
    graph.inputs, graph.outputs = [0], [6, 9]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 4
    model.operatorCodes, model.subgraphs = [code], [graph]
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def random_network(seed: int, *, extreme: bool) -> tuple[ModelImage, bytes]:
    """The same random network as a model image and as a LiteRT file."""
    rng = np.random.default_rng(seed)
    input_scale, layers, scales = float(np.float32(1 / 32)), [], []
    scale_in = input_scale
    zeros = [int(rng.integers(-128, 128)) for _ in range(3)] + [0]
    for index in range(3):
        inputs, outputs = SIZES[index], SIZES[index + 1]
        weight_scale = float(np.float32(rng.uniform(0.001, 0.05)))
        scale_out = float(np.float32(rng.uniform(0.005, 0.1 if extreme else 0.05)))
        ratio = float(np.float64(scale_in) * np.float64(weight_scale) / np.float64(scale_out))
        if extreme:
            weights = rng.choice(np.array([-128, -127, 127], np.int8), (outputs, inputs))
            bias = rng.choice([-(1 << 27), -90_000, 0, 90_000, 1 << 27], outputs).astype(np.int32)
        else:
            weights = rng.integers(-127, 128, (outputs, inputs)).astype(np.int8)
            bias = rng.integers(-3000, 3000, outputs).astype(np.int32)
        layers.append(Layer(weights, bias, *quantise_multiplier(ratio), zeros[index], zeros[index + 1]))
        scales.append((weight_scale, scale_out))
        scale_in = scale_out
    return ModelImage(*layers), tflite(layers, scales, input_scale)


def reference(model: bytes, inputs: Int8) -> Int8:
    """Activations and outputs (vectors, 12) of LiteRT's ``BUILTIN_REF`` kernels."""
    interpreter = Interpreter(
        model_content=model, experimental_op_resolver_type=OpResolverType.BUILTIN_REF, num_threads=1
    )
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    targets = [detail["index"] for detail in interpreter.get_output_details()]
    results = []
    for row in inputs:
        interpreter.set_tensor(source, row[None])
        interpreter.invoke()
        results.append(np.concatenate([interpreter.get_tensor(target)[0] for target in targets]))
    return np.array(results, np.int8)
