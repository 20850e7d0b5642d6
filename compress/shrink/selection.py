"""Which units stay, given what each is worth. Pure functions of scores; no layer is ever emptied."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# 100 * 0.29 is 28.999999999999996, and 29 is meant.
EPSILON = 1e-9


def keep_in_each(scores: Sequence[Tensor], ratio: float, round_to: int = 1) -> list[Tensor]:
    """Of each layer's `scores` [units], drop the share `ratio` that is worth least; kept numbers, ascending.

    What stays is rounded up to a multiple of `round_to`, as far as the layer has that many.
    """
    return [_best(each, len(each) - math.floor(len(each) * ratio + EPSILON), round_to) for each in scores]


def keep_globally(scores: Sequence[Tensor], ratio: float, round_to: int = 1) -> list[Tensor]:
    """Drop the share `ratio` of all units that is worth least, wherever they are.

    Every layer keeps at least one unit (`round_to` of them, where it has so many): the next worse units of
    other layers go instead. What stays in a layer is rounded up as in `keep_in_each`.
    """
    left = [len(each) for each in scores]
    least = [min(round_to, len(each)) for each in scores]
    owners = torch.cat([torch.full((len(each),), index) for index, each in enumerate(scores)])
    to_go = math.floor(len(owners) * ratio + EPSILON)
    for owner in owners[torch.cat(list(scores)).argsort(stable=True)].tolist():
        if to_go and left[owner] > least[owner]:
            left[owner] -= 1
            to_go -= 1
    return [_best(each, count, round_to) for each, count in zip(scores, left, strict=True)]


def comparable(scores: Sequence[Tensor]) -> list[Tensor]:
    """Each layer's `scores` [units] over their root mean square, so that layers of different scale can be
    ranked together (after Molchanov et al., 2017, arXiv:1611.06440, section 2.2, who divide by the norm).
    """
    return [each / each.square().mean().sqrt().clamp(min=torch.finfo(each.dtype).tiny) for each in scores]


def _best(scores: Tensor, count: int, round_to: int) -> Tensor:
    count = min(max(1, math.ceil(count / round_to)) * round_to, len(scores))
    return scores.argsort(descending=True, stable=True)[:count].sort().values
