from pathlib import Path

import pytest

from models.datasets import View, load_dataset
from models.errors import DataError
from runtime.manifest import ImageProcessing
from runtime.processing import load_tokenizer


def test_what_is_judged_is_not_learnt_from(shared_data: Path) -> None:
    dataset = load_dataset("sentences")
    learnt, judged = dataset.train.raw, dataset.validation.raw
    assert learnt is not None
    assert judged is not None
    assert len(learnt) == len(set(learnt)) > 10_000
    assert not set(learnt) & set(judged)
    assert dataset.validation.targets is not None
    assert len(judged) == 2 * len(dataset.validation.targets)


def test_capitals_make_no_difference(shared_data: Path) -> None:
    tokenizer = load_tokenizer(load_dataset("sentences").files["tokenizer.json"])
    assert tokenizer.encode("A Man is Playing").ids == tokenizer.encode("a man is playing").ids


def test_a_model_that_reads_no_text_is_refused() -> None:
    picture = ImageProcessing(mode="L", height=2, width=2, rescale=1.0, mean=(0.0,), std=(1.0,))
    with pytest.raises(DataError, match="does not read text"):
        load_dataset("sentences", View(processing=picture))
