"""What int8 is kept from: the arithmetic that decodes a network's outputs."""

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from compress.quantize.int8 import after_weights


def detector() -> ModelProto:
    """A convolution, an addition, another convolution, and the decoding of its output."""
    weight = numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "weight")
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["a"], name="first"),
        helper.make_node("Add", ["a", "x"], ["b"], name="between"),
        helper.make_node("Conv", ["b", "weight"], ["c"], name="second"),
        helper.make_node("Sigmoid", ["c"], ["d"], name="decode"),
        helper.make_node("Transpose", ["c"], ["e"], name="turn"),
        helper.make_node("Concat", ["d", "e"], ["y"], name="join", axis=1),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    return helper.make_model(helper.make_graph(nodes, "detector", ends[:1], ends[1:], [weight]))


def test_what_no_weight_reads_any_more_is_left_in_float32() -> None:
    assert sorted(after_weights(detector())) == ["decode", "join"]
