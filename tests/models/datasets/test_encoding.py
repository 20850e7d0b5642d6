import numpy as np
import pytest

from models.datasets.encoding import token_stream, token_windows
from models.errors import DataError


def test_windows_score_each_token_once_and_give_the_stream_back() -> None:
    stream = np.arange(20)
    split = token_windows(stream, 6)
    assert split.targets is not None
    assert split.inputs["input_ids"].shape == (3, 6)
    assert split.targets.ravel().tolist() == list(range(1, 19))
    assert np.array_equal(token_stream(split), stream[:19])


def test_a_stream_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(DataError, match="6 tokens do not fill one window of 6"):
        token_windows(np.arange(6), 6)
