"""n-gram models by interpolated modified Kneser-Ney smoothing: what a language model has to beat.

Kneser and Ney (1995), modified as in Chen and Goodman, "An empirical study of smoothing techniques for
language modeling" (1998), section 3: the best smoothing there, and on our corpus too, so that the floor is an
honest one. Counts are sorted arrays of packed keys: fast to fit and to query in bulk, useless for generating
token by token.
"""

from dataclasses import dataclass

import numpy as np

from models.datasets.dataset import Array, Dataset
from models.datasets.encoding import token_stream

BASELINES = {"bigram": 2, "trigram": 3}
# The discount where a corpus is too small to estimate one (Chen and Goodman find 0.6 to 0.9 on all of
# theirs).
FALLBACK_DISCOUNT = 0.75


def baselines(dataset: Dataset) -> dict[str, float]:
    """The perplexity of each of `BASELINES` on the validation split, learnt from the training split."""
    train, validation = token_stream(dataset.train), token_stream(dataset.validation)
    vocabulary = int(max(train.max(), validation.max())) + 1
    return {name: fit(train, order, vocabulary).perplexity(validation) for name, order in BASELINES.items()}


@dataclass(frozen=True, slots=True)
class _Level:
    """The n-grams of one length: sorted keys and counts, and each context's total and reserved mass."""

    keys: Array
    counts: Array
    discounts: Array
    contexts: Array
    totals: Array
    reserved: Array


@dataclass(frozen=True, slots=True)
class NGramModel:
    """Probabilities of the next token given up to `order - 1` before it."""

    vocabulary: int
    unigram: Array
    levels: tuple[_Level, ...]

    def perplexity(self, stream: Array) -> float:
        """exp of the mean negative log-likelihood of every token of `stream` [tokens] but the first."""
        return float(np.exp(-np.log(self.probabilities(stream)).mean()))

    def probabilities(self, stream: Array) -> Array:
        """P(token | the tokens before it), float64 [tokens - 1]; the first ones use what history there is."""
        probability = self.unigram[stream]
        for order, level in enumerate(self.levels, 2):
            keys = _keys(stream, order, self.vocabulary)
            probability[order - 1 :] = _interpolate(level, keys, probability[order - 1 :], self.vocabulary)
        return np.asarray(probability[1:])


def fit(stream: Array, order: int, vocabulary: int) -> NGramModel:
    """The model of the given order over `stream`, int [tokens] of values below `vocabulary`.

    Orders below the highest count distinct left neighbours instead of occurrences. Half a count is added to
    each token's unigram, so that a token never seen still has some probability.
    """
    stream = stream.astype(np.int64)
    counts = [np.unique(_keys(stream, n, vocabulary), return_counts=True) for n in range(1, order + 1)]
    for n in range(1, order):
        counts[n - 1] = np.unique(counts[n][0] % vocabulary**n, return_counts=True)
    unigram = np.full(vocabulary, 0.5)
    unigram[counts[0][0]] += counts[0][1]
    levels = tuple(_level(keys, count, vocabulary) for keys, count in counts[1:])
    return NGramModel(vocabulary, unigram / unigram.sum(), levels)


def _keys(stream: Array, order: int, vocabulary: int) -> Array:
    """Each run of `order` tokens as one number in base `vocabulary`, int64 [tokens - order + 1]."""
    length = max(len(stream) - order + 1, 0)
    keys = np.zeros(length, np.int64)
    for offset in range(order):
        keys = keys * vocabulary + stream[offset : offset + length]
    return keys


def _level(keys: Array, counts: Array, vocabulary: int) -> _Level:
    discounts = _discounts(counts)
    contexts, inverse = np.unique(keys // vocabulary, return_inverse=True)
    totals = np.bincount(inverse, counts)
    reserved = np.bincount(inverse, discounts[np.minimum(counts, 3)])
    return _Level(keys, counts, discounts, contexts, totals, reserved)


def _discounts(counts: Array) -> Array:
    """What is taken from counts of 0, 1, 2 and 3 or more (Chen and Goodman, equations 23 to 26)."""
    n1, n2, n3, n4 = (int((counts == value).sum()) for value in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return np.array([0.0, FALLBACK_DISCOUNT, FALLBACK_DISCOUNT, FALLBACK_DISCOUNT])
    y = n1 / (n1 + 2 * n2)
    estimates = [0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    return np.clip(estimates, [0.0, 0.1, 0.1, 0.1], [0.0, 0.9, 1.9, 2.9])


def _interpolate(level: _Level, keys: Array, lower: Array, vocabulary: int) -> Array:
    """(count - discount) / total + reserved / total * lower; just `lower` after a context never seen."""
    contexts = keys // vocabulary
    counts = _look_up(level.keys, level.counts, keys)
    totals = _look_up(level.contexts, level.totals, contexts)
    reserved = _look_up(level.contexts, level.reserved, contexts)
    kept = counts - level.discounts[np.minimum(counts, 3)]
    return np.where(totals > 0, (kept + reserved * lower) / np.maximum(totals, 1), lower)


def _look_up(keys: Array, values: Array, wanted: Array) -> Array:
    """The value of each wanted key, 0 where it is absent."""
    positions = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[positions] == wanted, values[positions], 0)
