import numpy as np
import pytest

from compress.quantize.smoothquant import migration_scales


def rounded(values: np.ndarray, axis: int | None) -> np.ndarray:
    """Symmetric 8-bit rounding with one range for everything, or one a row."""
    scale = np.abs(values).max(axis, keepdims=True) / 127
    return np.round(values / scale) * scale


def test_half_of_it_makes_both_sides_equally_wide() -> None:
    """The paper's remark on alpha 0.5: afterwards max|X_j| is max|W_j|, over all layers that read X."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((50, 8)) * np.array([1, 1, 40, 1, 0.1, 1, 1, 1])
    weights = [rng.standard_normal((4, 8)).astype(np.float32) for _ in range(2)]
    scales = migration_scales(np.abs(inputs).max(0), weights, 0.5)
    widest = np.max([np.abs(weight * scales).max(0) for weight in weights], axis=0)
    np.testing.assert_allclose(np.abs(inputs / scales).max(0), widest, rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.4, 0.5, 0.7])
def test_int8_products_of_inputs_with_outliers_get_closer(alpha: float) -> None:
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((200, 32)) * np.where(np.arange(32) == 5, 60.0, 1.0)
    weight = rng.standard_normal((16, 32)).astype(np.float32)
    scales = migration_scales(np.abs(inputs).max(0), [weight], alpha)
    wanted = inputs @ weight.T
    np.testing.assert_allclose((inputs / scales) @ (weight * scales).T, wanted, rtol=1e-5, atol=1e-5)
    plain = np.linalg.norm(rounded(inputs, None) @ rounded(weight, 1).T - wanted)
    smooth = np.linalg.norm(rounded(inputs / scales, None) @ rounded(weight * scales, 1).T - wanted)
    assert smooth < 0.5 * plain


def test_what_is_never_used_is_left_alone() -> None:
    weight = np.array([[1.0, 0.0, 2.0]], np.float32)
    np.testing.assert_array_equal(migration_scales(np.array([0.0, 3.0, 2.0]), [weight], 0.5), [1, 1, 1])
