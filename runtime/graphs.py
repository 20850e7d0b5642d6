"""Graphs as tensors: node features and an edge list, padded to a batch. The counterpart of `processing`.

It knows nothing of the network that reads them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from runtime.errors import InputError
from runtime.manifest import GraphProcessing
from runtime.processing import Array

# What fills up the edges of a smaller graph.
NO_EDGE = -1


def batch_graphs(graphs: Sequence[Mapping[str, Any]], processing: GraphProcessing) -> dict[str, Array]:
    """Graphs `{features: [nodes, width], edges: [[source, target], ...]}` as padded tensors.

    Raises InputError for an empty batch, features of another width, or an edge to a node that is not there.
    """
    if not graphs:
        raise InputError("the batch is empty; send at least one graph")
    read = [_graph(graph, processing, index) for index, graph in enumerate(graphs)]
    nodes, edges = (max(len(parts[part]) for parts in read) for part in (0, 1))
    batch: dict[str, Array] = {
        "features": np.zeros((len(read), nodes, processing.width), np.float32),
        # One padding edge at least: a tensor must not be empty.
        "edges": np.full((len(read), max(edges, 1), 2), NO_EDGE, np.int64),
    }
    for row, (features, pairs) in enumerate(read):
        batch["features"][row, : len(features)] = features
        batch["edges"][row, : len(pairs)] = pairs
    return batch


def own_nodes(answers: Sequence[dict[str, Any]], graphs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Answers `{nodes: [...]}` without those for the padding of smaller graphs."""
    return [
        {**answer, "nodes": answer["nodes"][: len(graph["features"])]} if "nodes" in answer else answer
        for answer, graph in zip(answers, graphs, strict=True)
    ]


def _graph(graph: Any, processing: GraphProcessing, index: int) -> tuple[Array, Array]:
    if not isinstance(graph, Mapping) or graph.keys() != {"features", "edges"}:
        raise InputError(f"graph {index}: send {{'features': [[...]], 'edges': [[source, target]]}}")
    features = _numbers(graph["features"], np.float32, f"graph {index}: features")
    if features.ndim != 2 or not len(features) or features.shape[1] != processing.width:
        raise InputError(
            f"graph {index}: features have shape {list(features.shape)}; send [nodes, {processing.width}]"
        )
    edges = _numbers(graph["edges"], np.int64, f"graph {index}: edges")
    if edges.size and edges.shape[1:] != (2,):
        raise InputError(f"graph {index}: edges have shape {list(edges.shape)}; send [source, target] pairs")
    edges = edges.reshape(-1, 2)
    _check_nodes(edges, len(features), index)
    return features, edges


def _check_nodes(edges: Array, nodes: int, index: int) -> None:
    missing = ((edges < 0) | (edges >= nodes)).any(1)
    if missing.any():
        row = int(missing.argmax())
        raise InputError(
            f"graph {index}: edge {row} is {edges[row].tolist()}, and there are {nodes} nodes; "
            f"number them from 0 to {nodes - 1}"
        )


def _numbers(values: Any, dtype: type[np.generic], what: str) -> Array:
    try:
        array = np.asarray(values)
    except ValueError:
        raise InputError(f"{what}: the rows differ in length") from None
    kinds = "iu" if issubclass(dtype, np.integer) else "iufb"
    if array.size and array.dtype.kind not in kinds:
        raise InputError(f"{what} are {array.dtype}; send {np.dtype(dtype).name}")
    # What overflows is infinite, and refused as such.
    with np.errstate(over="ignore"):
        return array.astype(dtype)
