import numpy as np
import pytest

from models.datasets import IGNORED, View, load_dataset
from models.datasets.imports import imported, modules, packages, words
from models.errors import DataError
from runtime.graphs import batch_graphs
from runtime.manifest import TextProcessing

KNOWN = ("os", "xml", "xml.dom", "xml.dom.minidom", "xml.sax", "asyncio", "asyncio.events", "json")


@pytest.mark.parametrize(
    ("module", "text", "found"),
    [
        ("json", "import os, xml.dom as dom\nimport nothing", {"os", "xml.dom"}),
        ("json", "from xml import dom, parse\n", {"xml.dom", "xml"}),
        (
            "json",
            "    from asyncio import (run,  # a comment\n        events)\n",
            {"asyncio", "asyncio.events"},
        ),
        ("xml.dom", "from . import minidom\nfrom .. import sax\n", {"xml.dom.minidom", "xml.sax"}),
        ("xml.dom.minidom", "from ..sax import handler\nfrom . import x", {"xml.sax", "xml.dom"}),
        ("json", "x = 'import os'\n# from xml import dom\nfrom elsewhere import os\n", set()),
    ],
)
def test_imports_are_resolved_to_modules_of_the_library(module: str, text: str, found: set[str]) -> None:
    assert set(imported(module, text, KNOWN)) == found


def test_words_give_neither_the_path_nor_the_imports_away() -> None:
    text = (
        "from xml.sax import handler\nimport asyncio\nclass DomEventReader:\n    read_all = minidom_thing\n"
    )
    assert words("xml.dom.minidom", text) == {"class", "event", "reader", "read", "all", "thing"}


def test_one_graph_with_half_of_each_package_held_out() -> None:
    dataset = load_dataset("imports")
    train, validation = dataset.train.targets, dataset.validation.targets
    assert train is not None
    assert validation is not None
    assert dataset.labels == packages()
    assert len(packages()) == 10
    assert not ((train != IGNORED) & (validation != IGNORED)).any()
    counts = [np.bincount(targets[targets != IGNORED]) for targets in (train, validation)]
    assert (counts[0] - counts[1]).min() >= 0
    assert (counts[0] - counts[1]).max() <= 1
    owners = [module.partition(".")[0] for module in modules()]
    for row, label in enumerate(validation[0].tolist()):
        assert label == IGNORED or dataset.labels[label] == owners[row]


def test_edges_go_both_ways_and_what_is_served_is_what_is_trained_on() -> None:
    dataset = load_dataset("imports")
    edges = {(source, target) for source, target in dataset.train.inputs["edges"][0].tolist()}
    assert edges == {(target, source) for source, target in edges}
    assert all(source != target for source, target in edges)
    numbers = {module: row for row, module in enumerate(modules())}
    assert (numbers["json"], numbers["json.decoder"]) in edges
    raw = dataset.validation.raw
    assert raw is not None
    for name, tensor in batch_graphs(raw, dataset.processing).items():  # type: ignore[arg-type]
        assert np.array_equal(tensor, dataset.validation.inputs[name])


def test_a_model_that_does_not_take_graphs_is_refused() -> None:
    with pytest.raises(DataError, match="does not take graphs"):
        load_dataset("imports", View(processing=TextProcessing(max_length=8)))
