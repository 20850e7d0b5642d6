import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import RepetitionPenaltyLogitsProcessor

from runtime.penalties import TokenCounts, penalize
from runtime.sampling import SamplingParams

VOCABULARY = 12
TOKENS = st.lists(st.integers(0, VOCABULARY - 1), max_size=10)


def counts(prompt: list[int], answer: list[int]) -> TokenCounts:
    seen = TokenCounts.of(prompt)
    for token in answer:
        seen.note(token)
    return seen


def logits(seed: int, rows: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, VOCABULARY)).astype(np.float32)


@given(TOKENS.filter(bool), TOKENS, st.floats(0.2, 3))
def test_repetition_is_that_of_transformers(prompt: list[int], answer: list[int], penalty: float) -> None:
    got = logits(0)
    penalize(got, [SamplingParams(repetition_penalty=penalty)], [counts(prompt, answer)])
    expected = RepetitionPenaltyLogitsProcessor(penalty)(
        torch.tensor([prompt + answer]), torch.from_numpy(logits(0))
    )
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-6)


@given(TOKENS, TOKENS)
def test_what_was_seen_grows_with_the_answer(prompt: list[int], answer: list[int]) -> None:
    seen = TokenCounts.of(prompt)
    for count, token in enumerate(answer, 1):
        seen.note(token)
        tokens = seen.seen().tolist()
        assert sorted(tokens) == sorted({*prompt, *answer[:count]})


def test_a_bias_is_read_once() -> None:
    """One for each token of a large vocabulary takes milliseconds to read, at every token of the answer."""
    seen, params = counts([1], []), SamplingParams(logit_bias={3: 5.0})
    assert seen.bias(params) is seen.bias(params)


@given(TOKENS, TOKENS, st.floats(-2, 2), st.floats(-2, 2))
def test_presence_and_frequency_follow_their_formula(
    prompt: list[int], answer: list[int], presence: float, frequency: float
) -> None:
    got, expected = logits(1), logits(1)
    params = SamplingParams(presence_penalty=presence, frequency_penalty=frequency)
    penalize(got, [params], [counts(prompt, answer)])
    for token in range(VOCABULARY):
        times = answer.count(token)
        expected[0, token] -= times * frequency + (times > 0) * presence
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_a_bias_is_added_after_the_penalties_and_to_its_row_alone() -> None:
    got = logits(2, rows=2)
    biased = SamplingParams(logit_bias={3: 5.0, 7: -100.0}, repetition_penalty=2.0)
    penalize(got, [SamplingParams(), biased], [counts([3], []), counts([3], [])])
    expected = logits(2, rows=2)
    expected[1, 3] = (expected[1, 3] / 2 if expected[1, 3] > 0 else expected[1, 3] * 2) + 5
    expected[1, 7] -= 100
    np.testing.assert_allclose(got, expected, rtol=1e-6)
