from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from models.datasets import View, dataset_fingerprint, load_dataset
from models.errors import DataError
from runtime.manifest import ImageProcessing, TextProcessing
from runtime.processing import encode_texts, load_tokenizer

MakeTokenizer = Callable[[Iterable[str]], Path]


def test_sentences_and_labels(
    shared_data: Path, make_tokenizer: MakeTokenizer, text_processing: TextProcessing
) -> None:
    tokenizer = make_tokenizer((shared_data / "sst2" / "dev.tsv").read_text().splitlines())
    dataset = load_dataset("sst2", View("text-classification", text_processing, tokenizer))
    split = dataset.validation
    assert (len(split), dataset.labels) == (872, ("negative", "positive"))
    assert split.raw is not None
    assert split.raw[0] == "one long string of cliches"
    assert split.targets is not None
    assert split.targets[0] == 0
    assert 0.4 < split.targets.mean() < 0.6
    alone = encode_texts(load_tokenizer(tokenizer), split.raw[:1], text_processing)["input_ids"][0]
    assert np.array_equal(split.inputs["input_ids"][0, : len(alone)], alone)
    assert split.inputs["input_ids"].shape[1] == text_processing.max_length


def test_missing_data_says_where_to_put_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MODELPRESS_DATA", raising=False)
    with pytest.raises(DataError, match=r"'sst2' is not here; .* set MODELPRESS_DATA"):
        dataset_fingerprint("sst2")
    monkeypatch.setenv("MODELPRESS_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"sst2/train\.tsv: missing"):
        dataset_fingerprint("sst2")


def test_sentences_have_tokens_of_their_own(shared_data: Path) -> None:
    dataset = load_dataset("sst2")
    split = dataset.validation
    assert split.raw is not None
    tokenizer = load_tokenizer(dataset.files["tokenizer.json"])
    assert isinstance(dataset.processing, TextProcessing)
    alone = encode_texts(tokenizer, split.raw[:1], dataset.processing)["input_ids"][0]
    assert np.array_equal(split.inputs["input_ids"][0, : len(alone)], alone)
    assert tokenizer.decode(alone.tolist()) == "one long string of cliches"


def test_an_image_model_is_refused() -> None:
    picture = ImageProcessing(mode="L", height=2, width=2, rescale=1.0, mean=(0.0,), std=(1.0,))
    with pytest.raises(DataError, match="does not read text"):
        load_dataset("sst2", View(processing=picture))
