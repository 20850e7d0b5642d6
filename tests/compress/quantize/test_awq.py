import numpy as np
import pytest

from compress.quantize.awq import ALPHAS, candidate_scales, scaled_error, search_scales
from compress.quantize.blockwise import quantize_blocks
from compress.quantize.gptq import output_error


def loud(samples: int, width: int, seed: int) -> np.ndarray:
    """Correlated inputs [samples, width] of which a few channels are much stronger, as after a norm."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((width // 2, width))
    strength = np.where(np.arange(width) % 17 == 0, 12.0, 1.0)
    mixed = rng.standard_normal((samples, width // 2)) @ mixing + rng.standard_normal((samples, width))
    return (mixed * strength).astype(np.float32)


def products(inputs: np.ndarray) -> np.ndarray:
    return inputs.T.astype(np.float64) @ inputs


@pytest.fixture(params=[(4, 32), (4, 128), (8, 32)], ids=str)
def case(request: pytest.FixtureRequest) -> tuple[list[np.ndarray], int, int]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal((rows, 128)).astype(np.float32) for rows in (48, 16)], *request.param


def test_outputs_on_inputs_it_has_not_seen_are_closer_than_by_rounding(case: tuple) -> None:
    weights, bits, group_size = case
    scales = search_scales(weights, products(loud(2000, 128, 2)), bits, group_size)
    held_out = products(loud(1000, 128, 3))
    for weight in weights:
        rounded = quantize_blocks(weight, bits, group_size).dequantize()
        plain = output_error(rounded - weight, held_out)
        assert scaled_error(weight, scales, held_out, bits, group_size) < 0.8 * plain


def test_the_scales_are_the_best_of_the_grid_by_the_outputs_themselves() -> None:
    """Against the outputs X W^T written out, with mean square instead of products."""
    inputs, weight = loud(400, 64, 4), np.random.default_rng(5).standard_normal((8, 64)).astype(np.float32)
    strength = np.sqrt((inputs.astype(np.float64) ** 2).mean(0))

    def lost(alpha: float) -> float:
        scales = strength**alpha / np.sqrt((strength**alpha).max() * (strength**alpha).min())
        back = quantize_blocks((weight * scales).astype("f4"), 4, 32).dequantize() / scales
        return float((((inputs @ (back - weight).T).astype(np.float64)) ** 2).sum())

    best = min(ALPHAS, key=lost)
    found = search_scales([weight], products(inputs), 4, 32)
    np.testing.assert_allclose(found, candidate_scales(products(inputs), best))
    assert 0 < best < 1


def test_no_scaling_is_among_the_candidates_and_dead_inputs_do_no_harm() -> None:
    inputs = loud(100, 32, 6)
    inputs[:, 3] = 0
    assert np.isfinite(candidate_scales(products(inputs), 0.7)).all()
    np.testing.assert_array_equal(candidate_scales(products(inputs), 0.0), np.ones(32))
    np.testing.assert_array_equal(candidate_scales(np.zeros((32, 32)), 0.5), np.ones(32))
