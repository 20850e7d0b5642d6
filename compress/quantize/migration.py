"""Dividing a tensor inside a graph by scales, and multiplying the weights that read it: nothing changes.

What AWQ and SmoothQuant share. The division costs nothing where it folds into what makes the tensor: a norm's
own scales, or the linear layer whose outputs it is (through ReLU, or as one side of a gated product).
Where others read a norm's output too, as a residual does, one multiplication is added. Tensors that come
from elsewhere (attention, GELU) are left alone: a node for each would cost more than it wins.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from compress.quantize.blockwise import Floats
from compress.quantize.graph import finish, read_by, shared_weights, stored_weights

# Which inputs of a norm multiply, or are added to, its first output.
NORMS = {
    "LayerNormalization": (1, 2),
    "SimplifiedLayerNormalization": (1,),
    "RMSNormalization": (1,),
    "SkipLayerNormalization": (2, 3),
    "SkipSimplifiedLayerNormalization": (2,),
}
PRODUCTS = ("MatMul", "Gemm")
LINEAR = (*PRODUCTS, "Add", "Split")


class Constant(NamedTuple):
    """A node's input that is divided along the node's outputs, or along `part` of them."""

    node: NodeProto
    at: int
    part: slice = slice(None)


@dataclass(slots=True)
class Migration:
    """How many divisions were folded, and the new names of the tensors that got a node instead."""

    folded: int = 0
    renamed: dict[str, str] = field(default_factory=dict)


def migrate(model: ModelProto, choose: Callable[[str, list[Floats]], Floats | None]) -> Migration:
    """Divide tensors of `model` in place by scales float32 [in].

    `choose` gives them for a tensor's name and the weights [out, in] of the layers that read it; None leaves
    it as it is. What the model computes stays the same but for rounding.
    """
    graph, done = _Graph(model), Migration()
    for tensor, layers in _sites(model, graph).items():
        scales = choose(tensor, [graph.weight(layer) for layer in layers])
        if scales is None or bool(np.all(scales == 1)):
            continue
        for layer in layers:
            graph.scale_columns(layer, scales)
        constants = graph.makers(tensor) if graph.is_read_by(tensor, layers) else None
        if constants:
            for constant in constants:
                graph.divide(constant, scales)
            done.folded += 1
        else:
            done.renamed[tensor] = graph.insert_division(tensor, layers, scales)
    finish(model)
    return done


def _sites(model: ModelProto, graph: "_Graph") -> dict[str, list[NodeProto]]:
    """The tensors that can be divided, in the order of the graph, each with the layers that read it.

    A weight with several readers, such as an embedding that is also the head, cannot take the scales of one.
    """
    found: dict[str, list[NodeProto]] = {}
    refused: set[str] = set()
    for uses in shared_weights(model, graph.constants):
        for use in uses:
            found.setdefault(use.activation, []).append(use.node)
            if len(uses) > 1 or use.looks_up or use.node.input[1] not in graph.constants:
                refused.add(use.activation)
    return {
        tensor: found[tensor]
        for tensor in graph.maker
        if tensor in found and tensor not in refused and graph.can_divide(tensor, found[tensor])
    }


class _Graph:
    """Who makes and who reads each tensor, and the constants, kept right while they change."""

    def __init__(self, model: ModelProto) -> None:
        self.model, self.constants = model, stored_weights(model)
        self.maker = {output: node for node in model.graph.node for output in node.output}
        self.outputs = {value.name for value in model.graph.output}
        self.readers: dict[str, list[str]] = {}
        for node in model.graph.node:
            for name in read_by(node):
                self.readers.setdefault(name, []).append(node.output[0])

    def can_divide(self, tensor: str, layers: list[NodeProto]) -> bool:
        made = self.makers(tensor)
        return bool(made) and (self.is_read_by(tensor, layers) or self._is_norm(self.maker[tensor]))

    def is_read_by(self, tensor: str, layers: list[NodeProto]) -> bool:
        """Whether `layers` are all that reads `tensor`."""
        return tensor not in self.outputs and set(self.readers[tensor]) == {n.output[0] for n in layers}

    def makers(self, tensor: str) -> list[Constant] | None:
        """The constants whose division divides `tensor`, or None where there are none."""
        node = self.maker.get(tensor)
        if node is None:
            return None
        if self._is_norm(node):
            own = NORMS.get(node.op_type, range(len(node.input))) if tensor == node.output[0] else ()
            found = [at for at in own if at < len(node.input) and node.input[at] in self.constants]
            return [Constant(node, at) for at in found]
        if node.op_type in PRODUCTS:
            constants = range(1, len(node.input))
            known = all(node.input[at] in self.constants for at in constants)
            return [Constant(node, at) for at in constants] if known else None
        if node.op_type == "Relu":
            return self._behind(node.input[0])
        if node.op_type == "Mul":
            return self._behind(node.input[0], *LINEAR) or self._behind(node.input[1], *LINEAR)
        if node.op_type == "Split":
            return self._part(node, tensor)
        return self._with_bias(node) if node.op_type == "Add" else None

    def weight(self, layer: NodeProto) -> Floats:
        """A layer's weight as [out, in]."""
        values = self._values(layer.input[1])
        return values if _is_rows(layer) else np.ascontiguousarray(values.T)

    def scale_columns(self, layer: NodeProto, scales: Floats) -> None:
        """Multiply the weight's input columns."""
        values = self._values(layer.input[1])
        self._replace(layer, 1, values * (scales if _is_rows(layer) else scales[:, None]))

    def divide(self, constant: Constant, scales: Floats) -> None:
        """Divide a constant along the outputs that it makes."""
        node, at, part = constant.node, constant.at, constant.part
        values = self._values(node.input[at]).copy()
        if node.op_type == "Gemm" and at == 1 and _is_rows(node):
            values[part] /= scales[:, None]
        else:
            values[..., part] /= scales
        self._replace(node, at, values)

    def insert_division(self, tensor: str, layers: list[NodeProto], scales: Floats) -> str:
        """Give `layers` a divided copy of `tensor`; its name."""
        divided = f"{tensor}.divided"
        factor = numpy_helper.from_array((1 / scales).astype(np.float32), f"{divided}.by")
        self.model.graph.initializer.append(factor)
        at = [node.output[0] for node in self.model.graph.node].index(self.maker[tensor].output[0])
        self.model.graph.node.insert(at + 1, helper.make_node("Mul", [tensor, factor.name], [divided]))
        for layer in layers:
            layer.input[0] = divided
        return divided

    def _is_norm(self, node: NodeProto) -> bool:
        """Whether the last thing that `node` does is to multiply by a constant vector."""
        by_vector = node.op_type == "Mul" and any(self._is_vector(name) for name in node.input)
        return by_vector or node.op_type in NORMS

    def _with_bias(self, node: NodeProto) -> list[Constant] | None:
        for bias, product in ((0, 1), (1, 0)):
            if self._is_vector(node.input[bias]):
                made = self._behind(node.input[product], *PRODUCTS)
                return [*made, Constant(node, bias)] if made else None
        return None

    def _part(self, split: NodeProto, tensor: str) -> list[Constant] | None:
        """The columns that make one of the tensors that a joined product is split into."""
        made = self._behind(split.input[0], *PRODUCTS, "Add")
        if not made or len(split.input) < 2 or split.input[1] not in self.constants:
            return None
        ends = np.cumsum(numpy_helper.to_array(self.constants[split.input[1]]))
        index = list(split.output).index(tensor)
        part = slice(int(ends[index - 1]) if index else 0, int(ends[index]))
        return [Constant(each.node, each.at, part) for each in made]

    def _behind(self, tensor: str, *kinds: str) -> list[Constant] | None:
        """`makers` of a tensor that only one node reads, if a node of `kinds` (any, if none) makes it."""
        node = self.maker.get(tensor)
        alone = len(self.readers[tensor]) == 1 and tensor not in self.outputs
        fits = node is not None and (not kinds or node.op_type in kinds)
        return self.makers(tensor) if alone and fits else None

    def _is_vector(self, name: str) -> bool:
        return name in self.constants and len(self.constants[name].dims) == 1

    def _values(self, name: str) -> Floats:
        return np.asarray(numpy_helper.to_array(self.constants[name]), np.float32)

    def _replace(self, node: NodeProto, at: int, values: Floats) -> None:
        """Exporters store equal constants once, so the changed one is a new one, for this node alone."""
        name = f"{node.output[0]}.input{at}"
        tensor = numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name)
        if name in self.constants:
            self.constants[name].CopyFrom(tensor)
        else:
            self.model.graph.initializer.append(tensor)
            self.constants[name] = self.model.graph.initializer[-1]
        node.input[at] = name


def _is_rows(layer: NodeProto) -> bool:
    """Whether a layer's weight is stored as [out, in]."""
    return any(each.name == "transB" and each.i for each in layer.attribute)
