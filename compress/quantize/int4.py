"""Weight-only quantization of a graph: MatMulNBits for linear layers, GatherBlockQuantized for embeddings.

The numbers come from `blockwise`; this file rewrites nodes. An embedding that is also the output head is
stored once and read by both. Layers whose weight is computed, and convolutions, stay as they are.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from compress.quantize.blockwise import Blocks, Floats, pack, pack_zero_points, quantize_blocks

CONTRIB = "com.microsoft"


@dataclass(frozen=True, slots=True)
class _Use:
    """One node that multiplies by, or looks up in, a weight; `transposed`: it is stored as [in, out]."""

    node: NodeProto
    weight: str
    transposed: bool


def quantize_weights(
    model: ModelProto, *, bits: int, head_bits: int, group_size: int, accuracy_level: int
) -> dict[str, float]:
    """Rewrite `model` in place. `head_bits` is for embeddings and for the layer that gives the output.

    Returns figures: weights quantized, and the relative error of the worst one.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    groups: dict[bytes, list[_Use]] = {}
    for use in _uses(model, weights):
        # By content: exporters may store a tied weight twice, once of them transposed.
        groups.setdefault(hashlib.sha256(_table(weights, use).tobytes()).digest(), []).append(use)
    worst, count = 0.0, 0
    for uses in groups.values():
        name, table = uses[0].weight, _table(weights, uses[0])
        sensitive = any(_is_sensitive(use, model) for use in uses)
        blocks = quantize_blocks(table, head_bits if sensitive else bits, group_size)
        worst = max(worst, _relative_error(table, blocks.dequantize()))
        count += table.size
        _store(model, name, blocks)
        for use in uses:
            _replace(model, replace(use, weight=name), blocks, group_size, accuracy_level)
    _drop_unused(model)
    _import_contrib(model)
    return {"weights": count, "worst_relative_error": worst}


def quantize_embeddings(model: ModelProto, *, bits: int, group_size: int) -> None:
    """Rewrite only the embedding look-ups of `model`, in place."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for use in [use for use in _uses(model, weights) if use.node.op_type == "Gather"]:
        blocks = quantize_blocks(_table(weights, use), bits, group_size)
        _store(model, use.weight, blocks)
        _replace(model, use, blocks, group_size, 0)
    _drop_unused(model)
    _import_contrib(model)


def _uses(model: ModelProto, weights: dict[str, TensorProto]) -> Iterator[_Use]:
    transposes = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "Transpose" and node.input[0] in weights
    }
    for node in model.graph.node:
        if node.op_type == "MatMul":
            source = transposes.get(node.input[1], node.input[1])
            if _is_matrix(weights.get(source)):
                yield _Use(node, source, transposed=source == node.input[1])
        elif node.op_type == "Gemm" and _is_matrix(weights.get(node.input[1])) and _is_plain_gemm(node):
            yield _Use(node, node.input[1], transposed=not _attribute(node, "transB", 0))
        elif node.op_type == "Gather" and _is_matrix(weights.get(node.input[0])):
            yield _Use(node, node.input[0], transposed=False)


def _is_matrix(weight: TensorProto | None) -> bool:
    return weight is not None and weight.data_type == TensorProto.FLOAT and len(weight.dims) == 2


def _is_plain_gemm(node: NodeProto) -> bool:
    return not _attribute(node, "transA", 0) and _attribute(node, "alpha", 1.0) == 1.0


def _attribute(node: NodeProto, name: str, default: float) -> float:
    found = [helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    return float(found[0]) if found else default


def _is_sensitive(use: _Use, model: ModelProto) -> bool:
    outputs = {output.name for output in model.graph.output}
    return use.node.op_type == "Gather" or bool(outputs.intersection(use.node.output))


def _table(weights: dict[str, TensorProto], use: _Use) -> Floats:
    """The weight as [out, in], which for an embedding is [tokens, width]."""
    array: Floats = numpy_helper.to_array(weights[use.weight]).astype(np.float32)
    return np.ascontiguousarray(array.T) if use.transposed else array


def _relative_error(weight: Floats, approximation: Floats) -> float:
    return float(np.linalg.norm(weight - approximation) / max(float(np.linalg.norm(weight)), 1e-12))


def _store(model: ModelProto, name: str, blocks: Blocks) -> None:
    packed = {"q": pack(blocks), "s": blocks.scales, "z": pack_zero_points(blocks)}
    model.graph.initializer.extend(
        numpy_helper.from_array(value, f"{name}.{part}") for part, value in packed.items()
    )


def _replace(model: ModelProto, use: _Use, blocks: Blocks, group_size: int, accuracy_level: int) -> None:
    make = _lookup_nodes if use.node.op_type == "Gather" else _matmul_nodes
    nodes = make(use, blocks, group_size, accuracy_level)
    at = list(model.graph.node).index(use.node)
    model.graph.node.remove(use.node)
    for offset, node in enumerate(nodes):
        model.graph.node.insert(at + offset, node)
    if use.node.op_type == "Gather":
        flat = np.array([blocks.shape[0], -1], np.int64)
        model.graph.initializer.append(numpy_helper.from_array(flat, f"{use.node.output[0]}.flat"))


def _matmul_nodes(use: _Use, blocks: Blocks, group_size: int, accuracy_level: int) -> list[NodeProto]:
    has_bias = len(use.node.input) > 2
    output = use.node.output[0]
    product = helper.make_node(
        "MatMulNBits",
        [use.node.input[0], *(f"{use.weight}.{part}" for part in "qsz")],
        [f"{output}.product" if has_bias else output],
        domain=CONTRIB,
        K=blocks.shape[1],
        N=blocks.shape[0],
        bits=blocks.bits,
        block_size=group_size,
        accuracy_level=accuracy_level,
    )
    if not has_bias:
        return [product]
    return [product, helper.make_node("Add", [product.output[0], use.node.input[2]], [output])]


def _lookup_nodes(use: _Use, blocks: Blocks, group_size: int, accuracy_level: int) -> list[NodeProto]:
    output = use.node.output[0]
    rows = f"{output}.rows"
    return [
        helper.make_node("Reshape", [f"{use.weight}.q", f"{output}.flat"], [rows]),
        helper.make_node(
            "GatherBlockQuantized",
            [rows, use.node.input[1], f"{use.weight}.s", f"{use.weight}.z"],
            [output],
            domain=CONTRIB,
            bits=blocks.bits,
            block_size=group_size,
            gather_axis=0,
            quantize_axis=1,
        ),
    ]


def _drop_unused(model: ModelProto) -> None:
    """Remove weights that nothing reads any more, and the transposes that were made of them."""
    read = {name for node in model.graph.node for name in node.input} | {o.name for o in model.graph.output}
    for node in [n for n in model.graph.node if n.op_type == "Transpose" and n.output[0] not in read]:
        model.graph.node.remove(node)
    read = {name for node in model.graph.node for name in node.input}
    seen: set[str] = set()
    for tensor in list(model.graph.initializer):
        if tensor.name not in read or tensor.name in seen:
            model.graph.initializer.remove(tensor)
        seen.add(tensor.name)


def _import_contrib(model: ModelProto) -> None:
    if CONTRIB not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(onnx.helper.make_opsetid(CONTRIB, 1))
