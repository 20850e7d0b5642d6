from itertools import product

import numpy as np
import pytest

from compress.quantize.blockwise import Blocks, quantize_blocks
from compress.quantize.gptq import inverse_factor, output_error, quantize_gptq


def correlated(samples: int, width: int, rank: int, seed: int = 0) -> np.ndarray:
    """Inputs [samples, width] that mostly lie in `rank` directions, some of them much stronger."""
    rng = np.random.default_rng(seed)
    strengths = np.linspace(3, 0.3, rank)
    mixed = (rng.standard_normal((samples, rank)) * strengths) @ rng.standard_normal((rank, width))
    return (mixed + 0.3 * rng.standard_normal((samples, width))).astype(np.float32)


def of(inputs: np.ndarray) -> np.ndarray:
    return inputs.T.astype(np.float64) @ inputs


def weights(rows: int, width: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


def lost(weight: np.ndarray, blocks: Blocks, inputs: np.ndarray) -> float:
    return float(((inputs @ (weight - blocks.dequantize()).T) ** 2).sum())


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize(("bits", "group_size", "width"), [(4, 32, 128), (4, 16, 100), (8, 64, 128)])
def test_outputs_on_correlated_inputs_are_much_closer_than_by_rounding(
    bits: int, group_size: int, width: int, act_order: bool
) -> None:
    inputs, weight = correlated(1000, width, width // 4), weights(48, width)
    ours = quantize_gptq(weight, of(inputs), bits, group_size, act_order=act_order)
    rounded = quantize_blocks(weight, bits, group_size)
    held_out = correlated(1000, width, width // 4)[:500]
    assert lost(weight, ours, held_out) < 0.6 * lost(weight, rounded, held_out)


def plain_gptq(weight: np.ndarray, hessian: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """The paper's equations 2 and 3 one by one (Optimal Brain Quantization in a fixed order): a fresh inverse
    of what is still free for every column, no Cholesky factor, one group."""
    work, rounded = weight.astype(np.float64).copy(), np.empty(weight.shape)
    for column in range(weight.shape[1]):
        inverse = np.linalg.inv(hessian[column:, column:])
        values = np.clip(np.round(work[:, column] / scale) + zero, 0, 15)
        rounded[:, column] = (values - zero) * scale
        error = (work[:, column] - rounded[:, column]) / inverse[0, 0]
        work[:, column:] -= np.outer(error, inverse[0])
    return rounded


def test_the_cholesky_form_is_the_papers_update_one_column_at_a_time() -> None:
    inputs, weight = correlated(200, 16, 5), weights(6, 16)
    hessian = of(inputs)
    damped = hessian + 0.01 * np.diag(hessian).mean() * np.eye(16)
    start = quantize_blocks(weight, 4, 16)
    expected = plain_gptq(weight, damped, start.scales[:, 0].astype(np.float64), start.zero_points[:, 0])
    got = quantize_gptq(weight, hessian, 4, 16).dequantize()
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_tiny_layer_is_near_the_best_of_all_roundings() -> None:
    """Every choice of up or down for each of 8 weights, on the grid that GPTQ chose."""
    inputs, weight = correlated(200, 8, 3), weights(12, 8)
    hessian = of(inputs)
    ours = quantize_gptq(weight, hessian, 4, 16)
    best = sum(best_rounding(weight[row], ours, row, hessian) for row in range(len(weight)))
    nearest = output_error(weight - quantize_blocks(weight, 4, 16).dequantize(), hessian)
    reached = output_error(weight - ours.dequantize(), hessian)
    assert best <= reached * (1 + 1e-9)
    # Of what rounding to nearest loses to the best, GPTQ wins back most.
    assert (nearest - reached) > 0.6 * (nearest - best)


def best_rounding(row: np.ndarray, grid: Blocks, index: int, hessian: np.ndarray) -> float:
    scale, zero = float(grid.scales[index, 0]), int(grid.zero_points[index, 0])
    low = np.floor(row / scale) + zero
    offsets = np.array(list(product(range(-1, 3), repeat=4)))
    first, second = offsets.repeat(len(offsets), 0), np.tile(offsets, (len(offsets), 1))
    values = np.clip(low + np.concatenate([first, second], 1), 0, 15)
    change = row - (values - zero) * scale
    return float(((change @ hessian) * change).sum(1).min())


@pytest.mark.parametrize("act_order", [False, True])
def test_inputs_without_correlation_leave_rounding_to_nearest(act_order: bool) -> None:
    """With a diagonal Hessian no weight can make good another's error."""
    weight = weights(8, 70)
    diagonal = np.diag(np.random.default_rng(0).uniform(0.5, 2, 70))
    ours = quantize_gptq(weight, diagonal, 4, 32, act_order=act_order)
    np.testing.assert_array_equal(ours.dequantize(), quantize_blocks(weight, 4, 32).dequantize())


def test_inputs_that_are_always_zero_or_too_few_do_not_stop_it() -> None:
    inputs, weight = correlated(5, 64, 4), weights(8, 64)
    inputs[:, 3:9] = 0
    blocks = quantize_gptq(weight, of(inputs), 4, 32)
    assert np.isfinite(blocks.dequantize()).all()
    assert lost(weight, blocks, inputs) <= lost(weight, quantize_blocks(weight, 4, 32), inputs)
    assert np.isfinite(quantize_gptq(weight, np.zeros((64, 64)), 4, 32).dequantize()).all()


def test_the_factor_is_of_the_damped_inverse() -> None:
    hessian = of(correlated(50, 12, 4))
    upper = inverse_factor(hessian, 0.05)
    assert not np.tril(upper, -1).any()
    damped = hessian + 0.05 * np.diag(hessian).mean() * np.eye(12)
    np.testing.assert_allclose(upper.T @ upper @ damped, np.eye(12), atol=1e-8)


def test_the_error_is_that_of_the_outputs() -> None:
    inputs, change = correlated(50, 12, 4), weights(3, 12)
    assert output_error(change, of(inputs)) == pytest.approx(((inputs @ change.T) ** 2).sum(), rel=1e-5)
