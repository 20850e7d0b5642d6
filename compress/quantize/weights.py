"""int8 storage of convolution weights, and trimming of what quantized graphs carry for nothing."""

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper, numpy_helper

from compress.quantize.graph import read_tensors

Floats = npt.NDArray[np.float32]

INT8_TOP = 127


def split_convolutions(model: ModelProto, min_channels: int) -> tuple[list[str], list[str]]:
    """Names of the convolutions that sum over fewer than `min_channels` input channels each, and the rest."""
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in shapes]
    is_narrow = {node.name: shapes[node.input[1]][1] < min_channels for node in nodes}
    return [name for name, narrow in is_narrow.items() if narrow], [
        name for name, narrow in is_narrow.items() if not narrow
    ]


def store_convolutions(model: ModelProto) -> None:
    """Replace each float32 convolution weight [out, in, ...] by int8 with one scale an output channel."""
    weights = {t.name: t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}
    names = dict.fromkeys(node.input[1] for node in model.graph.node if node.op_type == "Conv")
    for name in [name for name in names if name in weights]:
        values, scales = _symmetric(numpy_helper.to_array(weights[name]))
        model.graph.initializer.remove(weights[name])
        model.graph.initializer.append(numpy_helper.from_array(values, f"{name}.q"))
        model.graph.initializer.append(numpy_helper.from_array(scales, f"{name}.s"))
        dequantize = helper.make_node("DequantizeLinear", [f"{name}.q", f"{name}.s"], [name], axis=0)
        model.graph.node.insert(0, dequantize)


def drop_zero_points(model: ModelProto) -> None:
    """Remove weights' and biases' zero points that are all zero: it is what an absent one means.

    Not those of a Gemm: without them onnxruntime 1.31 multiplies in float32.
    """
    zeros = {
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type in (TensorProto.INT8, TensorProto.INT32)
        and not numpy_helper.to_array(tensor).any()
    }
    constants = {tensor.name for tensor in model.graph.initializer}
    fused = {name for node in model.graph.node if node.op_type == "Gemm" for name in node.input}
    for node in [each for each in model.graph.node if each.output[0] not in fused]:
        of_constant = node.op_type == "DequantizeLinear" and node.input[0] in constants
        if of_constant and zeros.issuperset(node.input[2:]):
            del node.input[2:]
    read = read_tensors(model)
    for tensor in [t for t in model.graph.initializer if t.name in zeros and t.name not in read]:
        model.graph.initializer.remove(tensor)


def _symmetric(weight: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Round to nearest, one scale a row of the first axis, zero at zero."""
    peaks = np.abs(weight).reshape(len(weight), -1).max(1)
    scales = np.maximum(peaks / INT8_TOP, np.finfo(np.float32).tiny).astype(np.float32)
    shape = (-1, *[1] * (weight.ndim - 1))
    return np.round(weight / scales.reshape(shape)).astype(np.int8), scales
