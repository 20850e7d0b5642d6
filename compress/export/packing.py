"""Joins matrix products that read the same tensor into one: query, key and value; gate and up.

One larger product is one node to dispatch, one pass over the input to quantize, and one division of work
among the threads. The attention operator takes its three parts as one tensor; others are split apart again.
Only products with weights of their own are joined: a weight that something else reads stays where it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compress.export.names import joined_scopes, module_path
from runtime.processing import Array

QUERY, KEY, VALUE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class _Projection:
    """One product, `weight` [in, out], with the bias [out] that is added to it, and its result."""

    source: ir.Value
    weight: ir.Value
    bias: ir.Value | None
    output: ir.Value


def pack_attention(graph: ir.Graph) -> int:
    """Give each attention node its query, key and value as one product's result; how many took it."""
    count = 0
    for node in [node for node in graph if node.op_type == "GroupQueryAttention"]:
        parts = [_projection(_unreshaped(node.inputs[at])) for at in (QUERY, KEY, VALUE)]
        found = [part for part in parts if part is not None]
        if len(found) == len(parts) and _joinable(found):
            node.replace_input_with(QUERY, _join(graph, node, found))
            node.replace_input_with(KEY, None)
            node.replace_input_with(VALUE, None)
            count += 1
    return count


def pack_products(graph: ir.Graph) -> int:
    """Join the remaining products that read the same tensor, and split the result; how many groups."""
    readers: dict[ir.Value, list[_Projection]] = {}
    for node in graph:
        if node.op_type == "MatMul" and (found := _product(node.outputs[0])) is not None:
            readers.setdefault(found.source, []).append(found)
    groups = [parts for parts in readers.values() if len(parts) > 1 and _joinable(parts)]
    for parts in groups:
        first = parts[0].output.producer()  # they were found in the graph's order
        assert first is not None
        joined = _join(graph, first, parts)
        widths = ir.tensor([_width(part) for part in parts], ir.DataType.INT64, f"{joined.name}.widths")
        sizes = ir.val(str(widths.name), const_value=widths)
        graph.register_initializer(sizes)
        split = ir.node("Split", [joined, sizes], attributes={"axis": -1}, num_outputs=len(parts))
        first.prepend(split)
        for part, output in zip(parts, split.outputs, strict=True):
            output.shape, output.type = part.output.shape, part.output.type
            part.output.replace_all_uses_with(output)
    return len(groups)


def _join(graph: ir.Graph, before: ir.Node, parts: Sequence[_Projection]) -> ir.Value:
    """One product (and bias) of all `parts`, in their order, inserted before a node."""
    name = f"{parts[0].output.name}.joined"
    weight = _constant(
        graph, f"{name}.weight", np.concatenate([_array(part.weight) for part in parts], axis=1)
    )
    product = ir.node("MatMul", [parts[0].source, weight])
    before.prepend(product)
    producers = [part.output.producer() for part in parts]
    product.metadata_props.update(joined_scopes([module_path(p.metadata_props) for p in producers if p]))
    joined = product.outputs[0]
    if any(part.bias is not None for part in parts):
        biases = [np.zeros(_width(p), np.float32) if p.bias is None else _array(p.bias) for p in parts]
        added = ir.node("Add", [joined, _constant(graph, f"{name}.bias", np.concatenate(biases))])
        before.prepend(added)
        joined = added.outputs[0]
    joined.name = name
    shape = parts[0].output.shape
    assert shape is not None
    joined.shape = ir.Shape([*list(shape)[:-1], sum(_width(part) for part in parts)])
    joined.type = parts[0].output.type
    product.outputs[0].shape, product.outputs[0].type = joined.shape, joined.type
    return joined


def _joinable(parts: Sequence[_Projection]) -> bool:
    same_source = all(part.source is parts[0].source for part in parts)
    return same_source and all(len(part.weight.uses()) == 1 for part in parts)


def _projection(value: ir.Value | None) -> _Projection | None:
    """The product that made `value`, with the bias that was added to it, if any."""
    node = value.producer() if value is not None else None
    if value is None or node is None:
        return None
    if node.op_type != "Add":
        return _product(value)
    for made, bias in (node.inputs, node.inputs[::-1]):
        found = _product(made)
        if found is not None and bias is not None and _is_constant(bias, rank=1):
            return _Projection(found.source, found.weight, bias, value)
    return None


def _product(value: ir.Value | None) -> _Projection | None:
    node = value.producer() if value is not None else None
    if value is None or node is None or node.op_type != "MatMul":
        return None
    source, weight = node.inputs
    if source is None or weight is None or not _is_constant(weight, rank=2):
        return None
    return _Projection(source, weight, None, value)


def _unreshaped(value: ir.Value | None) -> ir.Value | None:
    """The tensor [batch, length, width] that `value`, of that shape, came from by way of the heads."""
    found = value
    while found is not None and (node := found.producer()) is not None and node.op_type == "Reshape":
        found = node.inputs[0]
    same = found is not None and value is not None and found.shape is not None and found.shape == value.shape
    return found if same else None


def _is_constant(value: ir.Value, rank: int) -> bool:
    return value.const_value is not None and len(value.const_value.shape) == rank


def _array(value: ir.Value) -> Array:
    assert value.const_value is not None
    array: Array = value.const_value.numpy()
    return array


def _width(part: _Projection) -> int:
    return int(_array(part.weight).shape[1])


def _constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value
