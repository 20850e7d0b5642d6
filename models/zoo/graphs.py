"""Graph networks over an edge list: gcn, graphsage, gat, gin.

features float32 [batch, nodes, width] and edges int64 [batch, edges, 2] (source, target) to logits float32
[batch, nodes, classes]. A row of edges with a negative number is padding, so graphs of different sizes can
share a batch. Sums over neighbours are `index_add`, which ONNX has; no adjacency matrix is ever built. The
trade-off: the batch is unrolled into one large graph, as torch_geometric does, at the price of copying
indices.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn


class Edges:
    """The edges of a batch of graphs as one: `source` and `target` int64 [edges], `weight` 1 or 0 (padding).

    `count` is the number of nodes in all.
    """

    def __init__(self, edges: Tensor, batch: int, nodes: int) -> None:
        offsets = torch.arange(batch, device=edges.device)[:, None, None] * nodes
        real = edges.amin(-1) >= 0
        flat = (edges.clamp(min=0) + offsets).flatten(0, 1)
        self.source, self.target = flat[:, 0], flat[:, 1]
        self.weight, self.count = real.flatten().float(), batch * nodes

    def sum(self, values: Tensor) -> Tensor:
        """values [edges, width] added up at each target: [nodes, width]."""
        return values.new_zeros(self.count, values.shape[1]).index_add(0, self.target, values)

    def largest(self, values: Tensor, own: Tensor) -> Tensor:
        """The largest at each target of values [edges, width] and `own` [nodes, width]: [nodes, width]."""
        target = self.target[:, None].expand_as(values)
        return own.scatter_reduce(0, target, values, "amax")

    def neighbours(self, features: Tensor, weight: Tensor) -> Tensor:
        """Weighted sum of each node's incoming neighbours' features; weight [edges]."""
        return self.sum(features[self.source] * weight[:, None])

    def degree(self) -> Tensor:
        """Incoming edges of each node, float32 [nodes]."""
        return self.sum(self.weight[:, None])[:, 0]


class GraphConvolution(nn.Module):
    """GCN's layer: neighbours and the node itself, each over the square root of both degrees.

    Kipf and Welling (2016, arXiv:1609.02907), equation 2.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, features: Tensor, edges: Edges) -> Tensor:
        hidden: Tensor = self.linear(features)
        scale = (edges.degree() + 1).rsqrt()
        weight = edges.weight * scale[edges.source] * scale[edges.target]
        return edges.neighbours(hidden, weight) + hidden * scale[:, None] ** 2


class SageConvolution(nn.Module):
    """GraphSAGE's layer with the mean aggregator (Hamilton et al., 2017, arXiv:1706.02216, algorithm 1)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.own, self.neighbour = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs, bias=False)

    def forward(self, features: Tensor, edges: Edges) -> Tensor:
        mean = edges.neighbours(self.neighbour(features), edges.weight) / edges.degree().clamp(min=1)[:, None]
        result: Tensor = self.own(features) + mean
        return result


class GraphAttention(nn.Module):
    """GAT's layer: heads that weigh neighbours by a learnt score (Velickovic et al., 2017, arXiv:1710.10903).

    The softmax is over a node's incoming edges and the node itself, computed without overflow by the node's
    largest score.
    """

    def __init__(self, inputs: int, outputs: int, heads: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.source = nn.Parameter(torch.empty(heads, outputs // heads))
        self.target = nn.Parameter(torch.empty(heads, outputs // heads))
        self.bias = nn.Parameter(torch.zeros(outputs))
        for vector in (self.source, self.target):
            nn.init.xavier_uniform_(vector)

    def forward(self, features: Tensor, edges: Edges) -> Tensor:
        size = (-1, *self.source.shape)
        hidden: Tensor = self.linear(features).view(size)
        source, target = (hidden * self.source).sum(-1), (hidden * self.target).sum(-1)
        own = nn.functional.leaky_relu(source + target, 0.2)
        scores = nn.functional.leaky_relu(source[edges.source] + target[edges.target], 0.2)
        # A constant of the softmax: no gradient goes through it.
        largest = edges.largest(scores.detach(), own.detach())
        weight = (scores - largest[edges.target]).exp() * edges.weight[:, None]
        own = (own - largest).exp()
        total = edges.sum(weight) + own
        gathered = edges.sum((hidden[edges.source] * weight[..., None]).flatten(1))
        mixed = gathered.view(size) + hidden * own[..., None]
        return (mixed / total[..., None]).flatten(1) + self.bias


class IsomorphismConvolution(nn.Module):
    """GIN's layer: an MLP over (1 + eps) times the node and the sum of its neighbours.

    Xu et al. (2018, arXiv:1810.00826), equation 4.1.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.epsilon = nn.Parameter(torch.zeros(()))
        self.first = nn.Linear(inputs, outputs)
        self.second = nn.Linear(outputs, outputs)

    def forward(self, features: Tensor, edges: Edges) -> Tensor:
        # The first layer is linear, so it may come before the sum, which is then over fewer numbers.
        hidden = self.first(features)
        summed = hidden * (1 + self.epsilon) + edges.neighbours(hidden, edges.weight)
        result: Tensor = self.second(nn.functional.relu(summed))
        return result


class GraphClassifier(nn.Module):
    """Two layers of one kind with dropout before each, ReLU between them."""

    def __init__(self, layers: list[nn.Module], dropout: float) -> None:
        super().__init__()
        self.layers, self.dropout = nn.ModuleList(layers), nn.Dropout(dropout)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)  # what all four papers' code does; torch's is smaller

    def forward(self, features: Tensor, edges: Tensor) -> Tensor:
        batch, nodes = features.shape[0], features.shape[1]
        graph, hidden = Edges(edges, batch, nodes), features.flatten(0, 1)
        for layer in self.layers[:-1]:
            hidden = nn.functional.relu(layer(self.dropout(hidden), graph))
        logits: Tensor = self.layers[-1](self.dropout(hidden), graph)
        return logits.view(batch, nodes, -1)


def _stack(layer: Callable[[int, int], nn.Module], sizes: tuple[int, ...], dropout: float) -> nn.Module:
    return GraphClassifier([layer(inputs, outputs) for inputs, outputs in pairwise(sizes)], dropout)


def gcn(width: int = 1433, classes: int = 7, hidden: int = 64, dropout: float = 0.8) -> nn.Module:
    """Kipf and Welling's two layers, wider and with more dropout than theirs."""
    return _stack(GraphConvolution, (width, hidden, classes), dropout)


def graphsage(width: int = 1433, classes: int = 7, hidden: int = 32, dropout: float = 0.5) -> nn.Module:
    """Two layers with the mean aggregator, over all neighbours (the graph is small enough not to sample)."""
    return _stack(SageConvolution, (width, hidden, classes), dropout)


def gat(
    width: int = 1433, classes: int = 7, hidden: int = 64, heads: int = 8, dropout: float = 0.8
) -> nn.Module:
    """Eight heads of eight, then one head over the classes; no dropout on the attention itself."""
    layers: list[nn.Module] = [GraphAttention(width, hidden, heads), GraphAttention(hidden, classes, 1)]
    return GraphClassifier(layers, dropout)


def gin(width: int = 1433, classes: int = 7, hidden: int = 64, dropout: float = 0.8) -> nn.Module:
    """Two layers without batch norm, which one graph is no batch for."""
    return _stack(IsomorphismConvolution, (width, hidden, classes), dropout)
