"""Weights that look-ups read: alone, or together with products."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from compress.artifact import GraphArtifact
from compress.export.feedforward import export_feedforward
from compress.quantize.blockwise import quantize_blocks, quantize_rows
from compress.quantize.int8 import transpose_heads
from compress.quantize.step import run
from compress.step import Calibration, validate
from runtime.manifest import Signature
from runtime.session import open_session


class Lookup(torch.nn.Module):
    """An embedding of 36, which is no whole number of groups, and a head that may share its weight."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(50, 36)
        self.head = torch.nn.Linear(36, 50, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.embedding(tokens)))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {"scheme": "int4", "head_bits": 4, "group_size": 16},
        {"scheme": "int4", "group_size": 32},
        {"scheme": "int8-weight-only", "group_size": 64},
    ],
)
def test_rows_that_are_no_whole_groups_are_looked_up_whole(
    tmp_path: Path, settings: dict[str, Any], tied: bool
) -> None:
    network, tokens = Lookup(tied).eval(), np.arange(50, dtype=np.int64)[None].repeat(2, 0)
    made = quantized(network, tokens, tmp_path, {**settings, "accuracy_level": 0})
    bits = 4 if settings.get("head_bits") == 4 else 8
    for layer in (network.embedding, network.head):
        blocks = quantize_blocks(layer.weight.detach().numpy(), bits, settings["group_size"])
        layer.weight = torch.nn.Parameter(torch.from_numpy(blocks.dequantize()))
    got = open_session(made.path, threads=1).run(None, {"tokens": tokens})[0]
    np.testing.assert_allclose(got, network(torch.from_numpy(tokens)).detach(), atol=1e-4)


def test_int8_dynamic_looks_up_rows_with_a_scale_each(tmp_path: Path) -> None:
    network, tokens = Lookup(tied=False).eval(), np.arange(50, dtype=np.int64)[None]
    made = quantized(network, tokens, tmp_path, {"scheme": "int8-dynamic"})
    stored = {tensor.name: tuple(tensor.dims) for tensor in onnx.load(made.path).graph.initializer}
    gather = next(n for n in onnx.load(made.path).graph.node if n.op_type == "GatherBlockQuantized")
    assert [stored[name] for name in (gather.input[0], *gather.input[2:])] == [(50, 36), (50, 1)]
    rows = quantize_rows(network.embedding.weight.detach().numpy())
    wanted = network.head(torch.tanh(torch.from_numpy(rows.dequantize()))).detach().numpy()
    got = open_session(made.path, threads=1).run(None, {"tokens": tokens})[0][0]
    assert np.abs(got - wanted).max() < 0.03 * np.abs(wanted).max()


def test_a_head_that_the_optimizer_left_transposed_is_quantized(tmp_path: Path) -> None:
    """As in a graph that is too large for it, where a tied weight would be stored twice."""
    network, tokens = Lookup(tied=True).eval(), np.arange(50, dtype=np.int64)[None]
    path = tmp_path / "model.onnx"
    export_feedforward(network, {"tokens": tokens}, ["y"], path, ragged=True)
    model = onnx.load(path)
    untie_by_transpose(model)
    onnx.save(model, path)
    before = open_session(path, threads=1).run(None, {"tokens": tokens})[0]
    transpose_heads(path)
    changed = onnx.load(path)
    assert [node.op_type for node in changed.graph.node if node.op_type == "Transpose"] == []
    # The head, once, and the scales of the embedding.
    assert sum(len(tensor.dims) == 2 and tensor.data_type == 1 for tensor in changed.graph.initializer) == 2
    after = open_session(path, threads=1).run(None, {"tokens": tokens})[0]
    assert np.abs(after - before).max() < 0.02 * np.abs(before).max()


def untie_by_transpose(model: onnx.ModelProto) -> None:
    """Let the head multiply by the transposed embedding, if it does not already."""
    weights = {tensor.name for tensor in model.graph.initializer}
    table = next(node.input[0] for node in model.graph.node if node.op_type == "Gather")
    head = next(node for node in model.graph.node if node.op_type == "MatMul")
    if head.input[1] in weights:
        at = list(model.graph.node).index(head)
        model.graph.node.insert(at, onnx.helper.make_node("Transpose", [table], ["turned"], perm=[1, 0]))
        head.input[1] = "turned"


def quantized(network: Any, tokens: np.ndarray, folder: Path, settings: dict[str, Any]) -> GraphArtifact:
    (source := folder / "source").mkdir()
    graph = export_feedforward(network, {"tokens": tokens}, ["y"], source / "model.onnx", ragged=True)
    artifact = GraphArtifact(source, graph, Signature(inputs=(), outputs=()))
    config = validate({"method": "quantize", **settings})
    return run(config, artifact, folder, Calibration(lambda samples: iter(())))[0]
