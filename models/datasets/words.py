"""The words of the standard library's source, each beside those around it.

Names come apart at underscores and at camelCase; comments and docstrings count as they stand; case does not.
The vocabulary is the most frequent words of the training files, and frequent ones are thinned out, as
word2vec does. What is held out are files: of a pair of words that stand near each other there, and nine words
about as frequent as the second, which belongs to the first? Knowing frequencies does not help with that.
The trade-off: a text is words in a row, whatever its syntax, so the end of a function is near the next.
"""

import re
from collections import Counter
from functools import cache
from itertools import chain
from typing import Any

import numpy as np

from models.datasets.dataset import IGNORED, Array, Dataset, Split, SplitName, View
from models.datasets.library import hashed, library_files
from models.datasets.stdlib import HELD_OUT_EVERY
from models.errors import DataError
from models.storage import code_digest, digest
from runtime.manifest import Task, WordProcessing
from runtime.words import encode_words, number_words

TASK: Task = "word-vectors"
VOCABULARY, WINDOW = 4000, 5
# A word of a larger share than this is left out with probability 1 - sqrt(this / share): Mikolov et al.
# (2013, arXiv:1310.4546), section 2.3, whose 1e-5 is for a corpus a thousand times as large.
THINNED_FROM = 3e-4
JUDGED, CANDIDATES = 4000, 10
# As frequent: ranks that differ by a fifth, or by twenty among the first.
NEAR_RANK, LEAST_RANKS = 0.2, 20
_MODULES = (__name__, "models.datasets.library", "models.datasets.stdlib", "runtime.words")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


@cache
def fingerprint() -> str:
    """sha256 over the library's source, and the code that reads it."""
    return digest(*(path.read_bytes() for path in library_files()), code_digest(_MODULES))


def open_dataset(view: View) -> Dataset:
    """A row for each word of the text that is left: targets are the words around it, [rows, 2 * WINDOW],
    IGNORED past a file's ends. Raises DataError for a model that does not take words.
    """
    processing = processing_of(view, "words")

    def load(split: SplitName) -> Split:
        if split == "validation":
            return judged(processing)
        stream, files = thinned("train")
        return asked(stream, windows(stream, files), processing)

    return Dataset("words", TASK, fingerprint(), vocabulary(), processing, load)


def processing_of(view: View, name: str) -> WordProcessing:
    """How `view` wants words. Raises DataError on behalf of data set `name`."""
    processing = view.processing or WordProcessing()
    if not isinstance(processing, WordProcessing):
        raise DataError(f"data set '{name}' is for models that take words, and this one does not")
    return processing


def words_of(text: str) -> list[str]:
    """The words of a text in order, of two letters and more, in lower case."""
    return [word.lower() for word in _WORD.findall(text) if len(word) > 1]


@cache
def vocabulary() -> tuple[str, ...]:
    """The most frequent words of the training files, the most frequent first."""
    counts = Counter(chain.from_iterable(_documents()["train"]))
    return tuple(sorted(counts, key=lambda word: (-counts[word], word))[:VOCABULARY])


@cache
def stream(split: SplitName) -> tuple[Array, Array]:
    """The split's words as rows of the vocabulary, and the file that each is of, int64 [n] both."""
    rows = number_words(vocabulary())
    files = [[rows[word] for word in words if word in rows] for words in _documents()[split]]
    lengths = [len(words) for words in files]
    return np.fromiter(chain.from_iterable(files), np.int64), np.repeat(np.arange(len(files)), lengths)


@cache
def thinned(split: SplitName) -> tuple[Array, Array]:
    """`stream` with the frequent words thinned out, by their shares of the training text."""
    words, files = stream(split)
    counts = np.bincount(stream("train")[0], minlength=VOCABULARY)
    kept = np.sqrt(THINNED_FROM * counts.sum() / np.maximum(counts, 1))
    chosen = np.random.default_rng(0).random(len(words)) < kept[words]
    return words[chosen], files[chosen]


def windows(words: Array, files: Array) -> Array:
    """The words around each, from left to right: int64 [n, 2 * WINDOW], IGNORED past the ends of its file."""
    around = np.full((len(words), 2 * WINDOW), IGNORED, np.int64)
    for distance in range(1, WINDOW + 1):
        same = files[distance:] == files[:-distance]
        around[distance:, WINDOW - distance][same] = words[:-distance][same]
        around[:-distance, WINDOW - 1 + distance][same] = words[distance:][same]
    return around


def asked(words: Array, targets: Array, processing: WordProcessing) -> Split:
    """The split that asks for `words`, rows of the vocabulary."""
    names = vocabulary()
    table = encode_words(names, processing, number_words(names))
    raw: list[Any] = [names[word] for word in words.tolist()]
    return Split({name: tensor[words] for name, tensor in table.items()}, targets, raw)


def judged(processing: WordProcessing) -> Split:
    """Pairs of held-out files: targets [JUDGED, CANDIDATES] are a neighbour, then as frequent words."""
    generator = np.random.default_rng(0)
    words, files = thinned("validation")
    around = windows(words, files)
    # Not the word itself again, which is similar to itself whatever the model.
    rows, columns = np.nonzero((around != IGNORED) & (around != words[:, None]))
    drawn = generator.choice(len(rows), JUDGED, replace=False)
    centres, neighbours = words[rows[drawn]], around[rows[drawn], columns[drawn]]
    others = as_frequent(neighbours, centres, generator)
    return asked(centres, np.concatenate([neighbours[:, None], others], 1), processing)


def as_frequent(words: Array, without: Array, generator: np.random.Generator) -> Array:
    """For each of `words` others of about its rank, none of them `without`: int64 [n, CANDIDATES - 1]."""
    near = np.maximum(LEAST_RANKS, words * NEAR_RANK).astype(np.int64)
    lowest = np.clip(words - near, 0, VOCABULARY - 1 - 2 * near)
    others = np.repeat(without[:, None], CANDIDATES - 1, 1)
    while (again := others == without[:, None]).any():
        drawn = lowest[:, None] + generator.integers(2 * near[:, None], size=others.shape)
        others = np.where(again, drawn + (drawn >= words[:, None]), others)
    return others


@cache
def _documents() -> dict[SplitName, list[list[str]]]:
    found: dict[SplitName, list[list[str]]] = {"train": [], "validation": []}
    for path in library_files():
        side: SplitName = "train" if hashed(path) % HELD_OUT_EVERY else "validation"
        found[side].append(words_of(path.read_text("utf-8", errors="replace")))
    return found
