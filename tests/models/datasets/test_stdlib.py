import sysconfig
from pathlib import Path

import numpy as np
import pytest

from models.datasets import View, dataset_fingerprint, load_dataset, stdlib
from models.datasets.encoding import token_stream
from models.errors import DataError
from runtime.manifest import GenerationProcessing, TextProcessing
from runtime.processing import load_tokenizer


def test_about_one_file_in_eleven_is_held_out_and_tests_are_left_out() -> None:
    paths = stdlib._paths()
    train, validation = paths["train"], paths["validation"]
    assert not set(train) & set(validation)
    assert 0.05 < len(validation) / (len(train) + len(validation)) < 0.15
    root = Path(sysconfig.get_path("stdlib"))
    assert root / "dataclasses.py" in train + validation
    assert not any({"test", "tests", "site-packages"} & set(path.relative_to(root).parts) for path in train)


def test_windows_follow_one_another_in_the_text() -> None:
    dataset = load_dataset("stdlib")
    split = dataset.validation
    assert split.targets is not None
    assert split.inputs["input_ids"].shape == split.targets.shape == (len(split), 256)
    assert np.array_equal(split.inputs["input_ids"][:, 1:], split.targets[:, :-1])
    tokenizer = load_tokenizer(dataset.files["tokenizer.json"])
    assert tokenizer.get_vocab_size() == stdlib.VOCABULARY
    assert tokenizer.token_to_id(stdlib.END_OF_TEXT) == stdlib.END_ID
    text = tokenizer.decode(token_stream(split).tolist(), skip_special_tokens=True)
    assert stdlib._documents("validation")[0] in text


def test_its_files_are_made_once() -> None:
    dataset = load_dataset("stdlib")
    assert len(dataset.validation) > 500
    written = {path: path.stat().st_mtime_ns for path in dataset.files["tokenizer.json"].parent.iterdir()}
    assert len(load_dataset("stdlib").validation) == len(dataset.validation)
    assert written == {path: path.stat().st_mtime_ns for path in written}
    assert dataset.fingerprint == dataset_fingerprint("stdlib")


def test_another_model_sees_it_in_its_own_tokens(make_tokenizer) -> None:  # type: ignore[no-untyped-def]
    tokenizer = make_tokenizer(["def return import class self"])
    view = View("text-generation", GenerationProcessing(eos_ids=(3,)), tokenizer, window=64)
    inputs = load_dataset("stdlib", view).validation.inputs["input_ids"]
    assert inputs.shape[1] == 64
    assert (inputs == 3).sum() >= 10


def test_a_model_that_does_not_generate_is_refused() -> None:
    with pytest.raises(DataError, match="does not generate"):
        load_dataset("stdlib", View(processing=TextProcessing(max_length=4)))
