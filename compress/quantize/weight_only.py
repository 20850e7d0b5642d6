"""Weight-only quantization of a graph: MatMulNBits for linear layers, GatherBlockQuantized for embeddings.

The integers come from `blockwise`, `hqq` or `gptq` (for AWQ, `scaling` has been there first); this file
rewrites nodes. An embedding that is also the
output head is stored once and read by both, and always by rounding to nearest: a Hessian is of a layer's
inputs, and a look-up has none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, helper, numpy_helper

from compress.quantize.blockwise import (
    Blocks,
    Floats,
    is_centred,
    pack,
    pack_zero_points,
    quantize_blocks,
    quantize_rows,
)
from compress.quantize.config import WeightOnly
from compress.quantize.gptq import Doubles, output_error, quantize_gptq
from compress.quantize.graph import (
    CONTRIB,
    Use,
    finish,
    is_sensitive,
    replace_node,
    shared_weights,
    stored_weights,
    table,
    weight_uses,
    with_bias,
)
from compress.quantize.hqq import quantize_hqq


def quantize_weights(
    model: ModelProto, config: WeightOnly, hessians: Mapping[str, Doubles]
) -> dict[str, float]:
    """Rewrite `model` in place. `hessians` are X^T X [in, in] by activation, for GPTQ and AWQ; else empty.

    Returns figures: weights quantized, the relative error of the worst one, and with Hessians the relative
    error of the layers' outputs (root mean square).
    """
    weights = stored_weights(model)
    tally = _Tally()
    for uses in shared_weights(model, weights):
        weight = table(weights, uses[0])
        bits = config.head_bits if is_sensitive(model, uses) else config.bits
        hessian = _hessian(uses, hessians)
        blocks = _choose(config, weight, bits, hessian)
        tally.add(weight, blocks)
        if hessian is not None:
            tally.add_outputs(weight, blocks, hessian)
        store_blocks(model, uses, blocks, config.accuracy_level)
    finish(model)
    return tally.figures()


def rounding_error(model: ModelProto, config: WeightOnly, hessians: Mapping[str, Doubles]) -> float:
    """What rounding to nearest would make of the layers' outputs: relative, root mean square over layers."""
    weights, tally = stored_weights(model), _Tally()
    for uses in shared_weights(model, weights):
        hessian = _hessian(uses, hessians)
        if hessian is not None:
            weight = table(weights, uses[0])
            bits = config.head_bits if is_sensitive(model, uses) else config.bits
            tally.add_outputs(weight, quantize_blocks(weight, bits, config.group_size), hessian)
    return tally.output_error()


def quantize_embeddings(model: ModelProto) -> None:
    """Rewrite only the embedding look-ups of `model`, in place: 8 bits, one scale a row."""
    weights = stored_weights(model)
    for use in [use for use in weight_uses(model, weights) if use.looks_up]:
        store_blocks(model, [use], quantize_rows(table(weights, use)))
    finish(model)


def store_blocks(model: ModelProto, uses: Sequence[Use], blocks: Blocks, accuracy_level: int = 0) -> None:
    """Store `blocks` under the first use's weight and let every one of `uses` read them."""
    name = uses[0].weight
    packed: dict[str, npt.NDArray[Any]] = {"q": pack(blocks), "s": blocks.scales}
    if not is_centred(blocks):  # what an absent zero point means
        packed["z"] = pack_zero_points(blocks)
    if all(use.looks_up for use in uses):
        packed["q"] = packed["q"].reshape(blocks.shape[0], -1)[:, : _row_bytes(blocks)]
    stored = [f"{name}.{part}" for part in packed]
    model.graph.initializer.extend(map(numpy_helper.from_array, packed.values(), stored))
    for use in uses:
        if use.looks_up:
            flat = packed["q"].ndim == 2
            replace_node(model, use.node, _lookup_nodes(model, use, stored, blocks, flat=flat))
        else:
            product = _product_node(use, stored, blocks, accuracy_level)
            replace_node(model, use.node, with_bias(use, product))


def relative_error(weight: Floats, approximation: Floats) -> float:
    """Frobenius norm of the difference over that of the weight."""
    return float(np.linalg.norm(weight - approximation) / max(float(np.linalg.norm(weight)), 1e-12))


def _hessian(uses: Sequence[Use], hessians: Mapping[str, Doubles]) -> Doubles | None:
    """Over the inputs of every layer that shares the weight; none for an embedding."""
    if any(use.looks_up or use.activation not in hessians for use in uses):
        return None
    return np.asarray(sum(hessians[use.activation] for use in uses), np.float64)


def _choose(config: WeightOnly, weight: Floats, bits: int, hessian: Doubles | None) -> Blocks:
    if config.algorithm == "hqq":
        return quantize_hqq(weight, bits, config.group_size)
    if hessian is None or config.algorithm != "gptq":
        return quantize_blocks(weight, bits, config.group_size)
    damping, act_order = config.gptq.damping, config.gptq.act_order
    return quantize_gptq(weight, hessian, bits, config.group_size, damping=damping, act_order=act_order)


@dataclass(slots=True)
class _Tally:
    """What was lost, summed over the weights."""

    weights: int = 0
    worst: float = 0.0
    layers: int = 0
    lost: float = 0.0

    def add(self, weight: Floats, blocks: Blocks) -> None:
        self.weights += weight.size
        self.worst = max(self.worst, relative_error(weight, blocks.dequantize()))

    def add_outputs(self, weight: Floats, blocks: Blocks, hessian: Doubles) -> None:
        # Each layer counts alike, however large its outputs are.
        energy = max(output_error(weight, hessian), 1e-30)
        self.layers += 1
        self.lost += output_error(weight - blocks.dequantize(), hessian) / energy

    def output_error(self) -> float:
        return float(np.sqrt(self.lost / max(self.layers, 1)))

    def figures(self) -> dict[str, float]:
        found = {"weights": self.weights, "worst_relative_error": self.worst}
        return {**found, "output_error": self.output_error()} if self.layers else found


def _product_node(use: Use, stored: Sequence[str], blocks: Blocks, accuracy_level: int) -> NodeProto:
    return helper.make_node(
        "MatMulNBits",
        [use.activation, *stored],
        [use.node.output[0]],
        domain=CONTRIB,
        K=blocks.shape[1],
        N=blocks.shape[0],
        bits=blocks.bits,
        block_size=blocks.values.shape[2],
        accuracy_level=accuracy_level,
    )


def _lookup_nodes(
    model: ModelProto, use: Use, stored: Sequence[str], blocks: Blocks, *, flat: bool
) -> list[NodeProto]:
    """The look-up; before it, for a weight that products read too, groups laid out as plain rows."""
    rows, *rest = stored
    nodes, output = [], use.node.output[0]
    if not flat:
        sizes = {"shape": [blocks.shape[0], -1], "start": [0], "end": [_row_bytes(blocks)], "axis": [1]}
        names = {part: f"{output}.{part}" for part in sizes}
        model.graph.initializer.extend(
            numpy_helper.from_array(np.array(sizes[part], np.int64), names[part]) for part in sizes
        )
        padded, rows = f"{output}.padded", f"{output}.rows"
        nodes = [
            helper.make_node("Reshape", [stored[0], names["shape"]], [padded]),
            helper.make_node("Slice", [padded, names["start"], names["end"], names["axis"]], [rows]),
        ]
    gather = helper.make_node(
        "GatherBlockQuantized",
        [rows, use.activation, *rest],
        [output],
        domain=CONTRIB,
        bits=blocks.bits,
        block_size=blocks.values.shape[2],
        gather_axis=0,
        quantize_axis=1,
    )
    return [*nodes, gather]


def _row_bytes(blocks: Blocks) -> int:
    """Bytes of a row without the padding of its last group."""
    return blocks.shape[1] * blocks.bits // 8
