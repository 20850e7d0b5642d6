"""Batches for the training loop, drawn from a split as a pure function of the step.

Being pure is what makes a run resumable: nothing has to be replayed. Rows are shuffled anew each epoch, and
the few rows that do not fill a last batch wait for another epoch. How examples are changed at random is not
here but in `models.augmentation`.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch

from models.augmentation import AUGMENTATIONS
from models.datasets import Split
from models.datasets.dataset import Array
from models.errors import DataError
from models.registry import TrainingRecipe
from models.training import Batch, Batches


def shuffled_batches(split: Split, recipe: TrainingRecipe, seed: int) -> Batches:
    """Batches of `recipe.batch_size` rows: the inputs by name, and `targets`.

    Where the recipe has `sequence_lengths`, [rows, window] is cut into [rows * window / length, length]; then
    come the recipe's augmentations.
    """
    if split.targets is None:
        raise DataError("the training data has no labels; give data with labels")
    arrays = split.inputs | {"targets": split.targets}
    size = min(recipe.batch_size, len(split))
    augment = _augmentation(recipe, split, seed)

    @lru_cache(maxsize=1)
    def order(epoch: int) -> Array:
        return np.random.default_rng((seed, epoch)).permutation(len(split))

    def batch(step: int, progress: float) -> Batch:
        epoch, position = divmod(step, len(split) // size)
        rows = order(epoch)[position * size : (position + 1) * size]
        length = _length(recipe, progress)
        cut = {name: torch.from_numpy(_cut(array[rows], length)) for name, array in arrays.items()}
        return augment(cut, step)

    return batch


def _augmentation(recipe: TrainingRecipe, split: Split, seed: int) -> Callable[[Batch, int], Batch]:
    """The recipe's augmentations, one after the other, drawn by seed and step alone."""
    chosen = [AUGMENTATIONS[name] for name in recipe.augment]
    classes = int(split.targets.max()) + 1 if chosen and split.targets is not None else 0

    def augment(batch: Batch, step: int) -> Batch:
        generator = torch.Generator().manual_seed(hash((seed, step)))
        for change in chosen:
            batch = change(batch, classes, generator)
        return batch

    return augment


def _length(recipe: TrainingRecipe, progress: float) -> int | None:
    return next((length for start, length in reversed(recipe.sequence_lengths) if progress >= start), None)


def _cut(rows: Array, length: int | None) -> Array:
    return rows if length is None else rows.reshape(-1, length)
