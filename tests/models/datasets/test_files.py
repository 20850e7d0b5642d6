import io
import json
import resource
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from models.datasets import IGNORED, View, dataset_fingerprint, load_dataset
from models.datasets.dataset import SplitName
from models.datasets.files import split_rows
from models.errors import DataError
from runtime.manifest import GenerationProcessing, TextProcessing

MakeTokenizer = Callable[[Iterable[str]], Path]
PARTS: tuple[SplitName, ...] = ("train", "validation")
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


@pytest.mark.parametrize(("first", "expected"), [(0, [0, 1, 2]), (1, [0, 1, 2])])
def test_labels_of_one_file_are_all_names_or_all_indices(
    tmp_path: Path, view: View, first: int, expected: list[int]
) -> None:
    """Names that are numbers, as those of stars are, can be taken for indices."""
    stars = View(view.task, view.processing, view.tokenizer, ("1", "2", "3"))
    rows = [json.dumps({"text": "good film", "label": first + row % 3}) for row in range(30)]
    targets = [load_dataset(write(tmp_path / "a.jsonl", rows), stars).load(part).targets for part in PARTS]
    found = np.concatenate([each for each in targets if each is not None])
    assert sorted(set(found.tolist())) == expected
    assert np.bincount(found).tolist() == [10, 10, 10]


def test_texts_are_refused_for_an_encoder_decoder(tmp_path: Path, view: View) -> None:
    answering = GenerationProcessing(eos_ids=(3,), start_ids=(0,))
    path = write(tmp_path / "a.jsonl", (json.dumps({"text": "good film"}) for _ in range(30)))
    with pytest.raises(DataError, match="wants an answer to each"):
        load_dataset(path, View("text2text-generation", answering, view.tokenizer, window=8))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "uint16", ">i4", "int64"])
def test_labels_of_any_integers_can_be_learnt(tmp_path: Path, dtype: str) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((10, 2), ">f4"), labels=(np.arange(10) % 3).astype(dtype))
    split = load_dataset(str(tmp_path / "a.npz")).train
    assert split.targets is not None
    assert split.targets.dtype == np.int64
    torch.nn.functional.cross_entropy(torch.zeros(len(split), 3), torch.from_numpy(split.targets))
    assert torch.from_numpy(split.inputs["x"]).dtype == torch.float32


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
        ("a.jsonl", '{"text": "x"}\n{"text": null}\n', r"a\.jsonl, line 2: want"),
        ("a.jsonl", "[" * 100_000 + "\n", r"a\.jsonl, line 1: want"),
        ("a.tsv", "x\tgood\ny\t²\nz\t²\n", "label '²' is not one of the model's: bad, good"),
        ("a.csv", "x" * 200_000 + ",good\n", "field larger than field limit"),
        (
            "a.jsonl",
            '{"text": "x", "label": 0}\n{"text": "y"}\n{"text": "z"}\n',
            "every text needs one label",
        ),
    ],
)
def test_malformed_texts_are_named(tmp_path: Path, view: View, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, "utf-8")
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


def test_a_byte_order_mark_is_no_text(tmp_path: Path, view: View) -> None:
    """As spreadsheets write it; a header behind one was read as an example."""
    rows = [f'"{text}",{"good" if "good" in text else "bad"}' for text in TEXTS]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *rows]), "utf-8-sig")
    records = (json.dumps({"text": text, "label": "good" if "good" in text else "bad"}) for text in TEXTS)
    (tmp_path / "a.jsonl").write_text("\n".join(records), "utf-8-sig")
    fresh = View("text-classification", view.processing, view.tokenizer)
    for name in ("a.csv", "a.jsonl"):
        dataset = load_dataset(str(tmp_path / name), fresh)
        assert dataset.labels == ("bad", "good")
        assert len(dataset.train) + len(dataset.validation) == len(TEXTS)


def test_a_line_of_json_may_hold_other_separators_of_lines(tmp_path: Path, view: View) -> None:
    path = write(tmp_path / "a.jsonl", ['{"text": "good\u2028film", "label": 1}'] * 5)
    assert load_dataset(path, view).train.raw == ["good\u2028film"] * 4


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


def test_what_is_no_archive_of_arrays_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "single.npz").open("wb") as file:
        np.save(file, np.zeros(4))
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("readme.txt", "text")
    for name, message in (("single.npz", "a single array"), ("text.npz", "'readme.txt' is no array")):
        with pytest.raises(DataError, match=message):
            load_dataset(str(tmp_path / name))


def test_an_archive_that_unpacks_to_more_than_there_is_memory_is_refused(tmp_path: Path) -> None:
    """One says so in its table of contents, the other in the array's own header."""
    header = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (10**13,)}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(tmp_path / "header.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(1000))
    with pytest.raises(DataError, match=r"not a readable \.npz archive"):
        load_dataset(str(tmp_path / "header.npz"))
    (tmp_path / "bomb.npz").write_bytes(claiming((tmp_path / "header.npz").read_bytes(), 2**31))
    limit = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 2**30, limit[1]))
    try:
        with pytest.raises(DataError, match="unpacks to 2,147,483,648 bytes"):
            load_dataset(str(tmp_path / "bomb.npz"))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)


def claiming(archive: bytes, size: int) -> bytes:
    """The archive of one file, with another unpacked size in its table of contents."""
    place = archive.index(b"PK\x01\x02") + 24
    return archive[:place] + size.to_bytes(4, "little") + archive[place + 4 :]


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
