import numpy as np
import pytest

from models.datasets import View, load_dataset
from models.datasets.scenes import OBJECTS, SIZE
from models.errors import DataError


def test_masks_and_boxes_are_of_the_same_scenes() -> None:
    masks = load_dataset("scenes", View(task="segmentation")).validation
    boxes = load_dataset("scenes", View(task="object-detection")).validation
    assert masks.targets is not None
    assert boxes.targets is not None
    assert np.array_equal(masks.inputs["pixel_values"], boxes.inputs["pixel_values"])
    assert masks.targets.shape == (len(masks), SIZE, SIZE)
    assert boxes.targets.shape == (len(boxes), OBJECTS, 5)
    for mask, rows in zip(masks.targets, boxes.targets, strict=True):
        real = rows[rows[:, 0] >= 0]
        assert set(np.unique(mask)) - {0} <= {int(row[0]) + 1 for row in real}
        inside = np.zeros_like(mask, bool)
        for _, left, top, right, bottom in (real * [1, SIZE, SIZE, SIZE, SIZE]).astype(int):
            inside[top:bottom, left:right] = True
        assert not mask[~inside].any()
    assert (boxes.targets[..., 0] >= 0).sum(1).min() >= 1


def test_they_are_the_same_each_time_and_differ_between_splits() -> None:
    first, again = (load_dataset("scenes").validation.inputs["pixel_values"] for _ in range(2))
    assert np.array_equal(first, again)
    train = load_dataset("scenes").train.inputs["pixel_values"]
    assert not np.array_equal(train[: len(first)], first)


def test_another_task_is_refused() -> None:
    with pytest.raises(DataError, match="not for embedding"):
        load_dataset("scenes", View(task="embedding"))
