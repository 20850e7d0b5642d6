import numpy as np
import pytest

from models.datasets import IGNORED, View, load_dataset
from models.datasets.cooccurrences import weighted_counts
from models.datasets.words import CANDIDATES, JUDGED, WINDOW, stream, thinned, windows, words_of
from models.errors import DataError
from models.evaluation import evaluate
from runtime.manifest import Subwords, TextProcessing, WordProcessing
from runtime.words import rows_asked


def test_names_come_apart_into_words() -> None:
    text = "def read_all(self):  # HTTPServer's x\n    return XMLReader2Text"
    assert words_of(text) == [
        "def",
        "read",
        "all",
        "self",
        "http",
        "server",
        "return",
        "xml",
        "reader",
        "text",
    ]


def test_windows_do_not_cross_files() -> None:
    words, files = np.arange(5), np.array([0, 0, 0, 1, 1])
    around = windows(words, files)
    assert around.shape == (5, 2 * WINDOW)
    near = [[word for word in row if word != IGNORED] for row in around.tolist()]
    assert near == [[1, 2], [0, 2], [0, 1], [4], [3]]
    assert around[1, WINDOW - 1 : WINDOW + 1].tolist() == [0, 2]


def test_cooccurrences_count_by_distance_and_both_ways() -> None:
    counts = weighted_counts(np.array([0, 1, 0, 2]), np.array([0, 0, 0, 1]), 3)
    assert counts.tolist() == [[1, 2, 0], [2, 0, 0], [0, 0, 0]]


def test_frequent_words_are_thinned_out_and_rare_ones_stay() -> None:
    before, after = (np.bincount(words, minlength=4000) for words, _ in (stream("train"), thinned("train")))
    assert after[0] < before[0] / 5
    assert (after[2000:] == before[2000:]).all()


def test_held_out_pairs_stand_beside_words_as_frequent() -> None:
    dataset = load_dataset("words")
    asked, targets = dataset.validation.inputs["word_ids"], dataset.validation.targets
    assert targets is not None
    assert dataset.validation.raw is not None
    assert targets.shape == (JUDGED, CANDIDATES)
    assert not (targets == asked[:, None]).any()
    assert not (targets[:, :1] == targets[:, 1:]).any()
    assert [dataset.labels[row] for row in asked.tolist()] == list(dataset.validation.raw)
    assert (abs(targets[:, 1:] - targets[:, :1]) <= np.maximum(40, 0.5 * targets[:, :1])).all()


@pytest.mark.parametrize("known", ["nothing", "frequencies"])
def test_without_meaning_one_in_ten_is_found(known: str) -> None:
    """Random similarities, and frequencies for similarities: chance, or worse."""
    split = load_dataset("words").validation
    table = np.random.default_rng(0).random((4000, 4000)) if known == "nothing" else -np.arange(4000.0)[None]
    rows = table if known == "nothing" else np.repeat(table, 4000, 0)
    found = evaluate(
        lambda inputs: {"similarity": rows[inputs["word_ids"]]}, split, "neighbour-accuracy", 500
    )
    assert found.value() < 0.12


def test_a_model_of_subwords_is_asked_by_them() -> None:
    processing = WordProcessing(subwords=Subwords(buckets=64, most=8))
    for name in ("words", "cooccurrences"):
        split = load_dataset(name, View(processing=processing)).validation
        assert split.inputs["subword_ids"].shape == (JUDGED, 8)
        plain = load_dataset(name).validation.inputs["word_ids"]
        assert (rows_asked(split.inputs, processing) == plain).all()


@pytest.mark.parametrize("name", ["words", "cooccurrences"])
def test_a_model_that_does_not_take_words_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="take words"):
        load_dataset(name, View(processing=TextProcessing(max_length=8)))
