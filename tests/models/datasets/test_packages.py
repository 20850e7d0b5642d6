import numpy as np
import pytest

from models.datasets import View, load_dataset, packages
from models.errors import DataError
from runtime.manifest import ImageProcessing


def test_ten_balanced_classes_whose_files_are_on_one_side() -> None:
    dataset = load_dataset("packages")
    assert len(dataset.labels) == 10
    for split in (dataset.train, dataset.validation):
        assert split.targets is not None
        assert len(set(np.bincount(split.targets))) == 1
    assert not set(dataset.train.raw or ()) & set(dataset.validation.raw or ())
    for paths in packages._files().values():
        train, held = packages._sides(paths)
        assert 0 < len(held) <= packages.HELD_OUT * (len(train) + len(held))


def test_a_snippet_is_whole_lines_of_its_package() -> None:
    dataset = load_dataset("packages")
    assert dataset.validation.raw is not None
    assert dataset.validation.targets is not None
    text, label = dataset.validation.raw[0], dataset.validation.targets[0]
    files = packages._files()[dataset.labels[label]]
    assert any(text in path.read_text("utf-8") for path in files)


def test_a_model_that_does_not_read_text_is_refused() -> None:
    images = ImageProcessing(mode="L", height=8, width=8, rescale=1.0, mean=(0.0,), std=(1.0,))
    with pytest.raises(DataError, match="does not read text"):
        load_dataset("packages", View(processing=images))
