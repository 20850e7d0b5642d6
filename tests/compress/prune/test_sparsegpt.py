"""SparseGPT against least squares: the exact optimum for a mask, and the best mask found by trying all."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from compress.prune import masks, sparsegpt

TINY = 1e-9


def correlated(rows: int, width: int, seed: int = 0) -> Tensor:
    """Inputs whose columns share a few causes, float64."""
    generator = torch.Generator().manual_seed(seed)
    causes = torch.randn(rows, max(2, width // 3), generator=generator).double()
    mixing = torch.randn(causes.shape[1], width, generator=generator).double()
    return causes @ mixing + 0.3 * torch.randn(rows, width, generator=generator).double()


def weights(rows: int, width: int) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(1)).double()


def least_squares(weight: Tensor, inputs: Tensor, kept: Tensor) -> Tensor:
    """The best weights with the zeros of `kept`, row by row."""
    best = torch.zeros_like(weight)
    for row, mask in enumerate(kept):
        best[row, mask] = torch.linalg.lstsq(inputs[:, mask], inputs @ weight[row]).solution
    return best


def error(weight: Tensor, pruned: Tensor, inputs: Tensor) -> float:
    return float((inputs @ (weight - pruned).T).norm() / (inputs @ weight.T).norm())


def by_ratio(weight: Tensor, inputs: Tensor, ratio: float, damping: float = TINY, block: int = 128) -> Tensor:
    return sparsegpt.prune_by_ratio(weight, inputs.T @ inputs, ratio, damping=damping, block_size=block)


def test_the_factor_holds_every_step_of_the_elimination() -> None:
    inputs = correlated(60, 8)
    gram = inputs.T @ inputs
    factor = sparsegpt.inverse_factor(gram, TINY)
    for first in range(8):
        row = torch.linalg.inv(gram[first:, first:])[0]
        torch.testing.assert_close(factor[first, first:] * factor[first, first], row, rtol=1e-4, atol=1e-9)


def test_what_goes_before_all_that_stays_is_made_up_for_exactly() -> None:
    inputs, weight = correlated(80, 8), weights(5, 8)
    weight[:, :2] *= 1e-6
    pruned = by_ratio(weight, inputs, 0.25)
    best = least_squares(weight, inputs, pruned != 0)
    assert (pruned[:, :2] == 0).all()
    torch.testing.assert_close(pruned, best, rtol=1e-4, atol=1e-9)


def test_on_a_tiny_layer_it_is_near_the_best_of_all_masks() -> None:
    ratios = []
    for seed in range(8):
        inputs = correlated(60, 8, seed)
        weight = torch.randn(1, 8, generator=torch.Generator().manual_seed(100 + seed)).double()
        best = min(
            error(weight, least_squares(weight, inputs, mask), inputs)
            for mask in (torch.tensor([[i in kept for i in range(8)]]) for kept in combinations(range(8), 4))
        )
        magnitude = error(weight, weight * masks.drop_lowest(weight.abs(), 4), inputs)
        got = error(weight, by_ratio(weight, inputs, 0.5), inputs)
        assert best <= got * (1 + 1e-6)
        ratios.append((got / best, magnitude / best))
    ours, magnitudes = (sum(column) / len(column) for column in zip(*ratios, strict=True))
    assert ours < 2
    assert magnitudes > 1.4 * ours


@pytest.mark.parametrize("amount", [0.5, 0.7, (2, 4)])
def test_it_beats_wanda_and_wanda_beats_magnitude_on_correlated_inputs(
    amount: float | tuple[int, int],
) -> None:
    norms = torch.logspace(-1, 1, 48)[torch.randperm(48, generator=torch.Generator().manual_seed(0))]
    inputs, weight = correlated(500, 48) * norms, weights(32, 48)
    gram = inputs.T @ inputs
    scores = masks.wanda_scores(weight, gram)
    if isinstance(amount, tuple):
        wanda, magnitude = (masks.keep_pattern(each, *amount) for each in (scores, weight.abs()))
        pruned = sparsegpt.prune_by_pattern(weight, gram, *amount, damping=0.01, block_size=16)
        assert torch.equal((pruned != 0).reshape(32, 12, 4).sum(-1), torch.full((32, 12), 2))
    else:
        wanda, magnitude = (masks.drop_lowest_of_rows(each, amount) for each in (scores, weight.abs()))
        pruned = by_ratio(weight, inputs, amount, damping=0.01)
        assert int((pruned == 0).sum()) == int(amount * weight.numel())
    errors = [error(weight, each, inputs) for each in (pruned, weight * wanda, weight * magnitude)]
    assert errors[0] < 0.95 * errors[1]
    assert errors[1] < 0.5 * errors[2]


def test_block_by_block_it_computes_what_one_block_does_for_a_pattern() -> None:
    inputs, weight = correlated(100, 16), weights(6, 16)
    gram = inputs.T @ inputs
    one, many = (
        sparsegpt.prune_by_pattern(weight, gram, 2, 4, damping=0.01, block_size=size) for size in (16, 4)
    )
    torch.testing.assert_close(one, many)


def test_inputs_that_are_always_zero_go_first_and_harm_nothing() -> None:
    inputs, weight = correlated(100, 8), weights(4, 8)
    inputs[:, [1, 5]] = 0
    pruned = by_ratio(weight, inputs, 0.25, damping=0.01)
    assert (pruned[:, [1, 5]] == 0).all()
    torch.testing.assert_close(pruned[:, [0, 2, 3, 4, 6, 7]], weight[:, [0, 2, 3, 4, 6, 7]])
    nothing = by_ratio(weight, torch.zeros(5, 8).double(), 0.5)
    assert torch.isfinite(nothing).all()


def test_the_dtype_stays() -> None:
    assert by_ratio(weights(4, 8).float(), correlated(50, 8), 0.5).dtype == torch.float32
