"""Which weights stay: pure functions of tensors, no model and no data. A mask is bool, True for what stays.

Sources: Wanda, Sun et al., A simple and effective pruning approach for large language models, 2023,
arXiv:2306.11695; the cubic schedule, Zhu and Gupta, To prune, or not to prune, 2017, arXiv:1710.01878.
Where scores are equal the earlier weight goes, so that a mask depends on nothing but its arguments.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

# ratio * count falls below a whole number by rounding only: 0.29 * 100 is 28.999999999999996.
ROUNDING = 1e-9


def pruned_count(ratio: float, count: int) -> int:
    """How many of `count` weights go at `ratio`: rounded down, so never all of them while ratio < 1."""
    return int(ratio * count + ROUNDING)


def magnitude_masks(
    weights: Mapping[str, Tensor], ratio: float, scope: Literal["global", "layer"]
) -> dict[str, Tensor]:
    """Masks of the shapes of `weights` that drop the smallest |w|, `ratio` of each or of all together."""
    return masks_by_score({name: weight.detach().abs() for name, weight in weights.items()}, ratio, scope)


def masks_by_score(
    scores: Mapping[str, Tensor], ratio: float, scope: Literal["global", "layer"]
) -> dict[str, Tensor]:
    """Masks of the shapes of `scores` that drop the lowest, `ratio` of each or of all together."""
    if scope == "layer":
        return {name: drop_lowest(each, pruned_count(ratio, each.numel())) for name, each in scores.items()}
    together = torch.cat([each.flatten() for each in scores.values()])
    flat = drop_lowest(together, pruned_count(ratio, len(together)))
    parts = torch.split(flat, [each.numel() for each in scores.values()])
    return {name: part.view_as(each) for (name, each), part in zip(scores.items(), parts, strict=True)}


def moved(scores: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """S - W dL/dW': higher where the weight is being pushed away from zero (movement pruning, equation 5)."""
    return scores - weight * gradient


def round_ratio(final: float, number: int, rounds: int) -> float:
    """The ratio after round `number` of `rounds`: each round drops the same share of what is left."""
    return float(1 - (1 - final) ** (number / rounds))


def drop_lowest(scores: Tensor, count: int) -> Tensor:
    """Drop the `count` lowest of `scores`, of any shape."""
    return _drop_of_rows(scores.flatten(), count).view_as(scores)


def drop_lowest_of_rows(scores: Tensor, ratio: float) -> Tensor:
    """Drop the lowest `ratio` of each row of `scores` [out, in] (Wanda, section 3)."""
    return _drop_of_rows(scores, pruned_count(ratio, scores.shape[-1]))


def keep_pattern(scores: Tensor, n: int, m: int) -> Tensor:
    """Keep the `n` largest of every `m` neighbours along the last axis, whose length `m` must divide."""
    groups = scores.reshape(*scores.shape[:-1], -1, m)
    return _drop_of_rows(groups, m - n).flatten(-2)


def keep_pattern_of_weight(weight: Tensor, n: int, m: int) -> Tensor:
    """`keep_pattern` by magnitude along the input axis of a weight [out, in, ...kernel]."""
    return keep_pattern(weight.detach().abs().movedim(1, -1), n, m).movedim(-1, 1)


def wanda_scores(weight: Tensor, gram: Tensor) -> Tensor:
    """|W_ij| ||X_j||_2 (Wanda, equation 1) of a weight [out, in]; `gram` is X^T X [in, in] of inputs X."""
    return weight.abs() * gram.diagonal().sqrt()


def relative_output_error(weight: Tensor, approximation: Tensor, gram: Tensor) -> float:
    """||X (W - W')^T||_F / ||X W^T||_F from `gram` X^T X [in, in]; weights [out, in]. 0 where X W^T is 0."""
    weight, approximation = weight.to(gram.dtype), approximation.to(gram.dtype)
    error, size = (((each @ gram) * each).sum() for each in (weight - approximation, weight))
    return float((error / size).clamp(min=0).sqrt()) if size > 0 else 0.0


def cubic_ratio(final: float, event: int, events: int) -> float:
    """The ratio after `event` of `events`: s_f + (s_i - s_f)(1 - t)^3 with s_i = 0 (Zhu and Gupta, eq. 1).

    Fast at first, while much is redundant, and slow at the end.
    """
    return final * (1 - (1 - event / events) ** 3)


def _drop_of_rows(scores: Tensor, count: int) -> Tensor:
    """Drop the `count` lowest along the last axis."""
    lowest = scores.argsort(dim=-1, stable=True)[..., :count]
    return torch.ones_like(scores, dtype=torch.bool).scatter(-1, lowest, False)
