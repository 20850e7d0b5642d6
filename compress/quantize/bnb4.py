"""bitsandbytes' NF4 and FP4 (Dettmers et al., arXiv:2305.14314) in a graph: MatMulBnb4 for linear layers.

The bits are bitsandbytes' own and go into the graph unchanged: a weight [out, in] is one row-major run of
blocks, across the ends of rows, each with its largest magnitude; two weights a byte, the first in the high
half. Embeddings and the output head stay in float32 or become 8-bit groups, as the recipe says.
"""

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from compress.quantize.blockwise import Bytes, Floats, quantize_blocks
from compress.quantize.config import Bnb4
from compress.quantize.graph import (
    CONTRIB,
    Use,
    finish,
    is_sensitive,
    replace_node,
    shared_weights,
    stored_weights,
    table,
    with_bias,
)
from compress.quantize.weight_only import relative_error, store_blocks
from models.errors import MissingExtra

# The operator's `quant_type` (onnxruntime contrib operators, MatMulBnb4).
QUANT_TYPES = {"fp4": 0, "nf4": 1}
HEAD_GROUP_SIZE = 32


def store_bnb4(model: ModelProto, config: Bnb4) -> dict[str, float]:
    """Rewrite `model` in place. Returns figures: weights quantized, and the worst one's relative error."""
    weights = stored_weights(model)
    count, worst = 0, 0.0
    for uses in shared_weights(model, weights):
        weight = table(weights, uses[0])
        if not is_sensitive(model, uses):
            packed, absmax, approximation = quantize_bnb4(weight, config.scheme, config.block_size)
            _store(model, uses, packed, absmax, config, weight.shape)
        elif config.head_bits == 8:
            blocks = quantize_blocks(weight, 8, HEAD_GROUP_SIZE)
            approximation = blocks.dequantize()
            store_blocks(model, uses, blocks)
        else:
            continue
        count += weight.size
        worst = max(worst, relative_error(weight, approximation))
    finish(model)
    return {"weights": count, "worst_relative_error": worst}


def quantize_bnb4(weight: Floats, scheme: str, block_size: int) -> tuple[Bytes, Floats, Floats]:
    """bitsandbytes' packed bytes uint8 [ceil(out * in / 2)], its scales float32 [blocks], and the weight
    float32 [out, in] that they stand for."""
    import torch

    functional = _bitsandbytes()
    tensor = torch.from_numpy(np.ascontiguousarray(weight, dtype=np.float32))
    packed, state = functional.quantize_4bit(tensor, blocksize=block_size, quant_type=scheme)
    values, absmax = packed.numpy().reshape(-1), state.absmax.numpy()
    return values, absmax, _dequantize(values, absmax, state.code.numpy(), block_size, weight.shape)


def _dequantize(
    packed: Bytes, absmax: Floats, code: Floats, block_size: int, shape: tuple[int, ...]
) -> Floats:
    """What the bits stand for. Not by bitsandbytes 0.50's own: on a CPU without AVX-512 it takes the wrong
    scales where rows are even and no whole number of blocks."""
    indices = np.stack([packed >> 4, packed & 15], -1).reshape(-1)[: shape[0] * shape[1]]
    scales = np.repeat(absmax, block_size)[: len(indices)]
    return np.asarray(code[indices] * scales, np.float32).reshape(shape)


def _bitsandbytes() -> Any:
    try:
        from bitsandbytes import functional
    except ImportError:
        raise MissingExtra(
            "the schemes nf4 and fp4 need bitsandbytes; pip install 'modelpress[compress]'"
        ) from None
    return functional


def _store(
    model: ModelProto,
    uses: list[Use],
    packed: Bytes,
    absmax: Floats,
    config: Bnb4,
    shape: tuple[int, ...],
) -> None:
    name = uses[0].weight
    model.graph.initializer.append(numpy_helper.from_array(packed, f"{name}.q"))
    model.graph.initializer.append(numpy_helper.from_array(absmax, f"{name}.absmax"))
    for use in uses:
        replace_node(model, use.node, with_bias(use, _product_node(use, name, config, shape)))


def _product_node(use: Use, name: str, config: Bnb4, shape: tuple[int, ...]) -> NodeProto:
    return helper.make_node(
        "MatMulBnb4",
        [use.activation, f"{name}.q", f"{name}.absmax"],
        [use.node.output[0]],
        domain=CONTRIB,
        N=shape[0],
        K=shape[1],
        block_size=config.block_size,
        quant_type=QUANT_TYPES[config.scheme],
    )
