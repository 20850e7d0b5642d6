"""Cora: 2,708 papers, the words that they use, and which cites which; seven subjects (Sen et al., 2008).

The split is Planetoid's (Yang et al., 2016): 140 papers are labelled for training, 1,000 others are judged.
Read from $MODELPRESS_DATA/cora/cora.npz. One graph is one example, so a split is a batch of one; the labels
that are not of the split are IGNORED.
"""

from typing import Any

import numpy as np

from models.datasets.dataset import IGNORED, Array, Dataset, Split, SplitName, View
from models.datasets.folders import data_file
from models.errors import DataError
from models.storage import code_digest, digest, file_digest
from runtime.manifest import GraphProcessing

# In the order of the class numbers, which the sizes of the classes give away.
LABELS = (
    "theory", "reinforcement learning", "genetic algorithms", "neural networks", "probabilistic methods",
    "case-based", "rule learning",
)  # fmt: skip
_ROWS: dict[SplitName, str] = {"train": "train", "validation": "test"}


def fingerprint() -> str:
    """sha256 over the file."""
    return digest(file_digest(data_file("cora", "cora.npz")), code_digest([__name__]))


def open_dataset(view: View) -> Dataset:
    """The graph. Raises DataError without the file, or for a model that does not take graphs."""
    processing = view.processing or GraphProcessing(width=1433)
    if not isinstance(processing, GraphProcessing):
        raise DataError("data set 'cora' holds a graph, and this model does not take graphs; choose another")

    def load(split: SplitName) -> Split:
        with np.load(data_file("cora", "cora.npz"), allow_pickle=False) as archive:
            features, edges = _features(archive), np.unique(archive["edge_index"].T.astype(np.int64), axis=0)
            targets: Array = np.full(len(features), IGNORED, np.int64)
            rows = archive[_ROWS[split]]
            targets[rows] = archive["labels"][rows]
        raw = [{"features": features, "edges": edges}]
        return Split({"features": features[None], "edges": edges[None]}, targets[None], raw)

    return Dataset("cora", "node-classification", fingerprint(), LABELS, processing, load)


def _features(archive: Any) -> Array:
    """Which words each paper uses, as shares of its words, float32 [papers, words] (Kipf and Welling's)."""
    features: Array = np.zeros(tuple(archive["shape"]), np.float32)
    features[archive["feature_row"], archive["feature_col"]] = 1
    return np.asarray(features / np.maximum(features.sum(1, keepdims=True), 1))
