"""Rewrites a freshly exported decoder graph into onnxruntime's fused kernels.

The exporter writes what the model's code says, a node an operation; at one token a step the nodes themselves
are what costs. The rules for norms are onnxscript's; `rotary` and `packing` hold ours. A rule that finds
nothing changes nothing, so an architecture with other means stays correct and is only slower.
"""

from collections.abc import Callable, Iterator, Mapping

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.rewriter.ort_fusions.rms_normalization import fuse_rms_normalization
from onnxscript.rewriter.ort_fusions.skip_normalization import (
    fuse_skip_layer_normalization,
    fuse_skip_rms_normalization,
)

from compress.export.packing import pack_attention, pack_products
from compress.export.rotary import fuse_rotary

Rule = Callable[[ir.Model], int]

_NORMS: dict[str, Rule] = {
    "norm": fuse_rms_normalization,
    "skip_norm": lambda model: fuse_skip_rms_normalization(model) + fuse_skip_layer_normalization(model),
}


def fuse_encoder(model: ir.Model) -> dict[str, int]:
    """Rewrite an encoder, which has no cache and no positions, in place; how often each rule applied."""
    return _apply(model, {**_NORMS, "packed_products": lambda model: pack_products(model.graph)})


def fuse_decoder(model: ir.Model, context_length: int) -> dict[str, int]:
    """Rewrite `model` in place; how often each rule applied. Positions go up to `context_length`."""
    rules = {
        **_NORMS,
        "rotary": lambda model: fuse_rotary(model.graph, context_length),
        "packed_attention": lambda model: pack_attention(model.graph),
        "packed_products": lambda model: pack_products(model.graph),
        "round_trips": lambda model: drop_round_trips(model.graph),
    }
    return _apply(model, rules)


def _apply(model: ir.Model, rules: Mapping[str, Rule]) -> dict[str, int]:
    counts = {}
    for name, rule in rules.items():
        counts[name] = rule(model)
        # What a rule leaves behind would count as a reader of its inputs for the next.
        RemoveUnusedNodesPass()(model)
    model.opset_imports.setdefault("com.microsoft", 1)
    return counts


def drop_round_trips(graph: ir.Graph) -> int:
    """Read a tensor itself where it was reshaped and reshaped back; how often."""
    count = 0
    for node in [node for node in graph if node.op_type == "Reshape"]:
        for source in _before_reshapes(node):
            if _same_shape(source, node.outputs[0]) and not node.outputs[0].is_graph_output():
                node.outputs[0].replace_all_uses_with(source)
                count += 1
                break
    return count


def _same_shape(one: ir.Value, other: ir.Value) -> bool:
    return one.shape is not None and one.shape == other.shape


def _before_reshapes(node: ir.Node | None) -> Iterator[ir.Value]:
    while node is not None and node.op_type == "Reshape" and node.inputs[0] is not None:
        yield node.inputs[0]
        node = node.inputs[0].producer()
