from typing import Any

import numpy as np
import pytest

from runtime.errors import InputError
from runtime.graphs import NO_EDGE, batch_graphs
from runtime.manifest import GraphProcessing

PROCESSING = GraphProcessing(width=2)
LARGE = {"features": [[1, 2], [3, 4], [5, 6]], "edges": [[0, 1], [2, 1]]}
LONE = {"features": [[7.0, 8.0]], "edges": []}


def test_graphs_are_padded_to_the_largest() -> None:
    batch = batch_graphs([LARGE, LONE], PROCESSING)
    assert batch["features"].dtype == np.float32
    assert batch["features"].tolist() == [[[1, 2], [3, 4], [5, 6]], [[7, 8], [0, 0], [0, 0]]]
    assert batch["edges"].tolist() == [[[0, 1], [2, 1]], [[NO_EDGE] * 2] * 2]


def test_a_graph_without_edges_is_a_graph() -> None:
    assert batch_graphs([LONE], PROCESSING)["edges"].shape == (1, 1, 2)


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (LARGE | {"edges": [[0, 1], [1, 3]]}, r"graph 0: edge 1 is \[1, 3\], and there are 3 nodes"),
        (LARGE | {"edges": [[0, -1]]}, r"number them from 0 to 2"),
        (LARGE | {"edges": [[0, 1, 2]]}, "pairs"),
        (LARGE | {"edges": [[0.5, 1.0]]}, "edges are float64; send int64"),
        (LARGE | {"features": [[1], [2], [3]]}, r"features have shape \[3, 1\]; send \[nodes, 2\]"),
        (LARGE | {"features": [[1, 2], [3]]}, "rows differ in length"),
        (LARGE | {"features": [["a", "b"]]}, "send float32"),
        ({"features": [[1, 2]]}, "send {'features'"),
        ([[1, 2]], "send {'features'"),
    ],
)
def test_what_is_wrong_is_said(graph: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        batch_graphs([graph], PROCESSING)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        batch_graphs([], PROCESSING)
