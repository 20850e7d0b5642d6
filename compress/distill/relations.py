"""Self-attention relations: who attends to whom, and who is like whom, whatever the widths.

Wang et al., MiniLM, 2020, arXiv:2002.10957 (attention distributions and value relations) and MiniLMv2, 2020,
arXiv:2012.15828 (queries, keys and values each with themselves, over relation heads of one number on both
sides). Pure functions of projections; the wiring is in `objective`.
"""

import math
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor


def relations(projected: Tensor, heads: int) -> Tensor:
    """log softmax(X X^T / sqrt(d)) of each relation head: [batch, s, width] to [batch, heads, s, s]."""
    batch, length, width = projected.shape
    parts = projected.float().view(batch, length, heads, width // heads).transpose(1, 2)
    scores: Tensor = parts @ parts.transpose(-1, -2) / math.sqrt(width // heads)
    return scores.log_softmax(-1)


def relation_loss(
    student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], heads: int, mask: Tensor | None = None
) -> Tensor:
    """Mean over queries, keys and values of KL(teacher || student) per position and relation head.

    Both map the same names to projections [batch, sequence, width]; widths may differ between the two.
    `mask` [batch, sequence] says which positions count: the others neither ask nor are asked.
    """
    parts = [_divergence(student[name], teacher[name], heads, mask) for name in teacher]
    total: Tensor = sum(parts[1:], parts[0]) / len(parts)
    return total


def _divergence(student: Tensor, teacher: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    ours, theirs = _masked(student, heads, mask), _masked(teacher, heads, mask)
    # Both are -inf where a key is padding; zero probability of both counts nothing.
    per_row = F.kl_div(ours, theirs, reduction="none", log_target=True).nan_to_num(0.0).sum(-1)
    if mask is None:
        return per_row.mean()
    counted = mask.bool()[:, None].expand_as(per_row)
    return per_row[counted].mean()


def _masked(projected: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    found = relations(projected, heads)
    if mask is None:
        return found
    # A large finite number: infinities would give gradients that are not numbers.
    return found.masked_fill(~mask.bool()[:, None, None], -1e4).log_softmax(-1)
