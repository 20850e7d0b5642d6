"""LLM.int8 (Dettmers et al., arXiv:2208.07339): the few inputs with outliers stay in float, the rest is int8.

A tensor has one 8-bit range, so one input with large values costs all the others their resolution. Here it is
taken out of the product, with the weights that read it: two products, whose sum is the layer's. Which
inputs those are is settled on calibration data, where the paper looks at every batch: the graph keeps its
shapes, and an outlier that calibration has not seen only widens the range, as without this.
It rounds nothing itself: the wide product is left to `int8`, which is told what to keep in float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, helper, numpy_helper

from compress.quantize.blockwise import Floats
from compress.quantize.graph import Use, finish, replace_node, shared_weights, stored_weights, table

Mask = npt.NDArray[np.bool_]


def outlier_columns(peaks: Floats, threshold: float) -> Mask:
    """Which inputs reach `threshold` in magnitude, bool [in]; `peaks` float32 [in] are their largest."""
    return np.asarray(peaks >= threshold)


def split_columns(weight: Floats, outliers: Mask) -> tuple[Floats, Floats]:
    """A weight [out, in] as the one of the tame inputs [out, in], zero at the outliers, and theirs [out, k].

    X W^T = (X with its outliers zeroed) rest^T + X[:, outliers] thin^T.
    """
    return np.where(outliers, np.float32(0), weight), np.ascontiguousarray(weight[:, outliers])


@dataclass(slots=True)
class Separated:
    """What became of the layers: weights that must stay in float32, by name, and what was counted."""

    in_float: set[str] = field(default_factory=set)
    layers: int = 0
    inputs: int = 0
    outliers: int = 0

    def figures(self) -> dict[str, float]:
        """Layers with outliers, and the share of all layers' inputs that are some."""
        share = self.outliers / self.inputs if self.inputs else 0.0
        return {"layers_with_outliers": self.layers, "outlier_share": share}


def separate_outliers(model: ModelProto, peaks: Mapping[str, Floats], threshold: float) -> Separated:
    """Split the products of `model` in place, given `peaks` max|X| [in] by tensor X.

    A layer of nothing but outliers stays whole, in float32; one over an embedding's weight is left to int8.
    """
    weights, done = stored_weights(model), Separated()
    parted: dict[str, tuple[str, str]] = {}
    layers = [uses for uses in shared_weights(model, weights) if not any(use.looks_up for use in uses)]
    for use in [use for uses in layers for use in uses]:
        outliers = outlier_columns(peaks[use.activation], threshold)
        done.inputs, done.outliers = done.inputs + len(outliers), done.outliers + int(outliers.sum())
        done.layers += bool(outliers.any())
        if outliers.all():
            done.in_float.add(use.node.input[1])
        elif outliers.any():
            if use.activation not in parted:
                parted[use.activation] = _part(model, use, outliers)
            done.in_float.add(_split(model, use, table(weights, use), outliers, parted[use.activation]))
    finish(model)
    return done


def _part(model: ModelProto, use: Use, outliers: Mask) -> tuple[str, str]:
    """Put an activation's copy without outliers, and its outliers, before its first reader; their names."""
    activation = use.activation
    tame, wild = f"{activation}.tame", f"{activation}.outliers"
    _store(model, f"{tame}.mask", (~outliers).astype(np.float32))
    _store(model, f"{wild}.at", np.flatnonzero(outliers))
    nodes = [
        helper.make_node("Mul", [activation, f"{tame}.mask"], [tame]),
        helper.make_node("Gather", [activation, f"{wild}.at"], [wild], axis=-1),
    ]
    first = next(at for at, node in enumerate(model.graph.node) if activation in node.input)
    for node in reversed(nodes):
        model.graph.node.insert(first, node)
    return tame, wild


def _split(model: ModelProto, use: Use, weight: Floats, outliers: Mask, parts: tuple[str, str]) -> str:
    """Make of one layer two and their sum; the name of the weight that stays in float32."""
    node, output = use.node, str(use.node.output[0])
    rest, thin = split_columns(weight, outliers)
    in_rows = node.op_type == "Gemm" and not use.transposed
    _store(model, f"{output}.rest", rest if in_rows else rest.T)
    _store(model, f"{output}.thin", thin.T)
    wide = type(node)()
    wide.CopyFrom(node)
    wide.input[0], wide.input[1], wide.output[0] = parts[0], f"{output}.rest", f"{output}.wide"
    product = helper.make_node("MatMul", [parts[1], f"{output}.thin"], [f"{output}.narrow"])
    total = helper.make_node("Add", [f"{output}.wide", f"{output}.narrow"], [output])
    replace_node(model, node, [wide, product, total])
    return f"{output}.thin"


def _store(model: ModelProto, name: str, values: npt.NDArray[np.generic]) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
