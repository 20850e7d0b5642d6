"""int8 by onnxruntime's own quantizer: dynamic, and static with calibrated ranges in QDQ form.

It prepares the graph (shapes inferred, batch norms folded) and feeds calibration data; the arithmetic is
onnxruntime's. What its quantizer would handle badly, `weights` does: embeddings get a scale a row instead
of one for the table, and convolutions too narrow for int8 kernels keep float32 arithmetic on int8 weights.
So do a network's last convolutions: their output has one scale, and a detector's holds boxes and logits.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator, save_tensors_data
from onnxruntime.quantization.shape_inference import quant_pre_process

from compress.errors import StepError, first_line
from compress.export.graph import save_model, strip
from compress.quantize.config import CalibrationConfig, Int8Dynamic, Int8Static, LlmInt8
from compress.quantize.graph import read_by, stored_weights
from compress.quantize.opsets import opsets_of
from compress.quantize.ranges import best_range
from compress.quantize.weight_only import quantize_embeddings
from compress.quantize.weights import drop_zero_points, split_convolutions, store_convolutions
from runtime.processing import Array

# From this one on QuantizeLinear and DequantizeLinear have an axis.
OPSET = 13
WEIGHTED = ["Conv", "MatMul", "Gemm"]
# Between int8 convolutions these stay in int8; elsewhere they would only add conversions.
BETWEEN = ["Add", "AveragePool", "Clip", "Concat", "GlobalAveragePool", "MaxPool", "Mul", "Relu", "Sigmoid"]
OBSERVERS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
    "mse": CalibrationMethod.Percentile,  # for its histograms: the range is `ranges.best_range`
}


def dynamic(
    config: Int8Dynamic | LlmInt8, source: Path, target: Path, in_float: Collection[str] = ()
) -> None:
    """Quantize the graph at `source` into `target`: int8 weights, activations as they come.

    Layers whose weight is named in `in_float` stay as they are.
    """
    with _quiet():
        prepared = _prepare(source, target)
        transpose_heads(prepared)
        own_gemm_weights(prepared)
        quantize_dynamic(
            prepared,
            target,
            op_types_to_quantize=["MatMul", "Gemm", "LSTM", "Attention"],
            per_channel=config.per_channel,
            reduce_range=config.reduce_range,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_readers(prepared, [*in_float, *map(_turned, in_float)]),
            # Types past GroupQueryAttention cannot be inferred: onnx does not know the operator.
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    _finish(target, prepared)


def transpose_heads(path: Path) -> None:
    """Store transposed each weight of the graph at `path` that is transposed before it is multiplied by.

    onnxruntime's optimizer has done so before, but not where a head tied to its embedding would then be
    twice in a file of over 2 GB; it stays in float32 there, since the quantizer takes stored weights only.
    So the embedding gets its 8 bits first, and the weight has one reader left. What is over 2 GB even so
    stays as it is.
    """
    model = onnx.load(path)
    weights = stored_weights(model)
    found = [node for node in model.graph.node if node.op_type == "Transpose" and node.input[0] in weights]
    if not found:
        return
    quantize_embeddings(model)
    weights = stored_weights(model)
    for node in found:
        readers = [each for each in model.graph.node if node.input[0] in read_by(each)]
        if len(weights[node.input[0]].dims) == 2 and len(readers) == 1:
            array = np.ascontiguousarray(numpy_helper.to_array(weights[node.input[0]]).T)
            weights[node.input[0]].CopyFrom(numpy_helper.from_array(array, node.output[0]))
            model.graph.node.remove(node)
    if model.ByteSize() < onnx.checker.MAXIMUM_PROTOBUF:
        save_model(model, path)


def own_gemm_weights(path: Path) -> None:
    """Give the Gemms of the graph at `path` a weight of their own, [in, out], where others read it too.

    onnxruntime's quantizer transposes the weight of a Gemm where it stands, once for each Gemm: an embedding
    that reads the same one would look up columns, and a second Gemm would multiply by its transpose.
    """
    model = onnx.load(path)
    weights = stored_weights(model)
    readers = Counter(name for node in model.graph.node for name in read_by(node))
    changed = False
    for node in model.graph.node:
        turned = [each for each in node.attribute if each.name == "transB" and each.i]
        if node.op_type != "Gemm" or not turned or readers[node.input[1]] < 2 or node.input[1] not in weights:
            continue
        changed = True
        own = _turned(node.input[1])
        if own not in weights:
            array = np.ascontiguousarray(numpy_helper.to_array(weights[node.input[1]]).T)
            weights[own] = numpy_helper.from_array(array, own)
            model.graph.initializer.append(weights[own])
        node.input[1] = own
        node.attribute.remove(turned[0])
    if changed:
        save_model(model, path)


def _turned(weight: str) -> str:
    return f"{weight}.transposed"


def static(config: Int8Static, source: Path, target: Path, batches: Iterator[dict[str, Array]]) -> None:
    """Quantize the graph at `source` into `target` with ranges observed over `batches` of real inputs."""
    with _quiet():
        prepared = _prepare(source, target)
        model = onnx.load(prepared)
        narrow, wide = split_convolutions(model, config.min_channels)
        operators = WEIGHTED + BETWEEN if wide else WEIGHTED
        left = list(dict.fromkeys([*narrow, *after_weights(model)]))
        observed = _observe(config.calibration, prepared, operators, batches)
        quantize_static(
            prepared,
            target,
            calibration_cache_path=observed,
            quant_format=QuantFormat.QDQ,
            calibrate_method=CalibrationMethod.MinMax,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=config.per_channel,
            reduce_range=config.reduce_range,
            op_types_to_quantize=operators,
            nodes_to_exclude=left,
        )
    observed.unlink()
    _finish(target, prepared)


def after_weights(model: onnx.ModelProto) -> list[str]:
    """The nodes of `BETWEEN`, and the convolutions, that feed no weights any more.

    What decodes a network's outputs is between nothing: a detector's boxes, in parts of the image, would
    share a scale with its logits, and be left no digits. The convolution that both come from has the same
    trouble, a little milder (docs/log.md); a last Gemm gives logits alone, and stays in int8.
    """
    needed: set[str] = set()
    found = []
    for node in reversed(model.graph.node):
        weighted, feeds = node.op_type in WEIGHTED, not needed.isdisjoint(node.output)
        if not feeds and node.op_type in ["Conv", *BETWEEN]:
            found.append(node.name)
        if weighted or feeds:
            needed.update(node.input)
    return found


def _readers(graph: Path, weights: Collection[str]) -> list[str]:
    """Names of the nodes that read one of these weights, and what the quantizer calls their products."""
    nodes = onnx.load(graph).graph.node if weights else ()
    names = [node.name for node in nodes if not set(node.input).isdisjoint(weights)]
    # A product and a sum may have become a Gemm, which the quantizer takes apart before it excludes.
    return [*names, *(f"{name}_MatMul" for name in names)]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """onnxruntime's calibration interface over an iterator of named batches."""

    def __init__(self, batches: Iterator[dict[str, Array]]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, Array] | None:
        return next(self._batches, None)


def _observe(
    config: CalibrationConfig, prepared: Path, operators: list[str], batches: Iterator[dict[str, Array]]
) -> Path:
    """A file of the ranges of every activation, as onnxruntime's quantizer reads them."""
    augmented = prepared.with_suffix(".augmented.onnx")
    options = {"percentile": config.percentile} if config.observer == "percentile" else {}
    if config.observer == "mse":
        options = {"percentile": 100.0, "symmetric": False}
    calibrator: Any = create_calibrator(
        prepared, operators, str(augmented), OBSERVERS[config.observer], extra_options=options
    )
    # A batch at a time: given all of them, it keeps every activation, and wants batches of one size.
    for batch in batches:
        calibrator.collect_data(_Reader(iter([batch])))
    ranges = _least_squares(calibrator) if config.observer == "mse" else _ranges(calibrator)
    observed = prepared.with_suffix(".ranges.json")
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, ranges), observed)
    augmented.unlink(missing_ok=True)
    return observed


def _ranges(calibrator: Any) -> dict[str, Any]:
    return {name: found.range_value for name, found in calibrator.compute_data().items()}


def _least_squares(calibrator: Any) -> dict[str, Any]:
    histograms = calibrator.collector.get_histogram_dict()
    found = {
        name: best_range(counts, edges, float(low), float(high))
        for name, (counts, edges, low, high, _) in histograms.items()
    }
    return {name: tuple(np.array(end, np.float32) for end in ends) for name, ends in found.items()}


def _prepare(source: Path, target: Path) -> Path:
    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(_modern(source, prepared), prepared, skip_symbolic_shape=True)
    model = onnx.load(prepared)
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"  # the quantizer excludes nodes by name
    # The quantizer transposes weights, and then finds that shapes noted before it did are wrong.
    weights = stored_weights(model)
    noted = [value for value in model.graph.value_info if value.name in weights]
    for value in noted:
        model.graph.value_info.remove(value)
    onnx.save_model(model, str(prepared))
    return prepared


def _modern(source: Path, beside: Path) -> Path:
    """The graph at `source`, or one of a newer opset in the folder of `beside`, as scales a channel need.

    Raises StepError where onnx cannot convert it.
    """
    opset = opsets_of(source).get("", OPSET)
    if opset >= OPSET:
        return source
    try:
        model = onnx.version_converter.convert_version(onnx.load(source), OPSET)
    except Exception as error:  # of C++ code, which has no kind of its own
        raise StepError(
            f"int8 needs a graph of opset {OPSET} or later, and this one of {opset} cannot be converted "
            f"({first_line(error)[:200]}); export it again"
        ) from None
    converted = beside.with_suffix(".converted")
    save_model(model, converted)
    return converted


def _finish(target: Path, prepared: Path) -> None:
    prepared.unlink()
    prepared.with_suffix(".converted").unlink(missing_ok=True)
    model = onnx.load(target)
    quantize_embeddings(model)
    store_convolutions(model)
    drop_zero_points(model)
    strip(model)
    save_model(model, target)


@contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime's quantizer logs advice for its developers on the root logger, and prints its progress."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        root.setLevel(before)
