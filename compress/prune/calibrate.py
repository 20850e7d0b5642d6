"""What flows into each layer: gram matrices of its inputs over real data, collected by forward hooks.

Layers come in groups, in the order in which they run; layers that read the very same tensor (query, key and
value) are one group. Statistics are collected group after group, so that each sees the earlier ones pruned.
The trade-off: one partial forward pass over the calibration data for every group, and no activation is kept.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.calibration import drawn_rows
from compress.errors import StepError
from models.sources.source import SourceModel

BATCH = 16
MASK = "attention_mask"

Batch = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Group:
    """Layers that one pass serves, by name, and how often a pass calls them together."""

    layers: Mapping[str, nn.Module]
    calls: int


class _Reached(Exception):
    """Ends a forward pass once it has served its group."""


def calibration_batches(source: SourceModel, samples: int, seed: int) -> list[Batch]:
    """`samples` inputs of the training split, drawn by seed, in batches. Raises StepError for too few."""
    if source.dataset is None:
        raise StepError(
            f"{source.reference}: this criterion needs calibration data; give 'data' in the recipe"
        )
    split = source.dataset.train
    return [
        {name: torch.from_numpy(split.inputs[name][part]) for name in source.input_names}
        for part in drawn_rows("prune", source.dataset, samples, BATCH, seed)
    ]


def execution_order(module: nn.Module, layers: Mapping[str, nn.Module], batch: Batch) -> list[Group]:
    """`layers` in the order of their first call. Raises StepError for one that is never called."""
    calls: list[tuple[str, Tensor]] = []
    with _watched(layers, lambda name, inputs: calls.append((name, inputs))):
        _forward(module, batch)
    names = [name for name, _ in calls]
    first = dict(reversed(calls))
    silent = [name for name in layers if name not in first]
    if silent:
        raise StepError(f"prune: {silent[0]} is not called with the calibration data; list it in 'exclude'")
    groups: list[list[str]] = []
    for name in dict.fromkeys(names):
        # The tensors of `calls` are alive, so being the same object means being the same input.
        same = groups and first[groups[-1][0]] is first[name]
        groups[-1].append(name) if same else groups.append([name])
    return [Group({name: layers[name] for name in group}, sum(map(names.count, group))) for group in groups]


def input_grams(module: nn.Module, group: Group, batches: list[Batch]) -> dict[str, Tensor]:
    """X^T X, float64 [in, in], of each layer of `group` over the rows X that enter it, less padding."""
    grams: dict[str, Tensor] = {}
    for batch in batches:
        left = group.calls

        def add(name: str, inputs: Tensor, batch: Batch = batch) -> None:
            nonlocal left
            rows = _rows(inputs, batch.get(MASK)).double()
            grams[name] = grams.get(name, 0) + rows.T @ rows
            left -= 1
            if left == 0:
                raise _Reached

        with _watched(group.layers, add):
            _forward(module, batch)
    return grams


def _rows(inputs: Tensor, mask: Tensor | None) -> Tensor:
    """[..., in] as [rows, in], without the positions that `mask` [batch, sequence] rules out."""
    if mask is not None and inputs.ndim == 3 and inputs.shape[:2] == mask.shape:
        return inputs[mask.bool()]
    return inputs.flatten(0, -2)


def _forward(module: nn.Module, batch: Batch) -> None:
    try:
        with torch.no_grad():
            module(*batch.values())
    except _Reached:
        pass


@contextmanager
def _watched(layers: Mapping[str, nn.Module], see: Any) -> Iterator[None]:
    """`see(name, inputs)` before each call of a layer."""

    def hook(name: str) -> Any:
        return lambda layer, args, kwargs: see(name, args[0] if args else kwargs["input"])

    handles = [
        layer.register_forward_pre_hook(hook(name), with_kwargs=True) for name, layer in layers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
