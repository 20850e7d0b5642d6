"""The factors against Eckart and Young, and against the plain definition of what each variant minimises."""

import pytest
import torch

from compress.factorize.lowrank import (
    activation_scaling,
    decompose,
    rank_for_energy,
    rank_for_ratio,
    saves,
    whitening,
)


@pytest.fixture
def weight() -> torch.Tensor:
    return torch.randn(24, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def inputs() -> torch.Tensor:
    """Correlated, of very different sizes: float64 [500, 16]."""
    generator = torch.Generator().manual_seed(1)
    mix = torch.randn(16, 16, generator=generator, dtype=torch.float64) * torch.logspace(0, -2, 16).double()
    return torch.randn(500, 16, generator=generator, dtype=torch.float64) @ mix.T


def approximation(weight: torch.Tensor, rank: int, scaling: torch.Tensor | None = None) -> torch.Tensor:
    up, down = decompose(weight, scaling).factors(rank)
    return up @ down


def output_error(weight: torch.Tensor, other: torch.Tensor, inputs: torch.Tensor) -> float:
    return float(torch.linalg.norm(inputs @ (weight - other).double().T))


@pytest.mark.parametrize("rank", [1, 5, 15])
def test_the_error_is_the_tail_of_the_singular_values(weight: torch.Tensor, rank: int) -> None:
    tail = torch.linalg.svdvals(weight)[rank:]
    error = torch.linalg.norm(weight - approximation(weight, rank))
    torch.testing.assert_close(error, tail.square().sum().sqrt(), rtol=1e-5, atol=1e-5)
    relative = float(error / torch.linalg.norm(weight))
    assert decompose(weight).error(rank) == pytest.approx(relative, rel=1e-4)


def test_no_other_pair_of_that_rank_is_better(weight: torch.Tensor) -> None:
    """Alternating least squares from random starts ends at the same error, and never below."""
    wanted = float(torch.linalg.norm(weight - approximation(weight, 4)))
    for seed in range(3):
        up = torch.randn(24, 4, generator=torch.Generator().manual_seed(seed))
        for _ in range(60):
            down = torch.linalg.lstsq(up, weight).solution
            up = torch.linalg.lstsq(down.T, weight.T).solution.T
        assert float(torch.linalg.norm(weight - up @ down)) >= wanted - 1e-4


def test_the_full_rank_is_the_weight(weight: torch.Tensor, inputs: torch.Tensor) -> None:
    gram = inputs.T @ inputs
    for scaling in (None, activation_scaling(gram), whitening(gram)):
        torch.testing.assert_close(approximation(weight, 16, scaling), weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rank", [2, 4, 8])
def test_whitening_is_best_for_the_output(weight: torch.Tensor, inputs: torch.Tensor, rank: int) -> None:
    """Reduced-rank regression: the best output of that rank is the truncation of the output itself."""
    spectrum = decompose(weight, whitening(inputs.T @ inputs))
    up, down = spectrum.factors(rank)
    error = output_error(weight, up @ down, inputs)
    outputs = inputs @ weight.double().T
    best = float(torch.linalg.svdvals(outputs)[rank:].square().sum().sqrt())
    assert error == pytest.approx(best, rel=1e-3)
    assert error / float(torch.linalg.norm(outputs)) == pytest.approx(spectrum.error(rank), rel=1e-3)


def test_each_variant_beats_the_simpler_one_on_correlated_inputs(
    weight: torch.Tensor, inputs: torch.Tensor
) -> None:
    gram = inputs.T @ inputs
    plain, scaled, whitened = (
        output_error(weight, approximation(weight, 4, scaling), inputs)
        for scaling in (None, activation_scaling(gram), whitening(gram))
    )
    assert whitened < 0.99 * scaled < 0.99 * plain


def test_an_input_that_never_varies_is_no_failure(weight: torch.Tensor, inputs: torch.Tensor) -> None:
    inputs[:, 3] = 0
    gram = inputs.T @ inputs
    for scaling in (activation_scaling(gram), whitening(gram)):
        made = approximation(weight, 8, scaling)
        assert made.isfinite().all()


def test_energy_keeps_the_fewest_that_suffice() -> None:
    spectrum = decompose(torch.diag(torch.tensor([4.0, 2.0, 2.0, 1.0])))
    assert [rank_for_energy(spectrum, energy) for energy in (0.1, 0.63, 0.65, 0.95, 0.999)] == [1, 1, 2, 3, 4]


def test_a_ratio_is_a_budget() -> None:
    rank = rank_for_ratio(84, 120, 0.5)
    assert rank * (84 + 120) <= 0.5 * 84 * 120 < (rank + 1) * (84 + 120)
    assert rank_for_ratio(10, 10, 0.01) == 1


def test_only_fewer_weights_count_as_saving() -> None:
    assert saves(10, 10, 4)
    assert not saves(10, 10, 5)
