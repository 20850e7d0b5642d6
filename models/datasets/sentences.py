"""Sentences to learn from without labels, and pairs with a human score to be judged by.

The sentences are those of STS 2014 (their scores are not looked at) and of SST-2's training split, from
$MODELPRESS_DATA; the pairs are those of STS 2015, as in `sts`. A sentence that is judged is not learnt from.
The tokenizer is learnt from the training sentences, in lower case. The trade-off: eleven thousand sentences
say little of what words mean; it is a set to show a method on.
"""

from pathlib import Path

import numpy as np
from tokenizers import normalizers

from models.datasets import sst2, sts
from models.datasets.dataset import Dataset, Split, SplitName, View
from models.datasets.encoding import text_split
from models.datasets.wordpieces import PAD_ID, tokenizer_file
from models.errors import DataError
from models.storage import code_digest, digest, home, versions, write_atomically
from runtime.manifest import TextProcessing
from runtime.processing import load_tokenizer

PROCESSING = TextProcessing(max_length=48, pad_id=PAD_ID, pooling="mean", normalize=True)


def fingerprint() -> str:
    """sha256 over both sets' texts, and the code and library that tokenize them."""
    code = code_digest([__name__, "models.datasets.wordpieces"])
    return digest(sts.fingerprint(), sst2.fingerprint(), code, repr(versions(["tokenizers"])))


def open_dataset(view: View) -> Dataset:
    """Both splits in `view`'s tokens, or their own. Raises DataError without the files, or for no text."""
    processing = view.processing or PROCESSING
    if not isinstance(processing, TextProcessing):
        raise DataError("data set 'sentences' holds sentences to embed, and this model does not read text")
    identity = fingerprint()
    tokenizer = view.tokenizer or _own_tokenizer(home() / "data" / f"sentences-{identity[:12]}")
    judged = sts.open_dataset(View(view.task, processing, tokenizer))

    def load(split: SplitName) -> Split:
        if split == "validation":
            return judged.validation
        texts = _texts()
        # There is nothing to be said of a sentence: targets are there to be counted.
        return text_split(texts, np.zeros(len(texts)), processing, tokenizer)

    return Dataset("sentences", "embedding", identity, (), processing, load, {"tokenizer.json": tokenizer})


def _texts() -> list[str]:
    """Each sentence to learn from once, in the order of the files."""
    reviews = sst2.open_dataset(View()).train.raw or ()
    judged = set(_of_pairs("validation"))
    return [text for text in dict.fromkeys([*_of_pairs("train"), *reviews]) if text not in judged]


def _of_pairs(split: SplitName) -> list[str]:
    rows = [row for name in sts.FILES[split] for row in sts.scored(name)]
    return [text for _, *pair in rows for text in pair]


def _own_tokenizer(folder: Path) -> Path:
    """WordPiece that takes every letter for a small one: what a word means does not hang on its place."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        cased = tokenizer_file(folder / "cased.json", (text.lower() for text in _texts()))
        tokenizer = load_tokenizer(cased)
        tokenizer.normalizer = normalizers.Lowercase()
        write_atomically(path, tokenizer.to_str().encode())
    return path
