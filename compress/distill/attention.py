"""Attention maps: how much each position asks of each other one, before the softmax.

Jiao et al., TinyBERT, 2019, arXiv:1909.10351, equation 7: the mean squared difference of the unnormalised
scores, head by head. Pure functions of query and key projections, so it holds where a score is their product
alone: rotary positions, which come in between, are not seen here. The wiring is in `objective`.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# The projections of queries and of keys of one layer, each [batch, sequence, width].
Asked = tuple[Tensor, Tensor]


def attention_scores(query: Tensor, key: Tensor, heads: int) -> Tensor:
    """Q K^T / sqrt(d) of each head: [batch, sequence, width] twice to [batch, heads, sequence, sequence]."""
    batch, length, width = query.shape
    parts = (each.float().view(batch, length, heads, width // heads).transpose(1, 2) for each in (query, key))
    ours, theirs = parts
    scores: Tensor = ours @ theirs.transpose(-1, -2) / math.sqrt(width // heads)
    return scores


def attention_loss(
    student: Sequence[Asked], teacher: Sequence[Asked], heads: int, mask: Tensor | None = None
) -> Tensor:
    """Mean over layers of the mean squared difference of the scores; one pair of projections a layer.

    `mask` [batch, sequence] says which positions count: the others neither ask nor are asked.
    """
    parts = [
        _difference(attention_scores(*ours, heads), attention_scores(*theirs, heads), mask)
        for ours, theirs in zip(student, teacher, strict=True)
    ]
    return torch.stack(parts).mean()


def _difference(ours: Tensor, theirs: Tensor, mask: Tensor | None) -> Tensor:
    apart = (ours - theirs).square()
    if mask is None:
        return apart.mean()
    counted = mask.bool()[:, None, :, None] & mask.bool()[:, None, None, :]
    return apart[counted.expand_as(apart)].mean()
