"""Which training examples a step calibrates on: one draw for every method, by seed, of data that fits."""

import numpy as np

from compress.errors import StepError
from models.datasets import Dataset
from runtime.manifest import Signature, TensorSpec
from runtime.processing import Array


def check_fits(method: str, dataset: Dataset, signature: Signature) -> None:
    """Refuse calibration data that a graph of this signature does not take. Raises StepError.

    Integers of other widths are the quantizers' to widen. Tensors that only a graph has, such as a decoder's
    caches, are not the data's to give.
    """
    for spec in signature.inputs:
        if (array := dataset.train.inputs.get(spec.name)) is None:
            continue
        if "f" in (array.dtype.kind, np.dtype(spec.dtype).kind) and array.dtype != spec.dtype:
            raise StepError(
                f"{method}: calibration data '{spec.name}' of {dataset.name} is {array.dtype}, and the graph "
                f"takes {spec.dtype}; give data of that type"
            )
        if not _fits(spec, array.shape):
            axes = ", ".join(map(str, spec.shape))
            raise StepError(
                f"{method}: calibration data '{spec.name}' of {dataset.name} has shape {list(array.shape)}, "
                f"and the graph takes [{axes}]; give data of that shape"
            )


def _fits(spec: TensorSpec, shape: tuple[int, ...]) -> bool:
    if len(shape) != len(spec.shape):
        return False
    # The first axis counts rows, whatever the graph was exported with.
    pairs = zip(spec.shape[1:], shape[1:], strict=True)
    return all(isinstance(axis, str) or axis == size for axis, size in pairs)


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
