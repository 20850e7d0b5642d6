import numpy as np
import pytest

from models.datasets import View, load_dataset
from models.errors import DataError
from runtime.manifest import ImageProcessing, TextProcessing
from runtime.processing import encode_texts, load_tokenizer


def test_each_piece_s_target_is_the_piece_after_it() -> None:
    dataset = load_dataset("stdlib-pieces")
    split = dataset.validation
    assert split.targets is not None
    assert (split.targets[:, :-1] == split.inputs["input_ids"][:, 1:]).all()
    assert (split.targets[:-1, -1] == split.inputs["input_ids"][1:, 0]).all()
    assert split.inputs["attention_mask"].all()


def test_a_window_s_text_leads_back_to_its_tokens_and_most_windows_have_one() -> None:
    dataset = load_dataset("stdlib-pieces")
    assert isinstance(dataset.processing, TextProcessing)
    raw, tokens = dataset.validation.raw, dataset.validation.inputs["input_ids"]
    assert raw is not None
    tokenizer = load_tokenizer(dataset.files["tokenizer.json"])
    rows = [row for row, each in enumerate(raw) if isinstance(each, str)]
    assert len(rows) > len(raw) / 2
    encoded = encode_texts(tokenizer, [raw[row] for row in rows[:50]], dataset.processing)
    assert np.array_equal(encoded["input_ids"], tokens[rows[:50]])
    assert all(raw[row] == tokens[row].tolist() for row in set(range(len(raw))) - set(rows))


def test_a_model_that_reads_no_text_or_other_tokens_cannot_have_them() -> None:
    picture = ImageProcessing(mode="L", height=2, width=2, rescale=1.0, mean=(0.0,), std=(1.0,))
    with pytest.raises(DataError, match="has its own tokens"):
        load_dataset("stdlib-pieces", View(processing=picture))
    dataset = load_dataset("stdlib-pieces")
    with pytest.raises(DataError, match="has its own tokens"):
        load_dataset("stdlib-pieces", View(tokenizer=dataset.files["tokenizer.json"].with_name("other.json")))
