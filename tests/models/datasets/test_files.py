import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from models.datasets import IGNORED, View, dataset_fingerprint, load_dataset
from models.datasets.files import split_rows
from models.errors import DataError
from runtime.manifest import GenerationProcessing, TextProcessing

MakeTokenizer = Callable[[Iterable[str]], Path]
TEXTS = ["good film", "bad film", "good , good", "bad bad", "a film"]


@pytest.fixture
def view(make_tokenizer: MakeTokenizer, text_processing: TextProcessing) -> View:
    return View("text-classification", text_processing, make_tokenizer(TEXTS), ("bad", "good"))


def write(path: Path, lines: Iterable[str]) -> str:
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return str(path)


def test_arrays_keep_their_names_and_rows(tmp_path: Path) -> None:
    x = np.arange(20, dtype=np.float32).reshape(10, 2)
    np.savez(tmp_path / "data.npz", x=x, labels=np.arange(10))
    dataset = load_dataset(str(tmp_path / "data.npz"))
    train, validation = dataset.train, dataset.validation
    assert (dataset.task, len(train), len(validation)) == ("tensor", 8, 2)
    assert train.targets is not None
    assert np.array_equal(train.inputs["x"], x[train.targets])
    assert validation.targets is not None
    assert not set(train.targets) & set(validation.targets)


def test_the_split_is_always_the_same() -> None:
    first, second = split_rows(100, Path("a")), split_rows(100, Path("b"))
    assert np.array_equal(first["validation"], second["validation"])
    assert len(first["validation"]) == 20
    assert sorted([*first["train"], *first["validation"]]) == list(range(100))
    assert [len(rows) for rows in split_rows(2, Path("a")).values()] == [1, 1]


@pytest.mark.parametrize("labels", [["1", "0", "1", "0", "0"], ["good", "bad", "good", "bad", "bad"]])
def test_every_text_format_reads_the_same(tmp_path: Path, view: View, labels: list[str]) -> None:
    pairs = list(zip(TEXTS, labels, strict=True))
    records = (json.dumps({"text": text, "label": label}) for text, label in pairs)
    paths = [
        write(tmp_path / "a.tsv", (f"{text}\t{label}" for text, label in pairs)),
        write(tmp_path / "a.csv", ["text,label", *(f'"{text}",{label}' for text, label in pairs)]),
        write(tmp_path / "a.jsonl", records),
    ]
    splits = [load_dataset(path, view).train for path in paths]
    for split in splits:
        assert split.raw == splits[0].raw
        assert split.targets is not None
        assert split.targets.tolist() == [int("good" in text) for text in split.raw or ()]


def test_texts_without_labels_have_no_targets(tmp_path: Path, view: View) -> None:
    dataset = load_dataset(write(tmp_path / "a.tsv", TEXTS), view)
    assert dataset.train.targets is None
    assert dataset.validation.inputs["input_ids"].dtype == np.int64


def test_label_names_come_from_the_file_where_the_model_has_none(tmp_path: Path, view: View) -> None:
    unnamed = View(view.task, view.processing, view.tokenizer)
    path = write(tmp_path / "a.tsv", ["x\tno", "y\tyes", "z\tno"])
    assert load_dataset(path, unnamed).labels == ("no", "yes")


def test_one_label_a_word_goes_to_its_first_token(tmp_path: Path, view: View) -> None:
    rows = [{"text": "good film, good", "labels": ["good", "bad", "good"]}] * 2
    path = write(tmp_path / "a.jsonl", map(json.dumps, rows))
    tagging = View("token-classification", view.processing, view.tokenizer, view.labels)
    split = load_dataset(path, tagging).train
    assert split.targets is not None
    # [CLS] good film , good [SEP]: the comma belongs to the second word.
    assert split.targets[0].tolist() == [IGNORED, 1, 0, IGNORED, 1, IGNORED]


def test_a_generating_model_reads_texts_as_one_stream(tmp_path: Path, view: View) -> None:
    path = write(tmp_path / "a.jsonl", (json.dumps({"text": "good film"}) for _ in range(30)))
    generating = View("text-generation", GenerationProcessing(eos_ids=(3,)), view.tokenizer, window=8)
    split = load_dataset(path, generating).train
    assert split.inputs["input_ids"].shape == (8, 8)
    assert split.inputs["input_ids"][0, 2] == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "x"}\n{"txt": 1}\n', r"a\.jsonl, line 2: want"),
        ("a.jsonl", "nonsense\n", r"a\.jsonl, line 1: want"),
        ("a.tsv", "one\ttwo\tthree\n", "line 1: 3 columns"),
        ("a.tsv", "only one\tgood\n", "1 examples; give at least two"),
        ("a.tsv", "x\tgood\ny\tugly\nz\tugly\n", "label 'ugly' is not one of the model's: bad, good"),
        ("a.jsonl", '{"text": "x y", "labels": [0, 1]}\n' * 3, "every text needs one label, or none has any"),
        (
            "a.jsonl",
            '{"text": "x", "label": 0}\n{"text": "y"}\n{"text": "z"}\n',
            "every text needs one label",
        ),
    ],
)
def test_malformed_texts_are_named(tmp_path: Path, view: View, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        _ = load_dataset(str(tmp_path / name), view).train


def test_as_many_labels_as_words_are_needed(tmp_path: Path, view: View) -> None:
    path = write(tmp_path / "a.jsonl", ['{"text": "good film", "labels": [0]}'] * 2)
    tagging = View("token-classification", view.processing, view.tokenizer, view.labels)
    with pytest.raises(DataError, match="2 words and 1 labels"):
        _ = load_dataset(path, tagging).train


def test_text_that_is_not_utf8_is_named(tmp_path: Path, view: View) -> None:
    (tmp_path / "a.tsv").write_bytes(b"caf\xe9\t1\n")
    with pytest.raises(DataError, match="not UTF-8"):
        load_dataset(str(tmp_path / "a.tsv"), view)


def test_a_model_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no tokenizer"):
        load_dataset(write(tmp_path / "a.tsv", TEXTS))


def test_arrays_of_different_lengths_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((3, 1)), labels=np.zeros(4))
    with pytest.raises(DataError, match="as long as the targets"):
        load_dataset(str(tmp_path / "data.npz"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"not an archive"])
def test_a_broken_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"data\.npz: not a readable \.npz"):
        load_dataset(str(tmp_path / "data.npz"))


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="not a readable"):
        load_dataset(str(tmp_path / "data.npz"))


def test_a_name_that_is_neither_set_nor_file_suggests_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"did you mean 'digits'\?"):
        load_dataset("digit")
    with pytest.raises(DataError, match="no such file"):
        load_dataset(str(tmp_path / "none.npz"))


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    first = dataset_fingerprint(write(path, ["x", "y"]))
    assert dataset_fingerprint(write(path, ["x", "z"])) != first
    assert dataset_fingerprint(write(path, ["x", "y"])) == first
