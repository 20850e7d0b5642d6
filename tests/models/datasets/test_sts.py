from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from models.datasets import View, load_dataset
from models.errors import DataError
from runtime.manifest import TextProcessing


def test_pairs_are_neighbouring_rows_and_unscored_ones_are_skipped(
    shared_data: Path, make_tokenizer: Callable[[Iterable[str]], Path], text_processing: TextProcessing
) -> None:
    files = sorted((shared_data / "sts").glob("2015*.tsv"))
    lines = [line for path in files for line in path.read_text().splitlines()]
    scored = [line for line in lines if line.split("\t")[0].strip()]
    split = load_dataset("sts", View("embedding", text_processing, make_tokenizer(lines))).validation
    assert split.targets is not None
    assert 0 < len(split.targets) == len(scored) < len(lines)
    assert len(split) == 2 * len(split.targets)
    assert split.raw is not None
    assert split.raw[:2] == scored[0].split("\t")[1:]
    assert 0 <= split.targets.min() < split.targets.max() <= 5


def test_a_model_without_tokenizer_is_refused() -> None:
    with pytest.raises(DataError, match="does not embed"):
        load_dataset("sts")
