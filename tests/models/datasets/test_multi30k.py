import gzip
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from models.datasets import View, load_dataset
from models.errors import DataError


def write(folder: Path, english: str, german: str) -> None:
    (folder / "multi30k").mkdir(parents=True)
    for split in ("train", "val"):
        for language, text in (("en", english), ("de", german)):
            (folder / "multi30k" / f"{split}.{language}.gz").write_bytes(gzip.compress(text.encode()))


def test_sentences_are_read_from_where_the_data_is_now(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_tokenizer: Callable[[Iterable[str]], Path]
) -> None:
    view = View(tokenizer=make_tokenizer(["A dog runs.", "Ein Hund rennt."]))
    write(tmp_path / "one", "A dog runs.\n", "Ein Hund rennt.\n")
    write(tmp_path / "two", "A cat.\nA dog.\n", "Eine Katze.\nEin Hund.\n")
    for folder, answers in (("one", ["Ein Hund rennt."]), ("two", ["Eine Katze.", "Ein Hund."])):
        monkeypatch.setenv("MODELPRESS_DATA", str(tmp_path / folder))
        assert load_dataset("multi30k", view).validation.references == answers


def test_a_sentence_without_its_translation_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_tokenizer: Callable[[Iterable[str]], Path]
) -> None:
    write(tmp_path, "A dog runs.\nA cat.\n", "Ein Hund rennt.\n")
    monkeypatch.setenv("MODELPRESS_DATA", str(tmp_path))
    with pytest.raises(DataError, match="2 English lines and 1 German"):
        _ = load_dataset("multi30k", View(tokenizer=make_tokenizer(["A dog."]))).train
