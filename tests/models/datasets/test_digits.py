import numpy as np
import pytest
from sklearn.datasets import load_digits

from models.datasets import View, load_dataset
from models.errors import DataError
from runtime.manifest import ImageProcessing, TextProcessing
from runtime.processing import preprocess_images


def test_the_splits_hold_every_image_once_and_every_class_evenly() -> None:
    dataset = load_dataset("digits")
    assert (len(dataset.train), len(dataset.validation)) == (1437, 360)
    assert dataset.train.targets is not None
    assert dataset.validation.targets is not None
    counts = np.bincount(dataset.validation.targets)
    assert counts.min() >= 34
    assert counts.max() <= 37
    targets = np.concatenate([dataset.train.targets, dataset.validation.targets])
    assert np.array_equal(np.bincount(targets), np.bincount(load_digits().target))


def test_inputs_are_what_serving_would_make_of_the_raw_images() -> None:
    dataset = load_dataset("digits")
    assert isinstance(dataset.processing, ImageProcessing)
    raw = dataset.validation.raw
    assert raw is not None
    assert (raw[0].mode, raw[0].size) == ("L", (8, 8))
    inputs = dataset.validation.inputs["pixel_values"]
    assert (inputs.dtype, inputs.shape) == (np.float32, (360, 1, 32, 32))
    assert np.array_equal(inputs[:3], preprocess_images(raw[:3], dataset.processing))
    assert abs(float(dataset.train.inputs["pixel_values"].mean())) < 0.05


def test_another_model_sees_them_its_own_way() -> None:
    processing = ImageProcessing(
        mode="RGB", height=16, width=24, rescale=1 / 255, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    dataset = load_dataset("digits", View(processing=processing))
    assert dataset.validation.inputs["pixel_values"].shape == (360, 3, 16, 24)


def test_a_text_model_is_refused() -> None:
    with pytest.raises(DataError, match="holds images"):
        load_dataset("digits", View(processing=TextProcessing(max_length=4)))
