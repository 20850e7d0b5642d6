from collections import Counter
from itertools import product

import numpy as np
import pytest

from models.datasets import Dataset
from models.datasets.encoding import token_windows
from models.ngram import FALLBACK_DISCOUNT, baselines, fit
from runtime.manifest import GenerationProcessing

VOCABULARY = 7
RNG = np.random.default_rng(1)
CORPUS = [int(token) for token in RNG.choice(VOCABULARY - 1, 400, p=[0.4, 0.25, 0.15, 0.1, 0.07, 0.03])]
HELD_OUT = [int(token) for token in RNG.integers(0, VOCABULARY, 60)]

Gram = tuple[int, ...]


def brute_force(history: Gram, token: int, order: int) -> float:
    """Interpolated modified Kneser-Ney, from dictionaries, by its definition."""
    grams = {
        n: Counter(tuple(CORPUS[i : i + n]) for i in range(len(CORPUS) - n + 1)) for n in range(1, order + 1)
    }
    return probability(history[max(0, len(history) - order + 1) :], token, grams, order)


def probability(history: Gram, token: int, grams: dict[int, Counter[Gram]], order: int) -> float:
    length = len(history) + 1
    counts = grams[length] if length == order else Counter(gram[1:] for gram in grams[length + 1])
    if length == 1:
        return (counts[(token,)] + 0.5) / (sum(counts.values()) + 0.5 * VOCABULARY)
    lower = probability(history[1:], token, grams, order)
    followers = {gram[-1]: count for gram, count in counts.items() if gram[:-1] == history}
    if not followers:
        return lower
    taken = discounts(counts)
    total = sum(followers.values())
    reserved = sum(taken[min(count, 3)] for count in followers.values())
    seen = followers.get(token, 0)
    return (seen - taken[min(seen, 3)]) / total + reserved / total * lower


def discounts(counts: Counter[Gram]) -> list[float]:
    n = [0, *(sum(count == value for count in counts.values()) for value in (1, 2, 3, 4))]
    if not (n[1] and n[2] and n[3]):
        return [0.0, *[FALLBACK_DISCOUNT] * 3]
    y = n[1] / (n[1] + 2 * n[2])
    raw = [k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3)]
    return [0.0, *(min(max(value, 0.1), k - 0.1) for k, value in enumerate(raw, 1))]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_are_those_of_the_definition(order: int) -> None:
    found = fit(np.array(CORPUS), order, VOCABULARY).probabilities(np.array(HELD_OUT))
    expected = [brute_force(tuple(HELD_OUT[:i]), HELD_OUT[i], order) for i in range(1, len(HELD_OUT))]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("order", [2, 3])
def test_probabilities_sum_to_one_after_any_history(order: int) -> None:
    model = fit(np.array(CORPUS), order, VOCABULARY)
    for history in product(range(VOCABULARY), repeat=order - 1):
        streams = [np.array([*history, token]) for token in range(VOCABULARY)]
        assert sum(model.probabilities(stream)[-1] for stream in streams) == pytest.approx(1)


def test_perplexity_is_the_exponential_of_the_mean_loss() -> None:
    model = fit(np.array(CORPUS), 2, VOCABULARY)
    stream = np.array(HELD_OUT)
    assert model.perplexity(stream) == pytest.approx(np.exp(-np.log(model.probabilities(stream)).mean()))


def test_a_longer_history_helps_where_it_matters() -> None:
    stream = np.tile([0, 1, 0, 2, 3], 200)
    split = token_windows(stream, 16)
    dataset = Dataset("cycle", "text-generation", "", (), GenerationProcessing(), lambda name: split)
    found = baselines(dataset)
    assert found["trigram"] < 1.1 < found["bigram"]
