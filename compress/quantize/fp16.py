"""Half-precision storage: weights become float16 and are cast back where they are read.

onnxruntime folds the casts when it loads the graph, so it runs at the speed of float32 and gives what the
rounded weights give. It does not touch activations.
"""

from collections.abc import Container

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

# Smaller tensors (norms, biases) are not worth a node each.
MIN_ELEMENTS = 1024


def store_half(model: ModelProto, only: Container[str] | None = None) -> dict[str, float]:
    """Rewrite `model` in place: all its large weights, or `only` those of these names.

    Returns figures: weights stored in half, and values clipped.
    """
    limit = float(np.finfo(np.float16).max)
    count = clipped = 0
    large = [
        tensor
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and (only is None or tensor.name in only)
    ]
    for tensor in [t for t in large if int(np.prod(t.dims)) >= MIN_ELEMENTS]:
        values = numpy_helper.to_array(tensor)
        count += values.size
        clipped += int((np.abs(values) > limit).sum())
        half = np.clip(values, -limit, limit).astype(np.float16)
        stored = f"{tensor.name}.half"
        model.graph.initializer.append(numpy_helper.from_array(half, stored))
        cast = helper.make_node("Cast", [stored], [tensor.name], to=TensorProto.FLOAT)
        model.graph.node.insert(0, cast)
        model.graph.initializer.remove(tensor)
    return {"weights": count, "clipped": clipped}
