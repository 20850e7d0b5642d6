import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from compress.quantize.blockwise import is_centred, pack, pack_zero_points, quantize_blocks, quantize_rows

WEIGHTS = arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(1, 70)), elements=st.floats(-10, 10, width=32)
)


def plain_rounding(weight: np.ndarray, bits: int, group_size: int) -> np.ndarray:
    """Round to nearest over each group's full range, one group at a time."""
    out = np.empty_like(weight)
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], group_size):
            group = weight[row, start : start + group_size]
            low, high = min(group.min(), 0), max(group.max(), 0)
            scale = max((high - low) / (2**bits - 1), np.finfo(np.float32).tiny)
            zero = round(-low / scale)
            values = np.clip(np.round(group / scale) + zero, 0, 2**bits - 1)
            out[row, start : start + group_size] = (values - zero) * scale
    return out


@given(WEIGHTS, st.sampled_from([4, 8]), st.sampled_from([16, 32]))
def test_the_searched_range_is_never_worse_than_the_full_one(
    weight: np.ndarray, bits: int, group_size: int
) -> None:
    blocks = quantize_blocks(weight, bits, group_size)
    ours = ((blocks.dequantize() - weight) ** 2).sum()
    plain = ((plain_rounding(weight, bits, group_size) - weight) ** 2).sum()
    assert ours <= plain * 1.001 + 1e-6


@given(WEIGHTS)
def test_zero_stays_zero(weight: np.ndarray) -> None:
    weight[:, ::2] = 0
    assert not quantize_blocks(weight, 4, 32).dequantize()[:, ::2].any()


def test_outliers_are_clipped_where_that_pays() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_t(3, (64, 128)).astype(np.float32)
    ours = ((quantize_blocks(weight, 4, 32).dequantize() - weight) ** 2).mean()
    plain = ((plain_rounding(weight, 4, 32) - weight) ** 2).mean()
    assert ours < 0.97 * plain


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_packing_is_two_values_a_byte_low_half_first(groups: int) -> None:
    weight = np.random.default_rng(0).standard_normal((3, 16 * groups)).astype(np.float32)
    blocks = quantize_blocks(weight, 4, 16)
    packed = pack(blocks)
    assert packed.shape == (3, groups, 8)
    np.testing.assert_array_equal(packed & 15, blocks.values[..., 0::2])
    np.testing.assert_array_equal(packed >> 4, blocks.values[..., 1::2])
    zero_points = pack_zero_points(blocks)
    assert zero_points.shape == (3, (groups + 1) // 2)
    np.testing.assert_array_equal(zero_points[:, 0] & 15, blocks.zero_points[:, 0])


@pytest.mark.parametrize("width", [5, 36, 384])
def test_rows_are_rounded_to_the_nearest_of_their_own_255_steps(width: int) -> None:
    weight = np.random.default_rng(0).standard_normal((7, width)).astype(np.float32) * np.arange(7)[:, None]
    blocks = quantize_rows(weight.astype(np.float32))
    steps = np.abs(weight).max(1, keepdims=True) / 127
    assert (np.abs(blocks.dequantize() - weight) <= steps / 2 + 1e-6).all()
    assert is_centred(blocks)
    assert blocks.values.shape[1] == 1
    assert not is_centred(quantize_blocks(weight.astype(np.float32), 8, 16))
