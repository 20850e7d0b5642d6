"""Registered sets whose files are there and hold something else: one line, from wherever it is noticed."""

import gzip
import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from models.datasets import View, load_dataset
from models.errors import DataError


def arrays() -> bytes:
    file = io.BytesIO()
    np.savez(file, another=np.zeros(3))
    return file.getvalue()


def bent() -> bytes:
    """Compressed text with a byte changed in its middle."""
    content = bytearray(gzip.compress(" ".join(map(str, range(2000))).encode(), mtime=0))
    content[len(content) // 2] ^= 255
    return bytes(content)


@pytest.mark.parametrize(
    ("name", "files", "content"),
    [
        ("sst2", ("train.tsv", "dev.tsv"), b"no label\n"),
        ("sst2", ("train.tsv", "dev.tsv"), b"a film\tgood\n"),
        ("sst2", ("train.tsv", "dev.tsv"), b"caf\xe9\t1\n"),
        ("cora", ("cora.npz",), b"x"),
        ("cora", ("cora.npz",), arrays()),
        ("multi30k", ("train.en.gz", "train.de.gz", "val.en.gz", "val.de.gz"), bent()),
    ],
)
def test_files_that_hold_something_else_are_named(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    make_tokenizer: Callable[[Iterable[str]], Path],
    name: str,
    files: tuple[str, ...],
    content: bytes,
) -> None:
    (tmp_path / name).mkdir()
    for file in files:
        (tmp_path / name / file).write_bytes(content)
    monkeypatch.setenv("MODELPRESS_DATA", str(tmp_path))
    with pytest.raises(DataError, match=f"{name}.*copy (it|its files) again") as caught:
        _ = load_dataset(name, View(tokenizer=make_tokenizer(["a film"]))).train
    assert "\n" not in str(caught.value)
