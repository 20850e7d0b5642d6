import numpy as np
import pytest
import torch

from models.datasets import Split
from models.zoo.recurrent_language import bigram_lstm, lstm_language_model


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(0, 32, (2, 9), generator=torch.Generator().manual_seed(0))


def test_no_token_sees_those_after_it(tokens: torch.Tensor) -> None:
    torch.manual_seed(0)
    module = lstm_language_model(vocabulary=32, width=16, hidden=8).eval()
    mask = torch.ones_like(tokens)
    whole, beginning = module(tokens, mask), module(tokens[:, :5], mask[:, :5])
    torch.testing.assert_close(whole[:, :5], beginning)
    assert not torch.allclose(whole[:, 5], module(tokens.roll(1, 1), mask)[:, 5])


def test_padding_changes_nothing_before_it(tokens: torch.Tensor) -> None:
    torch.manual_seed(0)
    module = lstm_language_model(vocabulary=32, width=16, hidden=8).eval()
    mask = torch.ones_like(tokens)
    mask[0, 6:] = 0
    padded = module(torch.where(mask.bool(), tokens, 0), mask)
    torch.testing.assert_close(padded[0, :6], module(tokens, torch.ones_like(tokens))[0, :6])


def test_it_starts_as_the_bigram_model_of_its_training_split() -> None:
    stream = np.tile(np.array([1, 2, 3, 4, 5], np.int64), 200)
    split = Split({"input_ids": stream[:-1][None]}, stream[1:][None])
    module = lstm_language_model(vocabulary=6, width=6, hidden=4).eval()
    bigram_lstm(module, split)
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    assert module(ids, torch.ones_like(ids)).argmax(-1).tolist() == [[2, 3, 4, 5, 1]]
