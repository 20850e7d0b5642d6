"""Several requests' tensors as one batch, and its outputs as each one's own. Pure; no queue, no clock.

Rows are joined along the first axis. Texts of different lengths are padded on the right, as the bundle's
processing says, and whatever comes out per token is cut to each request's own length again. Tensors of any
other model are only joined when they have one shape.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from runtime.manifest import Manifest, TensorSpec, TextProcessing
from runtime.processing import Array

Tensors = Mapping[str, Array]
Shape = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model's tensors can be joined: which axis is the batch's and which one a text's length."""

    batched: bool
    sequence: str | None
    padding: Mapping[str, int]
    inputs: Sequence[str]
    outputs: Mapping[str, TensorSpec]

    @classmethod
    def of(cls, manifest: Manifest) -> "Layout":
        """The layout that a signature and its processing allow."""
        inputs, outputs = manifest.signature.inputs, manifest.signature.outputs
        first = {spec.shape[0] if spec.shape else 1 for spec in (*inputs, *outputs)}
        batched = len(first) == 1 and isinstance(next(iter(first)), str)
        names = [spec.name for spec in inputs]
        return cls(
            batched, _sequence(manifest), _padding(manifest), names, {spec.name: spec for spec in outputs}
        )

    def shape(self, inputs: Tensors) -> Shape:
        """Equal for requests that may share a batch."""
        free = 1 if self.sequence is None else 2
        return tuple([inputs[name].shape[free:] for name in self.inputs])


def size(inputs: Tensors, layout: Layout) -> tuple[int, int]:
    """Rows, and each row's length in tokens (1 where rows have no length)."""
    first = next(iter(inputs.values()))
    if not first.ndim:
        return 1, 1
    return len(first), first.shape[1] if layout.sequence is not None else 1


def join(requests: Sequence[Tensors], layout: Layout) -> dict[str, Array]:
    """One batch of all rows, in order."""
    if len(requests) == 1:
        return dict(requests[0])
    length = max(size(inputs, layout)[1] for inputs in requests)
    return {
        name: np.concatenate([_padded(inputs[name], length, layout, name) for inputs in requests])
        for name in requests[0]
    }


def part(outputs: Tensors, start: int, rows: int, length: int, layout: Layout) -> dict[str, Array]:
    """The outputs of the request with `rows` rows of `length` tokens, the first of which is at `start`."""
    cut = {name: tensor[start : start + rows] for name, tensor in outputs.items()}
    if layout.sequence is None:
        return cut
    for name, own in cut.items():
        shape = layout.outputs[name].shape
        if len(shape) > 1 and shape[1] == layout.sequence:
            cut[name] = own[:, :length]
    return cut


def _padded(tensor: Array, length: int, layout: Layout, name: str) -> Array:
    if layout.sequence is None or tensor.shape[1] == length:
        return tensor
    return np.pad(
        tensor, ((0, 0), (0, length - tensor.shape[1])), constant_values=layout.padding.get(name, 0)
    )


def _sequence(manifest: Manifest) -> str | None:
    """The axis along which texts differ, where padding it changes nothing: a mask says what counts."""
    specs = {spec.name: spec for spec in manifest.signature.inputs}
    mask = specs.get("attention_mask")
    if not isinstance(manifest.processing, TextProcessing) or mask is None or len(mask.shape) != 2:
        return None
    axis = mask.shape[1]
    same = all(len(spec.shape) == 2 and spec.shape[1] == axis for spec in specs.values())
    return axis if isinstance(axis, str) and same else None


def _padding(manifest: Manifest) -> dict[str, int]:
    processing = manifest.processing
    return {"input_ids": processing.pad_id} if isinstance(processing, TextProcessing) else {}
