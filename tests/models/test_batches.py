import numpy as np
import pytest
import torch

from models.batches import shuffled_batches
from models.datasets import Split
from models.errors import DataError
from models.registry import TrainingRecipe

RECIPE = TrainingRecipe(steps=10, batch_size=4, learning_rate=1e-3)
SPLIT = Split({"x": np.arange(11)}, np.arange(11) * 2)


def test_an_epoch_sees_rows_once_and_a_batch_depends_on_nothing_but_the_step() -> None:
    batches = shuffled_batches(SPLIT, RECIPE, seed=0)
    epoch = [batches(step, 0.0)["x"] for step in (0, 1)]
    assert len(torch.cat(epoch).unique()) == 8
    assert torch.equal(shuffled_batches(SPLIT, RECIPE, seed=0)(1, 0.9)["x"], epoch[1])
    assert not torch.equal(batches(2, 0.0)["x"], epoch[0])
    assert not torch.equal(shuffled_batches(SPLIT, RECIPE, seed=1)(0, 0.0)["x"], epoch[0])


def test_targets_go_with_their_rows() -> None:
    batch = shuffled_batches(SPLIT, RECIPE, seed=0)(0, 0.0)
    assert torch.equal(batch["targets"], batch["x"] * 2)


def test_rows_are_cut_to_the_length_of_the_stage() -> None:
    tokens = np.arange(4 * 8).reshape(4, 8)
    recipe = TrainingRecipe(steps=1, batch_size=2, learning_rate=1.0, sequence_lengths=((0.0, 4), (0.5, 8)))
    batches = shuffled_batches(Split({"input_ids": tokens}, tokens + 1), recipe, seed=0)
    early, late = batches(0, 0.49), batches(0, 0.5)
    assert (early["input_ids"].shape, late["input_ids"].shape) == ((4, 4), (2, 8))
    assert torch.equal(early["input_ids"].flatten(), late["input_ids"].flatten())


def test_a_split_smaller_than_the_batch_is_one_batch() -> None:
    small = Split({"x": np.arange(3)}, np.arange(3))
    assert sorted(shuffled_batches(small, RECIPE, seed=0)(5, 0.0)["x"].tolist()) == [0, 1, 2]


def test_a_split_without_targets_is_refused() -> None:
    with pytest.raises(DataError, match="no labels"):
        shuffled_batches(Split({"x": np.arange(3)}, None), RECIPE, seed=0)
