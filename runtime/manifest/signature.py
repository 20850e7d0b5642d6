"""The tensors that a model takes and gives."""

from typing import Literal

from runtime.manifest.values import Frozen

DType = Literal["float32", "float16", "float64", "int64", "int32", "int8", "uint8", "bool"]


class TensorSpec(Frozen):
    """One named tensor. A string in `shape` is a symbolic axis, such as `batch` or `sequence`."""

    name: str
    dtype: DType
    shape: tuple[int | str, ...]


class Signature(Frozen):
    """The tensors a model takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
