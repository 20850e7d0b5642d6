from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from runtime.errors import InputError
from runtime.sampling import Sampler, SamplingParams

LOGITS = np.array([2.0, 1.0, 0.5, 0.0, -1.0, -3.0], np.float32)
DRAWS = 4000


def draw(logits: np.ndarray, params: SamplingParams, draws: int = DRAWS) -> np.ndarray:
    """How often each token is drawn."""
    rng = np.random.default_rng(0)
    tokens = Sampler().sample(np.tile(logits, (draws, 1)), [params] * draws, [rng] * draws)
    return np.bincount(tokens, minlength=len(logits))


def expected(logits: np.ndarray, params: SamplingParams) -> np.ndarray:
    """The distribution by transformers' own processors."""
    steps = [TemperatureLogitsWarper(params.temperature)]
    steps += [TopKLogitsWarper(params.top_k)] if params.top_k else []
    steps += [TopPLogitsWarper(params.top_p)] if params.top_p < 1 else []
    steps += [MinPLogitsWarper(params.min_p)] if params.min_p else []
    kept = LogitsProcessorList(steps)(torch.zeros(1, 1, dtype=torch.int64), torch.from_numpy(logits[None]))
    return torch.softmax(kept.double(), -1)[0].numpy()


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=0.5),
        SamplingParams(temperature=2.0),
        SamplingParams(top_k=3),
        SamplingParams(top_k=100),
        SamplingParams(top_p=0.8),
        SamplingParams(min_p=0.2),
        SamplingParams(temperature=1.5, top_k=4, top_p=0.9),
        SamplingParams(temperature=1.5, top_k=5, top_p=0.95, min_p=0.15),
    ],
)
def test_draws_follow_the_distribution(params: SamplingParams) -> None:
    counts, wanted = draw(LOGITS, params), expected(LOGITS, params)
    assert not counts[wanted == 0].any()
    kept = wanted > 0
    assert stats.chisquare(counts[kept], wanted[kept] * DRAWS).pvalue > 1e-3


@pytest.mark.parametrize("spread", [0.1, 3.0])
@pytest.mark.parametrize("vocabulary", [1000, 5000])
@pytest.mark.parametrize(
    "params",
    [SamplingParams(), SamplingParams(top_p=0.95), SamplingParams(top_k=2000, top_p=0.9, min_p=0.01)],
)
def test_a_large_vocabulary_is_no_different(params: SamplingParams, vocabulary: int, spread: float) -> None:
    """By groups of tokens of like probability, because single tokens are drawn too seldom."""
    logits = (np.random.default_rng(1).normal(size=vocabulary) * spread).astype(np.float32)
    counts, wanted = draw(logits, params, 2000), expected(logits, params)
    assert not counts[wanted == 0].any()
    kept = np.random.default_rng(2).permutation(np.flatnonzero(wanted))
    groups = np.array_split(kept, min(8, len(kept)))
    observed = np.array([counts[group].sum() for group in groups])
    assert stats.chisquare(observed, [wanted[group].sum() * 2000 for group in groups]).pvalue > 1e-3


@given(
    # Far enough apart that float32 tells their weights from each other.
    st.lists(st.integers(-2000, 2000), min_size=2, max_size=30, unique=True),
    st.integers(0, 8),
    st.floats(0.05, 1),
    st.floats(0, 1),
)
def test_only_what_is_kept_is_drawn(scores: list[int], top_k: int, top_p: float, min_p: float) -> None:
    logits = np.array(scores, np.float32) / 100
    params = SamplingParams(top_k=top_k, top_p=top_p, min_p=min_p)
    # A token on the very edge is kept or cut by rounding alone; sums are rounded differently here and there.
    wider = SamplingParams(top_k=top_k, top_p=min(1, top_p + 1e-5), min_p=min_p * (1 - 1e-5))
    wanted = expected(logits, wider)
    for token in np.flatnonzero(draw(logits, params, 200)):
        assert wanted[token] > 0


@given(st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=30, unique=True))
def test_greedy_and_narrow_sampling_take_the_best(logits: list[float]) -> None:
    row = np.array([logits], np.float32)
    rng = np.random.default_rng(0)
    for params in (
        SamplingParams(temperature=0),
        SamplingParams(temperature=1e-30),
        SamplingParams(top_k=1),
        SamplingParams(top_p=1e-9),
        SamplingParams(min_p=1),
    ):
        drawn = Sampler().sample(row.copy(), [params], [rng])[0]
        # float32 may not tell the two best apart once their weights are computed.
        assert row[0, drawn] >= row[0].max() - 1e-6


def test_of_equal_tokens_the_first_are_kept() -> None:
    logits = np.array([0, 1, 1, 1, 0], np.float32)
    assert np.flatnonzero(draw(logits, SamplingParams(top_k=2))).tolist() == [1, 2]


@pytest.mark.parametrize("params", [{}, {"top_p": 0.9}, {"top_k": 50}, {"min_p": 0.05}])
def test_a_seed_draws_the_same_alone_and_in_a_batch(params: dict[str, Any]) -> None:
    logits = np.random.default_rng(3).normal(size=(5, 3000)).astype(np.float32)
    wish = SamplingParams(seed=7, **params)
    others = [SamplingParams(temperature=0), wish, SamplingParams(top_p=0.999), SamplingParams(), wish]
    alone = [
        Sampler().sample(logits[row : row + 1].copy(), [wish], [np.random.default_rng(7)])[0]
        for row in (1, 4)
    ]
    batch = Sampler().sample(logits.copy(), others, [np.random.default_rng(7) for _ in others])
    assert [batch[1], batch[4]] == alone


def test_the_last_number_below_one_draws_the_last_token_kept() -> None:
    class Edge:
        def random(self) -> float:
            return 1 - 2**-53

    logits = np.random.default_rng(0).normal(size=(1, 1000)).astype(np.float32)
    logits[0, 700:] = -np.inf
    rng: Any = Edge()
    assert Sampler().sample(logits, [SamplingParams()], [rng])[0] == 699


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("top_k", -1),
        ("top_p", 0),
        ("top_p", 1.1),
        ("min_p", 1.1),
        ("repetition_penalty", 0.0),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("logprobs", 21),
        ("seed", -1),
    ],
)
def test_values_outside_their_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{field} is {value}"):
        SamplingParams(**{field: value})


def test_a_bias_outside_its_range_is_refused() -> None:
    with pytest.raises(InputError, match="logit_bias of token 5 is 101; it must be from -100 to 100"):
        SamplingParams(logit_bias={5: 101})
