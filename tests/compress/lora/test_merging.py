"""Merging against the definitions: what a merged weight computes is what the adapter computed."""

import pytest
import torch
from torch import Tensor

from compress.lora.merging import merged_dora, merged_weight


@pytest.fixture
def factors() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(5, 7), torch.randn(2, 7), torch.randn(5, 2), torch.randn(9, 7)


def test_a_merged_weight_computes_both_paths(factors: tuple[Tensor, ...]) -> None:
    weight, a, b, x = factors
    by_paths = x @ weight.T + 0.5 * (x @ a.T) @ b.T
    torch.testing.assert_close(x @ merged_weight(weight, a, b, 0.5).T, by_paths, atol=1e-5, rtol=1e-5)


def test_a_merged_dora_has_the_learnt_magnitudes_and_the_adapted_directions(
    factors: tuple[Tensor, ...],
) -> None:
    weight, a, b, _ = factors
    magnitude = torch.rand(5) + 0.5
    result = merged_dora(weight, a, b, 2.0, magnitude)
    torch.testing.assert_close(result.norm(dim=1), magnitude)
    for row, directed in zip(result, weight + 2.0 * b @ a, strict=True):
        assert torch.cosine_similarity(row, directed, dim=0) == pytest.approx(1.0)


def test_half_precision_is_merged_in_single() -> None:
    weight = torch.full((1, 1), 1.0, dtype=torch.float16)
    tiny = torch.full((1, 1), 2.0**-12, dtype=torch.float16)
    assert merged_weight(weight, tiny, torch.ones(1, 1), 1.0).item() == 1 + 2.0**-12
