"""Half-precision storage: weights become float16 and are cast back where they are read.

onnxruntime folds the casts when it loads the graph, so it runs at the speed of float32 and gives what the
rounded weights give. It does not touch activations.
"""

from collections.abc import Container

import ml_dtypes
import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

# Smaller tensors are not worth a node each. Vectors neither: biases and norms, or the scales of integers.
MIN_ELEMENTS = 1024
HALVES = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}


def store_half(model: ModelProto, only: Container[str] | None = None, kind: str = "fp16") -> dict[str, float]:
    """Rewrite `model` in place: all its large weights, or `only` those of these names, as fp16 or bf16.

    Returns figures: weights stored in half, and values clipped.
    """
    half_type = np.dtype(HALVES[kind])
    limit = float(ml_dtypes.finfo(half_type).max)  # type: ignore[no-untyped-call]
    count = clipped = 0
    for tensor in [t for t in model.graph.initializer if _is_large(t) and (only is None or t.name in only)]:
        values = numpy_helper.to_array(tensor)
        count += values.size
        clipped += int((np.abs(values) > limit).sum())
        half = np.clip(values, -limit, limit).astype(half_type)
        stored = f"{tensor.name}.half"
        model.graph.initializer.append(numpy_helper.from_array(half, stored))
        cast = helper.make_node("Cast", [stored], [tensor.name], to=TensorProto.FLOAT)
        model.graph.node.insert(0, cast)
        model.graph.initializer.remove(tensor)
    return {"weights": count, "clipped": clipped}


def _is_large(tensor: TensorProto) -> bool:
    is_matrix = tensor.data_type == TensorProto.FLOAT and len(tensor.dims) >= 2
    return is_matrix and int(np.prod(tensor.dims)) >= MIN_ELEMENTS
