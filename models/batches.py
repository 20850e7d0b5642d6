"""Batches for the training loop, drawn from a split as a pure function of the step.

Being pure is what makes a run resumable: nothing has to be replayed. Rows are shuffled anew each epoch, and
the few rows that do not fill a last batch wait for another epoch.
"""

from functools import lru_cache

import numpy as np
import torch

from models.datasets import Split
from models.datasets.dataset import Array
from models.errors import DataError
from models.registry import TrainingRecipe
from models.training import Batch, Batches


def shuffled_batches(split: Split, recipe: TrainingRecipe, seed: int) -> Batches:
    """Batches of `recipe.batch_size` rows: the inputs by name, and `targets`.

    Where the recipe has `sequence_lengths`, [rows, window] is cut into [rows * window / length, length].
    """
    if split.targets is None:
        raise DataError("the training data has no labels; give data with labels")
    arrays = split.inputs | {"targets": split.targets}
    size = min(recipe.batch_size, len(split))

    @lru_cache(maxsize=1)
    def order(epoch: int) -> Array:
        return np.random.default_rng((seed, epoch)).permutation(len(split))

    def batch(step: int, progress: float) -> Batch:
        epoch, position = divmod(step, len(split) // size)
        rows = order(epoch)[position * size : (position + 1) * size]
        length = _length(recipe, progress)
        return {name: torch.from_numpy(_cut(array[rows], length)) for name, array in arrays.items()}

    return batch


def _length(recipe: TrainingRecipe, progress: float) -> int | None:
    return next((length for start, length in reversed(recipe.sequence_lengths) if progress >= start), None)


def _cut(rows: Array, length: int | None) -> Array:
    return rows if length is None else rows.reshape(-1, length)
