"""A decoder graph over a cache of another type: the tensors' types, and the scales of an int8 one."""

from collections.abc import Collection, Mapping

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from compress.quantize.blockwise import Floats

# Where the operator's inputs stand: onnxruntime's contrib operators, `GroupQueryAttention`.
PAST_KEY, PAST_VALUE, K_SCALE, V_SCALE = 3, 4, 12, 13


def retype_cache(model: ModelProto, cache: Collection[str], dtype: int) -> None:
    """Make the past and present tensors of `model`, named in `cache`, of the ONNX type `dtype`, in place."""
    for value in (*model.graph.input, *model.graph.output):
        if value.name in cache:
            value.type.tensor_type.elem_type = dtype


def scale_cache(model: ModelProto, scales: Mapping[str, Floats]) -> None:
    """Give every attention node the scales [heads, head_dim] of its past key and value, in place."""
    for node in model.graph.node:
        if node.op_type == "GroupQueryAttention":
            inputs = [*node.input, *([""] * (V_SCALE + 1 - len(node.input)))]
            inputs[K_SCALE] = _constant(model, node.input[PAST_KEY], scales)
            inputs[V_SCALE] = _constant(model, node.input[PAST_VALUE], scales)
            del node.input[:]
            node.input.extend(inputs)
            _say_quantized(node)


def _constant(model: ModelProto, past: str, scales: Mapping[str, Floats]) -> str:
    name = f"{past}.scale"
    values = np.ascontiguousarray(scales[past][None, :, None], np.float32)
    model.graph.initializer.append(numpy_helper.from_array(values, name))
    return name


def _say_quantized(node: NodeProto) -> None:
    kinds = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}
    others = [each for each in node.attribute if each.name not in kinds]
    del node.attribute[:]
    node.attribute.extend([*others, *(helper.make_attribute(name, kind) for name, kind in kinds.items())])
