"""Migration changes weights and norms, and what the graph computes not at all."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from compress.export.feedforward import export_feedforward
from compress.quantize.migration import Migration, migrate
from runtime.decoder import score
from runtime.session import open_session


class PostNorm(nn.Module):
    """A norm that a layer and a residual both read, GELU, then ReLU: as in BERT, and then some."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(16), nn.Linear(16, 24)
        self.outer, self.wide, self.narrow = nn.Linear(24, 16), nn.Linear(16, 24), nn.Linear(24, 16)
        self.last, self.head = nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x)
        x = x + self.outer(nn.functional.gelu(self.inner(x)))
        return self.head(torch.tanh(self.last(x + self.narrow(torch.relu(self.wide(x))))))


def random_scales(tensor: str, weights: list[np.ndarray]) -> np.ndarray:
    seed = sum(map(ord, tensor))
    return np.exp(np.random.default_rng(seed).normal(0, 1, weights[0].shape[1])).astype(np.float32)


def moved(path: Path, folder: Path) -> tuple[Path, Migration]:
    model = onnx.load(path)
    done = migrate(model, random_scales)
    onnx.save_model(model, str(folder / "moved.onnx"))
    return folder / "moved.onnx", done


def test_a_decoder_stays_the_same_with_every_division_folded(decoder_graph: Any, tmp_path: Path) -> None:
    """Two norms and one gated product a layer; the head, tied to the embedding, keeps its input."""
    path, graph = decoder_graph
    after, done = moved(path, tmp_path)
    assert (done.folded, done.renamed) == (6, {})
    assert len(onnx.load(after).graph.node) == len(onnx.load(path).graph.node)
    tokens = np.random.default_rng(0).integers(0, 96, (2, 20))
    got, wanted = (score(open_session(each, threads=1), graph, tokens) for each in (after, path))
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    weights = {tuple(t.dims) for t in onnx.load(after).graph.initializer}
    assert (96, 32) in weights


@pytest.mark.parametrize("length", [4, 9])
def test_a_norm_with_a_residual_gets_one_multiplication(tmp_path: Path, length: int) -> None:
    torch.manual_seed(0)
    network = PostNorm().eval()
    x = np.random.default_rng(0).standard_normal((3, length, 16)).astype(np.float32)
    path = tmp_path / "model.onnx"
    export_feedforward(network, {"x": x}, ["y"], path, ragged=True)
    after, done = moved(path, tmp_path)
    assert (done.folded, len(done.renamed)) == (1, 1)  # ReLU's folds; the norm's does not; GELU's is left
    got, wanted = (open_session(each, threads=1).run(None, {"x": x})[0] for each in (after, path))
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_constants_that_others_read_too_are_not_changed_for_them(tmp_path: Path) -> None:
    """Fresh norms are all ones and exporters store equal constants once."""
    network = nn.Sequential(
        nn.LayerNorm(8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.Tanh()
    ).eval()
    x = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    export_feedforward(network, {"x": x}, ["y"], tmp_path / "model.onnx", ragged=False)
    shared = {t.name: 0 for t in onnx.load(tmp_path / "model.onnx").graph.initializer}
    for node in onnx.load(tmp_path / "model.onnx").graph.node:
        for name in shared.keys() & set(node.input):
            shared[name] += 1
    assert max(shared.values()) > 1
    after, done = moved(tmp_path / "model.onnx", tmp_path)
    assert done.folded == 2
    got = open_session(after, threads=1).run(None, {"x": x})[0]
    np.testing.assert_allclose(got, network(torch.from_numpy(x)).detach(), rtol=1e-4, atol=1e-5)


def test_none_leaves_everything_alone(decoder_graph: Any) -> None:
    model = onnx.load(decoder_graph[0])
    before = [t.name for t in model.graph.initializer]
    assert migrate(model, lambda tensor, weights: None) == Migration()
    assert [t.name for t in model.graph.initializer] == before
