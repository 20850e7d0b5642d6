"""How often words stand near each other in the standard library's source: `models.datasets.words`, counted.

A row for each word of the vocabulary; its targets are the counts, float32 [rows, vocabulary], a word at
distance d counting 1 / d (Pennington et al., GloVe, 2014, section 4.2). Nothing is thinned out. What is
held out is what `words` holds out. The trade-off: the matrix is dense, 64 MB, so that a batch is a few of its
rows.
"""

import numpy as np

from models.datasets import words
from models.datasets.dataset import IGNORED, Array, Dataset, Split, SplitName, View
from models.storage import code_digest, digest


def fingerprint() -> str:
    """That of the words, and this module's."""
    return digest(words.fingerprint(), code_digest([__name__]))


def open_dataset(view: View) -> Dataset:
    """The counts. Raises DataError for a model that does not take words."""
    processing = words.processing_of(view, "cooccurrences")

    def load(split: SplitName) -> Split:
        if split == "validation":
            return words.judged(processing)
        counts = weighted_counts(*words.stream("train"), words.VOCABULARY)
        return words.asked(np.arange(words.VOCABULARY), counts, processing)

    return Dataset("cooccurrences", words.TASK, fingerprint(), words.vocabulary(), processing, load)


def weighted_counts(stream: Array, files: Array, vocabulary: int) -> Array:
    """Co-occurrences within a window, weighted by 1 / distance: float32 [vocabulary, vocabulary]."""
    around = words.windows(stream, files)
    counts = np.zeros(vocabulary**2)
    for column in range(2 * words.WINDOW):
        there = around[:, column] != IGNORED
        distance = words.WINDOW - column if column < words.WINDOW else column - words.WINDOW + 1
        pairs = stream[there] * vocabulary + around[there, column]
        counts += np.bincount(pairs, minlength=vocabulary**2) / distance
    return counts.reshape(vocabulary, vocabulary).astype(np.float32)
