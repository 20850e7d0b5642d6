import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from compress.kvcache.scales import LARGEST, cache_peaks, cache_scales, clipped_share


@given(seed=st.integers(0, 999), margin=st.floats(1.0, 4.0))
def test_what_calibration_showed_is_stored_to_half_a_step(seed: int, margin: float) -> None:
    values = np.random.default_rng(seed).normal(size=(2, 3, 5, 4)).astype(np.float32) * 10.0 ** (seed % 5 - 2)
    scales = cache_scales(cache_peaks(values), margin)
    assert clipped_share(values, scales * 1.0001) == 0
    wide = scales[None, :, None]
    stored = np.clip(np.round(values / wide), -LARGEST - 1, LARGEST)
    assert (np.abs(stored * wide - values) <= wide * 0.5001).all()


def test_each_channel_has_its_own_scale_and_zeros_divide_by_one() -> None:
    values = np.zeros((1, 1, 2, 3), np.float32)
    values[0, 0, :, 0], values[0, 0, 1, 1] = [-127, 3], 1270
    assert cache_scales(cache_peaks(values), 1.0).tolist() == [[1.0, 10.0, 1.0]]
    assert clipped_share(values, np.array([[1.0, 5.0, 1.0]], np.float32)) == 1 / 6
