"""SparseGPT on one weight: pure tensor arithmetic, no model and no data.

Frantar and Alistarh, SparseGPT: massive language models can be accurately pruned in one shot, 2023,
arXiv:2301.00774, algorithm 1. Columns (inputs) are visited once, left to right; what is pruned in one is made
up for by the weights to its right. The trade-off against the exact optimum: weights to its left are not
touched again, so that all rows share one inverse Hessian. Everything is float64: a gram matrix of correlated
inputs is nearly singular.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from compress.prune.masks import drop_lowest, keep_pattern, pruned_count

# Scores [out, columns] of the columns from the given one on -> mask of the same shape.
Choose = Callable[[Tensor, int], Tensor]


def prune_by_ratio(weight: Tensor, gram: Tensor, ratio: float, *, damping: float, block_size: int) -> Tensor:
    """`weight` [out, in] with `ratio` of it zero and the rest updated, in the dtype of `weight`.

    `gram` is X^T X [in, in] over the layer's inputs X [rows, in]. The rows of a block of columns compete with
    one another, so a row may lose more than its neighbour.
    """
    rows = len(weight)

    def choose(scores: Tensor, start: int) -> Tensor:
        before, after = (pruned_count(ratio, rows * end) for end in (start, start + scores.shape[1]))
        # The rounding of one block is made up for in the next, so the whole has the ratio exactly.
        return drop_lowest(scores, after - before)

    return _prune(weight, gram, choose, damping, block_size, block_size)


def prune_by_pattern(
    weight: Tensor, gram: Tensor, n: int, m: int, *, damping: float, block_size: int
) -> Tensor:
    """`weight` [out, in] with at most `n` of every `m` along the input axis kept; see `prune_by_ratio`."""
    return _prune(weight, gram, lambda scores, start: keep_pattern(scores, n, m), damping, block_size, m)


def inverse_factor(gram: Tensor, damping: float) -> Tensor:
    """Upper triangular U with U^T U the inverse of `gram` damped by `damping` times its mean diagonal.

    Row i of U is, up to its diagonal, the first row of the inverse Hessian of inputs i and later (section 3.3
    of the paper): every elimination step at once. Inputs that are all zero only have the damping.
    """
    diagonal = gram.diagonal().mean()
    added = damping * diagonal if diagonal > 0 else torch.ones_like(diagonal)
    damped = gram + added * torch.eye(len(gram), dtype=gram.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


def _prune(
    weight: Tensor, gram: Tensor, choose: Choose, damping: float, block_size: int, choose_every: int
) -> Tensor:
    left, factor = weight.to(torch.float64, copy=True), inverse_factor(gram.to(torch.float64), damping)
    # What no input reaches costs nothing, whatever the damping says.
    importance = factor.diagonal().pow(-2) * (gram.diagonal() != 0)
    for start in range(0, left.shape[1], block_size):
        end = min(start + block_size, left.shape[1])
        here = slice(start, end)
        errors = _prune_block(
            left[:, here], factor[here, here], importance[here], choose, start, choose_every
        )
        left[:, end:] -= errors @ factor[here, end:]
    return left.to(weight.dtype)


def _prune_block(
    block: Tensor, factor: Tensor, importance: Tensor, choose: Choose, start: int, choose_every: int
) -> Tensor:
    """Prune `block` [out, columns], a view, in place; the errors [out, columns] that later ones pay for."""
    errors, kept = torch.zeros_like(block), torch.ones_like(block, dtype=torch.bool)
    for column in range(block.shape[1]):
        if column % choose_every == 0:
            group = slice(column, column + choose_every)
            kept[:, group] = choose(block[:, group] ** 2 * importance[group], start + column)
        error = (block[:, column] / factor[column, column]).masked_fill(kept[:, column], 0)
        block[:, column:] -= error[:, None] * factor[column, column:]
        errors[:, column] = error
    block.masked_fill_(~kept, 0)
    return errors
