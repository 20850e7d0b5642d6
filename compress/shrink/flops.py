"""What a module's forward pass costs in multiply-accumulates, and the ratio that removes a share of them.

Matrix products, convolutions and attention count; element-wise work does not, as in the papers that report
FLOPs. Counted by running, so that whatever the module does is seen. It chooses no units.
"""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from compress.shrink.surgery import resize
from compress.shrink.units import Removal, cut_out
from models.objectives import forward

# Halvings of the range of ratios: finer than a unit in a layer of a thousand.
HALVINGS = 11
# Of every layer, a unit stays, whatever is asked.
MOST = 1.0

Removals = Sequence[Removal]


def multiply_accumulates(module: nn.Module, batch: Mapping[str, Tensor]) -> int:
    """Multiply-accumulates of one forward pass over the whole `batch`."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward(module, dict(batch))
    # torch counts a multiplication and an addition as two.
    return int(counter.get_total_flops()) // 2


def after(module: nn.Module, removals: Removals, batch: Mapping[str, Tensor]) -> int:
    """Multiply-accumulates of `module` without `removals`; it stays as it is."""
    smaller = copy.deepcopy(module)
    state = cut_out(module.state_dict(), removals)
    resize(smaller, {name: tuple(tensor.shape) for name, tensor in state.items()})
    return multiply_accumulates(smaller, batch)


def smallest_ratio(most: float, cost: Callable[[float], int]) -> float | None:
    """The smallest ratio in (0, 1] whose `cost` is at most `most`; None where even 1 costs more.

    By bisection: `cost` must not rise with the ratio.
    """
    if cost(MOST) > most:
        return None
    low, high = 0.0, MOST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if cost(middle) <= most else (middle, high)
    return high
