from pathlib import Path

import numpy as np
import pytest

from models.datasets import IGNORED, View, load_dataset
from models.errors import DataError
from runtime.graphs import batch_graphs
from runtime.manifest import TextProcessing


def test_one_graph_with_the_labels_of_its_split(shared_data: Path) -> None:
    dataset = load_dataset("cora")
    train, validation = dataset.train, dataset.validation
    assert train.targets is not None
    assert validation.targets is not None
    assert validation.raw is not None
    assert validation.inputs["features"].shape == (1, 2708, 1433)
    assert validation.inputs["features"].sum(-1) == pytest.approx(1)
    assert ((train.targets != IGNORED).sum(), (validation.targets != IGNORED).sum()) == (140, 1000)
    assert not ((train.targets != IGNORED) & (validation.targets != IGNORED)).any()
    assert len(dataset.labels) == 7
    served = batch_graphs(validation.raw, dataset.processing)  # type: ignore[arg-type]
    for name, tensor in served.items():
        assert np.array_equal(tensor, validation.inputs[name])


def test_without_the_file_it_says_where_to_put_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELPRESS_DATA", raising=False)
    with pytest.raises(DataError, match="set MODELPRESS_DATA"):
        load_dataset("cora")


def test_a_model_that_does_not_take_graphs_is_refused(shared_data: Path) -> None:
    with pytest.raises(DataError, match="does not take graphs"):
        load_dataset("cora", View(processing=TextProcessing(max_length=8)))
