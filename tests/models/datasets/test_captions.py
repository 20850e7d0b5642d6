from pathlib import Path

import numpy as np
import pytest

from models.datasets import View, load_dataset
from models.datasets.captions import HELD_OUT, LABELS, TEMPLATES, captions_of
from models.errors import DataError
from runtime.manifest import CaptionedProcessing, TextProcessing
from runtime.processing import load_tokenizer


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPRESS_HOME", str(tmp_path))


def test_a_training_image_has_one_caption_that_names_its_digit() -> None:
    train = load_dataset("captions").train
    assert train.raw is not None
    assert train.targets is not None
    seen = set()
    for item, target in zip(train.raw, train.targets.tolist(), strict=True):
        (caption,) = item.captions
        (template,) = (each for each in TEMPLATES if captions_of(each)[target] == caption)
        seen.add(template)
    assert seen == set(TEMPLATES)
    assert train.inputs["input_ids"].shape[:2] == (1437, 1)


def test_held_out_images_go_beside_captions_that_nothing_was_trained_on() -> None:
    dataset = load_dataset("captions")
    assert dataset.labels == LABELS == captions_of(HELD_OUT[0])
    assert not {*HELD_OUT} & {*TEMPLATES}
    ids = dataset.validation.inputs["input_ids"]
    assert ids.shape[:2] == (360, 10)
    assert (ids == ids[:1]).all()
    assert len(np.unique(ids[0], axis=0)) == 10


def test_no_caption_is_cut_or_has_words_that_the_tokenizer_does_not_know() -> None:
    dataset = load_dataset("captions")
    assert isinstance(dataset.processing, CaptionedProcessing)
    tokenizer = load_tokenizer(dataset.files["tokenizer.json"])
    for template in (*TEMPLATES, *HELD_OUT):
        tokens = tokenizer.encode(template.format("seven")).tokens
        assert len(tokens) <= dataset.processing.text.max_length
        assert "[UNK]" not in tokens


def test_a_model_that_does_not_take_both_is_refused() -> None:
    with pytest.raises(DataError, match="compare images with captions"):
        load_dataset("captions", View(processing=TextProcessing(max_length=8)))
