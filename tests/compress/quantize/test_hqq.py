import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from compress.quantize.blockwise import quantize_blocks
from compress.quantize.hqq import BETA, NORM, lp_error, quantize_hqq, shrink

WEIGHTS = arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(1, 70)), elements=st.floats(-10, 10, width=32)
)


def objective(weight: np.ndarray, approximation: np.ndarray) -> float:
    return float((np.abs(weight.astype(np.float64) - approximation) ** NORM).sum())


@given(WEIGHTS, st.sampled_from([4, 8]))
def test_it_is_never_worse_than_rounding_to_nearest(weight: np.ndarray, bits: int) -> None:
    ours = objective(weight, quantize_hqq(weight, bits, 32).dequantize())
    rounded = objective(weight, quantize_blocks(weight, bits, 32).dequantize())
    # Where both are zero but for float32's own rounding, |x|^0.7 makes much of it.
    noise = weight.size * (np.abs(weight).max() * 3e-7) ** NORM
    assert ours <= rounded * 1.001 + noise


@pytest.mark.parametrize(("freedom", "share"), [(3, 0.985), (1000, 0.985)])
def test_it_is_better_where_there_are_outliers_and_where_there_are_none(freedom: int, share: float) -> None:
    weight = np.random.default_rng(0).standard_t(freedom, (128, 256)).astype(np.float32)
    ours = objective(weight, quantize_hqq(weight, 4, 32).dequantize())
    assert ours < share * objective(weight, quantize_blocks(weight, 4, 32).dequantize())


def test_the_scale_of_the_weights_does_not_matter() -> None:
    weight = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)
    one, other = quantize_hqq(weight, 4, 32), quantize_hqq(weight / 1024, 4, 32)
    np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_allclose(one.scales, other.scales * 1024, rtol=1e-6)


def test_shrinkage_is_near_the_minimum_over_a_grid() -> None:
    """The closed form is the first fixed-point step of the true minimiser, found here by trying."""
    values = np.linspace(-1, 1, 41, dtype=np.float32)
    candidates = np.linspace(-1, 1, 4001)[:, None]
    cost = np.abs(candidates) ** NORM / NORM + BETA / 2 * (candidates - values) ** 2
    best = candidates[cost.argmin(0), 0]
    got = shrink(values, BETA)
    assert np.abs(got - best).max() < 0.06
    away = np.abs(values) > 0.2
    np.testing.assert_allclose(got[away], best[away], atol=2e-3)
    assert not got[values == 0].any()


def test_zeros_and_constants_are_kept() -> None:
    weight = np.zeros((2, 64), np.float32)
    weight[1] = 0.5
    np.testing.assert_allclose(quantize_hqq(weight, 4, 32).dequantize(), weight, atol=1e-6)


def test_the_error_is_a_sum_of_powers() -> None:
    assert lp_error(np.array([[1.0, -1.0, 0.0]], np.float32)) == pytest.approx([2.0])
