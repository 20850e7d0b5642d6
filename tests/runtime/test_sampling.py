import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from runtime.errors import InputError
from runtime.sampling import SamplingParams, sample

LOGITS = np.array([2.0, 1.0, 0.5, 0.0, -1.0, -3.0], np.float32)
DRAWS = 4000


def draw(params: SamplingParams) -> np.ndarray:
    rng = np.random.default_rng(0)
    tokens = sample(np.tile(LOGITS, (DRAWS, 1)), [params] * DRAWS, [rng] * DRAWS)
    return np.bincount(tokens, minlength=len(LOGITS))


def kept_distribution(params: SamplingParams) -> np.ndarray:
    """The definition, one token at a time: temperature, then top-k, then the nucleus."""
    weights = np.exp(LOGITS / params.temperature)
    order = np.argsort(-weights)
    allowed = order[: params.top_k or len(order)]
    total, mass, nucleus = weights[allowed].sum(), 0.0, []
    for token in allowed:
        if mass < params.top_p:
            nucleus.append(token)
        mass += weights[token] / total
    kept = np.zeros(len(LOGITS))
    kept[nucleus] = weights[nucleus]
    return kept / kept.sum()


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=0.5),
        SamplingParams(temperature=2.0),
        SamplingParams(top_k=3),
        SamplingParams(top_p=0.8),
        SamplingParams(temperature=1.5, top_k=4, top_p=0.9),
    ],
)
def test_draws_follow_the_distribution(params: SamplingParams) -> None:
    counts, expected = draw(params), kept_distribution(params)
    assert not counts[expected == 0].any()
    kept = expected > 0
    assert stats.chisquare(counts[kept], expected[kept] * DRAWS).pvalue > 1e-3


@given(st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=30, unique=True))
def test_greedy_and_narrow_sampling_take_the_best(logits: list[float]) -> None:
    row = np.array([logits], np.float32)
    rng = np.random.default_rng(0)
    for params in (SamplingParams(temperature=0), SamplingParams(top_k=1), SamplingParams(top_p=1e-9)):
        assert sample(row, [params], [rng])[0] == row[0].argmax()


def test_a_seed_draws_the_same_alone_and_in_a_batch() -> None:
    params = SamplingParams(temperature=1.0, seed=7)
    alone = sample(LOGITS[None], [params], [np.random.default_rng(7)])
    others = [np.random.default_rng(seed) for seed in (1, 7, 2)]
    batch = sample(np.tile(LOGITS, (3, 1)), [SamplingParams(temperature=0), params, params], others)
    assert batch[1] == alone[0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("top_k", -1),
        ("top_p", 0),
        ("top_p", 1.1),
    ],
)
def test_values_outside_their_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{field} is {value}"):
        SamplingParams(**{field: value})
