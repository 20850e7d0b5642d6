"""What int8 is kept from: the arithmetic that makes and decodes a network's outputs."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, TensorProto, helper, numpy_helper

from compress.quantize.config import Int8Static
from compress.quantize.int8 import after_weights, static


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
    assert sorted(after_weights(detector())) == ["decode", "join", "second"]


def test_a_last_gemm_leaves_nothing_after_it_and_no_convolution_last() -> None:
    weight = numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "weight")
    dense = numpy_helper.from_array(np.ones((4, 4), np.float32), "dense")
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["a"], name="convolution"),
        helper.make_node("Relu", ["a"], ["b"], name="between"),
        helper.make_node("Flatten", ["b"], ["c"], name="flatten"),
        helper.make_node("Gemm", ["c", "dense"], ["y"], name="classifier"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    graph = helper.make_graph(nodes, "classifier", ends[:1], ends[1:], [weight, dense])
    assert after_weights(helper.make_model(graph)) == []


def test_boxes_and_logits_from_one_convolution_both_keep_their_digits(tmp_path: Path) -> None:
    """Offsets within 0.1 beside logits within 100: at one scale for both, offsets would be 0 or 0.8."""
    rng = np.random.default_rng(0)
    body = rng.standard_normal((32, 32, 3, 3)).astype(np.float32) / 17
    head = rng.standard_normal((8, 32, 1, 1)).astype(np.float32) / 6
    head[:4], head[4:] = head[:4] * 0.03, head[4:] * 30
    weights = [numpy_helper.from_array(each, name) for each, name in ((body, "body"), (head, "head"))]
    nodes = [
        helper.make_node("Conv", ["x", "body"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "head"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels, 4, 4])
        for name, channels in (("x", 32), ("y", 8))
    ]
    graph = helper.make_graph(nodes, "detector", ends[:1], ends[1:], weights)
    source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    onnx.save_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), source
    )
    images = rng.standard_normal((16, 32, 4, 4)).astype(np.float32)
    static(Int8Static(scheme="int8-static"), source, target, iter([{"x": images}]))
    want, got = (ort.InferenceSession(path).run(None, {"x": images})[0] for path in (source, target))
    spread = want[:, :4].std()
    assert np.abs(got - want)[:, :4].max() < 0.2 * spread
    assert [node.op_type for node in onnx.load(target).graph.node].count("QuantizeLinear") > 0
