"""Calibration data that a graph does not take is refused by name, before anything runs."""

import numpy as np
import pytest

from compress.calibration import check_fits, drawn_rows
from compress.errors import StepError
from models.datasets import Dataset, Split
from runtime.manifest import Signature, TensorProcessing, TensorSpec

SIGNATURE = Signature(
    inputs=(
        TensorSpec(name="image", dtype="float32", shape=("batch", 3, 8, 8)),
        TensorSpec(name="past_key_0", dtype="float32", shape=("batch", 2, "capacity", 4)),
    ),
    outputs=(),
)


def dataset(*shape: int, dtype: str = "float32") -> Dataset:
    split = Split({"image": np.zeros(shape, dtype)}, None)
    return Dataset("pictures", "image-classification", "", (), TensorProcessing(), lambda name: split)


def test_data_that_fits_passes_whatever_else_the_graph_takes() -> None:
    check_fits("quantize", dataset(5, 3, 8, 8), SIGNATURE)


@pytest.mark.parametrize("shape", [(5, 3, 8, 9), (5, 1, 8, 8), (5, 3, 8), (5, 192)])
def test_data_of_another_shape_is_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    expected = (
        rf"quantize: calibration data 'image' of pictures has shape \[{', '.join(map(str, shape))}\], "
        r"and the graph takes \[batch, 3, 8, 8\]"
    )
    with pytest.raises(StepError, match=expected):
        check_fits("quantize", dataset(*shape), SIGNATURE)


@pytest.mark.parametrize("dtype", ["float64", "float16", "uint8"])
def test_data_of_another_type_is_refused_with_both_types(dtype: str) -> None:
    expected = f"'image' of pictures is {dtype}, and the graph takes float32; give data of that type"
    with pytest.raises(StepError, match=expected):
        check_fits("quantize", dataset(5, 3, 8, 8, dtype=dtype), SIGNATURE)


def test_rows_are_drawn_once_each_by_seed_and_no_more_than_there_are() -> None:
    drawn = [rows.tolist() for rows in drawn_rows("quantize", dataset(9, 3, 8, 8), 7, 3, seed=1)]
    assert [len(rows) for rows in drawn] == [3, 3, 1]
    assert len({row for rows in drawn for row in rows}) == 7
    with pytest.raises(StepError, match="10 calibration samples asked, but pictures has 9"):
        drawn_rows("quantize", dataset(9, 3, 8, 8), 10, 3, seed=1)
