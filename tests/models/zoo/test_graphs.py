"""The layers against their definitions with dense matrices, and the batch against its graphs alone."""

import pytest
import torch
from torch import Tensor, nn

from models.zoo.graphs import (
    Edges,
    GraphAttention,
    GraphConvolution,
    SageConvolution,
    gat,
    gcn,
    gin,
    graphsage,
)

PAIRS = torch.tensor([[0, 1], [1, 0], [1, 2], [3, 2], [-1, -1]])


def dense() -> Tensor:
    """adjacency[target, source] of PAIRS, whose last row is padding."""
    adjacency = torch.zeros(4, 4)
    for source, target in PAIRS[:-1].tolist():
        adjacency[target, source] = 1
    return adjacency


@pytest.fixture
def features() -> Tensor:
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(0))


def test_graph_convolution_is_the_normalised_adjacency_with_self_loops(features: Tensor) -> None:
    layer = GraphConvolution(5, 3)
    looped = dense() + torch.eye(4)
    scale = looped.sum(1).rsqrt()
    wanted = scale[:, None] * looped * scale @ layer.linear(features)
    assert torch.allclose(layer(features, Edges(PAIRS[None], 1, 4)), wanted, atol=1e-6)


def test_sage_averages_neighbours(features: Tensor) -> None:
    layer = SageConvolution(5, 3)
    mean = dense() / dense().sum(1, keepdim=True).clamp(min=1)
    wanted = layer.own(features) + mean @ layer.neighbour(features)
    assert torch.allclose(layer(features, Edges(PAIRS[None], 1, 4)), wanted, atol=1e-6)


def test_attention_is_a_softmax_over_neighbours_and_self(features: Tensor) -> None:
    layer = GraphAttention(5, 6, heads=2)
    hidden = layer.linear(features).unflatten(-1, (2, 3))
    scores = (hidden * layer.source).sum(-1)[None] + (hidden * layer.target).sum(-1)[:, None]
    allowed = (dense() + torch.eye(4)).bool()[..., None]
    scores = nn.functional.leaky_relu(scores, 0.2).masked_fill(~allowed, -torch.inf)
    wanted = torch.einsum("tsh,shd->thd", scores.softmax(1), hidden).flatten(1) + layer.bias
    assert torch.allclose(layer(features, Edges(PAIRS[None], 1, 4)), wanted, atol=1e-5)


def test_attention_stays_finite_where_one_nodes_scores_dwarf_anothers() -> None:
    features = torch.tensor([[1e3] * 5, [-1e3] * 5, [1.0] * 5, [0.0] * 5])
    layer = GraphAttention(5, 6, heads=2)
    output = layer(features, Edges(PAIRS[None], 1, 4))
    output.sum().backward()
    assert output.isfinite().all()
    assert layer.source.grad is not None
    assert layer.source.grad.isfinite().all()


@pytest.mark.parametrize("build", [gcn, graphsage, gat, gin])
def test_a_batch_is_its_graphs_side_by_side(build) -> None:  # type: ignore[no-untyped-def]
    network = build(width=5, classes=3, hidden=8).eval()
    features = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(1))
    edges = torch.stack([PAIRS, torch.tensor([[2, 0], [-1, -1], [-1, -1], [-1, -1], [-1, -1]])])
    together = network(features, edges)
    assert torch.allclose(together[:1], network(features[:1], PAIRS[None, :-1]), atol=1e-5)
    assert torch.allclose(together[1:], network(features[1:], edges[1:, :1]), atol=1e-5)
