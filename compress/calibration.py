"""Which training examples a step calibrates on: one draw for every method, by seed."""

import numpy as np

from compress.errors import StepError
from models.datasets import Dataset
from runtime.processing import Array


def drawn_rows(method: str, dataset: Dataset, samples: int, batch_size: int, seed: int) -> list[Array]:
    """Row numbers of `samples` training examples, int64 [batch_size or fewer] each, without replacement.

    Raises StepError, on behalf of `method`, where the data set has fewer.
    """
    total = len(dataset.train)
    if samples > total:
        raise StepError(
            f"{method}: {samples} calibration samples asked, but {dataset.name} has {total}; ask fewer"
        )
    rows = np.random.default_rng(seed).permutation(total)[:samples]
    return np.split(rows, range(batch_size, samples, batch_size))
