"""Words as the numbers that a table of vectors is asked by, and the words that are nearest to one.

It knows nothing of the vectors. A model without subwords answers for the words of its vocabulary alone; one
with them for any word, by its pieces. The trade-off: pieces are hashed, so that a few share a vector with
others, and no table of pieces has to travel with the model.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np

from runtime.errors import InputError
from runtime.manifest import Subwords, WordProcessing
from runtime.processing import Array

NEIGHBOURS = 10
SHOWN = 50
# Fowler, Noll and Vo's hash FNV-1a in 32 bits, which fastText hashes pieces by.
_FNV_OFFSET, _FNV_PRIME, _FNV_MASK = 2166136261, 16777619, 0xFFFFFFFF


def number_words(labels: Sequence[str]) -> dict[str, int]:
    """Each word of a vocabulary with its row."""
    return {word: row for row, word in enumerate(labels)}


def encode_words(
    words: Sequence[Any], processing: WordProcessing, rows: Mapping[str, int]
) -> dict[str, Array]:
    """Words as `word_ids` int64 [batch], or as `subword_ids` int64 [batch, most] padded with zeros.

    Case does not count. Raises InputError for an empty batch or word, for several words in one, and, where
    there are no subwords, for a word that is not in `rows`.
    """
    if not len(words):
        raise InputError("the batch is empty; send at least one word")
    read = [_word(word) for word in words]
    if processing.subwords is None:
        return {"word_ids": np.array([_row(word, rows) for word in read], np.int64)}
    subword_ids = np.zeros((len(read), processing.subwords.most), np.int64)
    for ids, word in zip(subword_ids, read, strict=True):
        found = subwords_of(word, processing.subwords, rows.get(word))
        ids[: len(found)] = found
    return {"subword_ids": subword_ids}


def check_words(inputs: Mapping[str, Array], processing: WordProcessing, vocabulary: int) -> None:
    """Raise InputError for a number that no word and no piece has; a quantized table answers with zeros."""
    for name, ids in inputs.items():
        rows = vocabulary + (processing.subwords.buckets + 1 if processing.subwords else 0)
        if ids.min() < 0 or ids.max() >= rows:
            raise InputError(f"input '{name}' holds numbers outside 0 to {rows - 1}, which this model knows")


def subwords_of(word: str, subwords: Subwords, row: int | None) -> list[int]:
    """The numbers of a word's pieces, at most `most`: itself where it has a `row`, then its n-grams.

    The n-grams are those of `<word>` (Bojanowski et al., 2016, arXiv:1607.04606, section 3.2), from its
    beginning on; a very long word is known by its beginning. Zero is padding, 1 to `buckets` are n-grams, and
    what is above are the vocabulary's rows.
    """
    own = () if row is None else (subwords.buckets + 1 + row,)
    grams = (1 + fnv1a(gram.encode()) % subwords.buckets for gram in _grams(f"<{word}>", subwords))
    return list(islice(chain(own, grams), subwords.most))


def fnv1a(data: bytes) -> int:
    """The 32-bit FNV-1a hash."""
    value = _FNV_OFFSET
    for byte in data:
        value = (value ^ byte) * _FNV_PRIME & _FNV_MASK
    return value


def rows_asked(inputs: Mapping[str, Array], processing: WordProcessing) -> Array:
    """Which row of the vocabulary each input is, int64 [batch]; -1 for a word that is not in it."""
    if processing.subwords is None:
        return inputs["word_ids"]
    rows = inputs["subword_ids"].max(1) - processing.subwords.buckets - 1
    return np.asarray(np.maximum(rows, -1))


def nearest_words(similarity: Array, asked: Array, labels: Sequence[str]) -> list[list[dict[str, Any]]]:
    """The most similar words of each row, the nearest first: `[{word, similarity}]`, never the asked one.

    similarity float32 [batch, vocabulary], asked int64 [batch] as `rows_asked` gives.
    """
    others = similarity.copy()
    known = np.flatnonzero(asked >= 0)
    others[known, asked[known]] = -np.inf
    most = min(NEIGHBOURS, others.shape[1] - 1)
    nearest = np.argpartition(-others, most, axis=1)[:, :most]
    return [
        [
            {"word": labels[row], "similarity": float(values[row])}
            for row in sorted(chosen.tolist(), key=lambda row, values=values: -values[row])  # type: ignore[misc]
        ]
        for chosen, values in zip(nearest, others, strict=True)
    ]


def _word(word: Any) -> str:
    if not isinstance(word, str):
        raise InputError("send words as text")
    parts = word.lower().split()
    if not parts:
        raise InputError("the word is empty; send one")
    if len(parts) > 1:
        raise InputError(f"'{word.strip()[:SHOWN]}' is {len(parts)} words; send one at a time")
    return parts[0]


def _row(word: str, rows: Mapping[str, int]) -> int:
    if word not in rows:
        raise InputError(f"'{word[:SHOWN]}' is not among the {len(rows)} words of this model; send another")
    return rows[word]


def _grams(marked: str, subwords: Subwords) -> Iterator[str]:
    for start in range(len(marked)):
        for end in range(start + subwords.shortest, min(start + subwords.longest, len(marked)) + 1):
            yield marked[start:end]
