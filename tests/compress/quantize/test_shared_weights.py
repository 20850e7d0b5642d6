"""int8 by onnxruntime's quantizer, where a weight has several readers, a loop reads it, or opsets are old."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from compress.export.feedforward import export_feedforward
from compress.export.graph import quiet_exporter
from compress.quantize.config import Int8Dynamic, Int8Static
from compress.quantize.graph import finish
from compress.quantize.int8 import dynamic, static
from runtime.session import open_session


class TiedHead(nn.Module):
    """Tokens int64 [batch, sequence] to logits, the head being the embedding."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(vocabulary, width), nn.Linear(width, vocabulary)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embedding(tokens).mean(1))
        return logits


class CalledTwice(nn.Module):
    """One square layer that runs twice, float32 [batch, 24]."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(24, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.layer(torch.tanh(self.layer(x))))
        return logits


@pytest.mark.parametrize(
    ("build", "tokens"),
    [(lambda: TiedHead(40, 24), True), (lambda: TiedHead(24, 24), True), (CalledTwice, False)],
)
def test_a_weight_of_several_readers_means_the_same_to_each(
    build: Callable[[], nn.Module], tokens: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = build().eval()
    rng = np.random.default_rng(0)
    x = rng.integers(0, 24, (16, 6)) if tokens else rng.standard_normal((16, 24)).astype(np.float32)
    source, target = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    export_feedforward(module, {"x": x}, ("logits",), source, ragged=False)
    dynamic(Int8Dynamic(method="quantize", scheme="int8-dynamic"), source, target)
    (got,) = open_session(target).run(None, {"x": x})
    with torch.no_grad():
        wanted = module(torch.from_numpy(x)).numpy()
    assert np.corrcoef(got.ravel(), wanted.ravel())[0, 1] > 0.99


class Bag(nn.Module):
    """Tokens int64 [batch, sequence] to logits; torch exports it as a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.EmbeddingBag(40, 24, mode="mean"), nn.Linear(24, 7)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.words(tokens))
        return logits


def test_what_a_loop_reads_from_outside_stays(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, tokens = Bag().eval(), np.random.default_rng(0).integers(0, 40, (16, 6))
    source, target = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    export_feedforward(module, {"x": tokens}, ("logits",), source, ragged=False)
    assert "Loop" in {node.op_type for node in onnx.load(source).graph.node}
    dynamic(Int8Dynamic(method="quantize", scheme="int8-dynamic"), source, target)
    (got,) = open_session(target).run(None, {"x": tokens})
    with torch.no_grad():
        wanted = module(torch.from_numpy(tokens)).numpy()
    assert np.corrcoef(got.ravel(), wanted.ravel())[0, 1] > 0.99


def test_a_graph_as_torch_exports_it_is_taken(tmp_path: Path) -> None:
    """Its notes of shapes name the weights too, which the quantizer is about to transpose."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
    source, target, x = tmp_path / "model.onnx", tmp_path / "int8.onnx", torch.randn(6, 8)
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    with quiet_exporter():
        program = torch.onnx.export(module, (x,), dynamo=True, dynamic_shapes=shapes, input_names=["x"])
    assert program is not None
    program.save(source, external_data=False)
    assert onnx.load(source).graph.value_info
    dynamic(Int8Dynamic(method="quantize", scheme="int8-dynamic"), source, target)
    (got,) = open_session(target).run(None, {"x": x.numpy()})
    with torch.no_grad():
        wanted = module(x).numpy()
    assert np.corrcoef(got.ravel(), wanted.ravel())[0, 1] > 0.99


def test_a_graph_of_an_old_opset_is_converted(tmp_path: Path) -> None:
    """Before opset 13 a scale could not be of a channel."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    x = torch.randn(4, 1, 8, 8)
    source, target = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    weights = {f"w{index}": each.detach().numpy() for index, each in enumerate(module.parameters())}
    nodes = [
        helper.make_node("Conv", ["x", "w0", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("Gemm", ["c", "w2", "w3"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=4), source)
    config = Int8Static(method="quantize", scheme="int8-static")
    static(config, source, target, iter([{"x": x.numpy()}]))
    (got,) = open_session(target).run(None, {"x": x.numpy()})
    with torch.no_grad():
        wanted = module(x).numpy()
    assert np.corrcoef(got.ravel(), wanted.ravel())[0, 1] > 0.99
    assert [path.name for path in tmp_path.iterdir() if "converted" in path.name] == []


def test_a_weight_that_is_an_answer_stays_one() -> None:
    weight = numpy_helper.from_array(np.ones((2, 3), np.float32), "w")
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xyw"]
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    model = helper.make_model(helper.make_graph(nodes, "g", infos[:1], infos[1:], [weight]))
    finish(model)
    assert [each.name for each in model.graph.initializer] == ["w"]
