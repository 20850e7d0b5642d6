"""The nodes of a graph that read a weight matrix: finding them, and putting other nodes in their place.

Shared by the weight-only schemes; it knows nothing of how weights are stored. Layers whose weight is computed
(but for a plain transpose), and convolutions, are not found.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from compress.quantize.blockwise import Floats

CONTRIB = "com.microsoft"
Weights = dict[str, TensorProto]


@dataclass(frozen=True, slots=True)
class Use:
    """One node that multiplies by, or looks up in, a weight; `transposed`: it is stored as [in, out]."""

    node: NodeProto
    weight: str
    transposed: bool

    @property
    def looks_up(self) -> bool:
        """Whether this is an embedding."""
        return bool(self.node.op_type == "Gather")

    @property
    def activation(self) -> str:
        """The tensor that is multiplied by the weight, or the rows that are looked up."""
        return str(self.node.input[1 if self.looks_up else 0])


def stored_weights(model: ModelProto) -> Weights:
    """Every initializer by its name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def weight_uses(model: ModelProto, weights: Weights) -> Iterator[Use]:
    """Every node that multiplies by a stored float32 matrix, or looks up in one."""
    transposes = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "Transpose" and node.input[0] in weights
    }
    for node in model.graph.node:
        if node.op_type == "MatMul":
            source = transposes.get(node.input[1], node.input[1])
            if _is_matrix(weights.get(source)):
                yield Use(node, source, transposed=source == node.input[1])
        elif node.op_type == "Gemm" and _is_matrix(weights.get(node.input[1])) and _is_plain_gemm(node):
            yield Use(node, node.input[1], transposed=not _attribute(node, "transB", 0))
        elif node.op_type == "Gather" and _is_matrix(weights.get(node.input[0])) and _takes_rows(node):
            yield Use(node, node.input[0], transposed=False)


def shared_weights(model: ModelProto, weights: Weights) -> list[list[Use]]:
    """The uses of each weight together, by its content: exporters may store a tied one twice, transposed."""
    groups: dict[bytes, list[Use]] = {}
    for use in weight_uses(model, weights):
        groups.setdefault(hashlib.sha256(table(weights, use).tobytes()).digest(), []).append(use)
    return list(groups.values())


def is_sensitive(model: ModelProto, uses: Sequence[Use]) -> bool:
    """Whether one of `uses` is an embedding, or the layer that gives an output."""
    outputs = {output.name for output in model.graph.output}
    return any(use.looks_up or bool(outputs.intersection(use.node.output)) for use in uses)


def table(weights: Weights, use: Use) -> Floats:
    """The weight as [out, in], which for an embedding is [tokens, width]."""
    array: Floats = numpy_helper.to_array(weights[use.weight]).astype(np.float32)
    return np.ascontiguousarray(array.T) if use.transposed else array


def read_by(node: NodeProto) -> Iterator[str]:
    """The tensors that a node reads: its inputs, and what bodies of loops and branches read from outside."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from read_by(inner)
            yield from (output.name for output in graph.output)


def replace_node(model: ModelProto, node: NodeProto, nodes: Sequence[NodeProto]) -> None:
    """Put `nodes` where `node` is."""
    at = list(model.graph.node).index(node)
    model.graph.node.remove(node)
    for offset, each in enumerate(nodes):
        model.graph.node.insert(at + offset, each)


def with_bias(use: Use, product: NodeProto) -> list[NodeProto]:
    """`product` and, for a node that also adds a bias, the addition that the new operator does not do."""
    if len(use.node.input) < 3:
        return [product]
    output, product.output[0] = product.output[0], f"{product.output[0]}.product"
    return [product, helper.make_node("Add", [product.output[0], use.node.input[2]], [output])]


def finish(model: ModelProto) -> None:
    """Remove what nothing reads any more (weights, their transposes), and import the operators used."""
    read = read_tensors(model)
    for node in [n for n in model.graph.node if n.op_type == "Transpose" and n.output[0] not in read]:
        model.graph.node.remove(node)
    read = read_tensors(model)
    seen: set[str] = set()
    for tensor in list(model.graph.initializer):
        if tensor.name not in read or tensor.name in seen:
            model.graph.initializer.remove(tensor)
        seen.add(tensor.name)
    if CONTRIB not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(onnx.helper.make_opsetid(CONTRIB, 1))


def read_tensors(model: ModelProto) -> set[str]:
    """Every tensor that a node reads, or that the graph gives."""
    outputs = {output.name for output in model.graph.output}
    return outputs.union(*(read_by(node) for node in model.graph.node))


def _is_matrix(weight: TensorProto | None) -> bool:
    return weight is not None and weight.data_type == TensorProto.FLOAT and len(weight.dims) == 2


def _is_plain_gemm(node: NodeProto) -> bool:
    scaled = any(_attribute(node, name, 1.0) != 1.0 for name in ("alpha", "beta"))
    return not scaled and not _attribute(node, "transA", 0)


def _takes_rows(node: NodeProto) -> bool:
    return not _attribute(node, "axis", 0)


def _attribute(node: NodeProto, name: str, default: float) -> float:
    found = [helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    return float(found[0]) if found else default
