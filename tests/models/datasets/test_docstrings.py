"""Docstrings and the words of names: what a source is, what its answer, and that nothing leaks."""

import re
from pathlib import Path

import numpy as np
import pytest

from models.datasets import IGNORED, View, load_dataset
from models.datasets.encoding import source_tokens
from models.datasets.subwords import END_ID, PAD_ID
from models.errors import DataError
from runtime.manifest import GenerationProcessing, TextProcessing
from runtime.processing import load_tokenizer


def test_answers_are_shifted_and_decode_to_their_references() -> None:
    data = load_dataset("docstrings")
    split, tokenizer = data.validation, load_tokenizer(data.files["tokenizer.json"])
    assert split.targets is not None
    assert split.references is not None
    assert split.raw is not None
    assert data.metric == "rouge-l"
    given = split.inputs["decoder_input_ids"]
    assert (given[:, 0] == PAD_ID).all()
    for row in range(5):
        wanted = split.targets[row][split.targets[row] != IGNORED].tolist()
        assert wanted[-1] == END_ID
        assert given[row, 1 : len(wanted)].tolist() == wanted[:-1]
        assert tokenizer.decode(wanted) == split.references[row]
        assert source_tokens(split.inputs)[row] == tokenizer.encode(split.raw[row]).ids


def test_no_text_is_on_both_sides() -> None:
    data = load_dataset("docstrings")
    assert data.train.raw is not None
    assert data.validation.raw is not None
    assert not set(data.train.raw) & set(data.validation.raw)
    assert len(data.validation) > 100


def test_a_name_shares_a_word_with_its_sentence() -> None:
    split = load_dataset("docstrings").train
    assert split.raw is not None
    assert split.references is not None
    assert len(split) > 2000
    for source, name in zip(split.raw, split.references, strict=True):
        assert set(name.split()) & set(re.findall("[a-z0-9]+", source.lower()))
        assert not re.search(r"\. [A-Z]", source)


def test_a_word_is_the_same_token_wherever_it_stands() -> None:
    tokenizer = load_tokenizer(load_dataset("docstrings").files["tokenizer.json"])
    plain = tokenizer.encode("return the file name").ids
    assert tokenizer.encode("Return the (file_name).").ids == plain
    assert plain[-1] == END_ID
    assert tokenizer.encode("file name", add_special_tokens=False).ids == plain[2:-1]


def test_what_reads_no_source_is_refused(tmp_path: Path) -> None:
    for processing in (GenerationProcessing(eos_ids=(1,)), TextProcessing(max_length=8)):
        with pytest.raises(DataError, match="no encoder-decoder"):
            load_dataset("docstrings", View(processing=processing))


def test_long_texts_are_cut_to_the_window() -> None:
    split = load_dataset("docstrings", View(window=6)).validation
    assert split.inputs["input_ids"].shape[1] == 6
    assert np.isin(split.inputs["attention_mask"], (0, 1)).all()
