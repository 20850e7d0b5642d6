"""Removable units and where they lie in a module's tensors. Index arithmetic only: no model, no data.

A unit (a channel, a neuron, a key-value head) is a slice of several tensors: of those that write it, of those
that carry it along (batch norm, depthwise convolution) and of those that read it. Zeroing the slices that
read a unit and cutting all its slices out give the same network, whatever lies between writer and reader.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from compress.shrink.config import Kind

Role = Literal["writes", "carries", "reads"]


@dataclass(frozen=True, slots=True)
class Cut:
    """Unit u is [offset + u * span, offset + (u + 1) * span) along `axis` of the state's `tensor`."""

    tensor: str
    axis: int
    role: Role
    offset: int = 0
    span: int = 1

    def indices(self, units: Tensor) -> Tensor:
        """The indices along `axis` of `units`, int64 [units]; int64 [units * span]."""
        return (self.offset + units[:, None] * self.span + torch.arange(self.span)).flatten()


@dataclass(frozen=True, slots=True)
class Units:
    """`count` units that go or stay one by one; `name` is where they are, such as `model.layers.0.mlp`."""

    name: str
    kind: Kind
    count: int
    cuts: tuple[Cut, ...] = ()

    def reading(self) -> tuple[Cut, ...]:
        """The cuts of the tensors that read the units."""
        return tuple(cut for cut in self.cuts if cut.role == "reads")


# What goes: units, and the numbers, int64 [removed], of those that are removed.
Removal = tuple[Units, Tensor]


def cut_out(state: Mapping[str, Tensor], removals: Iterable[Removal]) -> dict[str, Tensor]:
    """`state` without the removed units: smaller copies of the tensors concerned, the others as they are."""
    goes: dict[tuple[str, int], list[Tensor]] = {}
    for units, removed in removals:
        for cut in units.cuts:
            goes.setdefault((cut.tensor, cut.axis), []).append(cut.indices(removed))
    result = dict(state)
    for (name, axis), indices in goes.items():
        stays = torch.ones(state[name].shape[axis], dtype=torch.bool)
        stays[torch.cat(indices)] = False
        result[name] = result[name].index_select(axis, stays.nonzero()[:, 0])
    return result


def silence(state: Mapping[str, Tensor], removals: Iterable[Removal]) -> dict[str, Tensor]:
    """`state` with zeros where the removed units are read: what `cut_out` amounts to, at full size."""
    result = dict(state)
    for units, removed in removals:
        for cut in units.reading():
            result[cut.tensor] = result[cut.tensor].index_fill(cut.axis, cut.indices(removed), 0.0)
    return result


def per_unit(values: Tensor, cut: Cut, count: int) -> Tensor:
    """`values` [length of the cut's axis] summed over each unit's slice: [count]."""
    return values[cut.offset : cut.offset + count * cut.span].view(count, cut.span).sum(1)


def removed(count: int, kept: Tensor) -> Tensor:
    """The numbers below `count` that are not in `kept`, ascending."""
    stays = torch.zeros(count, dtype=torch.bool)
    stays[kept] = True
    return (~stays).nonzero()[:, 0]
