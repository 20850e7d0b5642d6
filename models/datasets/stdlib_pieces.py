"""The Python standard library's source in windows, and the piece that follows each piece.

Tokens, files and split are those of `stdlib`, so perplexities can be compared; here a window is a text that
a model reads whole, instead of a prompt that it goes on with. The trade-off: a window may begin and end
inside a word, and one whose text does not lead back to its tokens stays a list of them.
"""

import numpy as np

from models.datasets import stdlib
from models.datasets.dataset import Dataset, Split, SplitName, View
from models.errors import DataError
from models.storage import code_digest, digest
from runtime.manifest import TextProcessing
from runtime.processing import load_tokenizer

WINDOW = 128
# What a text ends with is what decides how it goes on.
PROCESSING = TextProcessing(max_length=WINDOW, pad_id=stdlib.END_ID, keep="last")


def fingerprint() -> str:
    """sha256 over the text and its tokens, which are those of `stdlib`, and the windows."""
    return digest(stdlib.fingerprint(), code_digest([__name__]))


def open_dataset(view: View) -> Dataset:
    """The windows in the library's own tokens.

    Raises DataError for a model that does not read text, or that brings a tokenizer.
    """
    processing = view.processing or PROCESSING
    corpus = stdlib.open_dataset(View(window=WINDOW))
    own = corpus.files["tokenizer.json"]
    if not isinstance(processing, TextProcessing) or view.tokenizer not in (None, own):
        raise DataError("data set 'stdlib-pieces' has its own tokens, and this model does not read them")

    def load(split: SplitName) -> Split:
        windows = corpus.train if split == "train" else corpus.validation
        tokens = windows.inputs["input_ids"]
        inputs = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        return Split(inputs, windows.targets, _readable(tokens.tolist()) if split == "validation" else None)

    def _readable(rows: list[list[int]]) -> list[str | list[int]]:
        tokenizer = load_tokenizer(own)
        texts = tokenizer.decode_batch(rows, skip_special_tokens=False)
        back = tokenizer.encode_batch_fast(texts)
        return [text if each.ids == row else row for text, each, row in zip(texts, back, rows, strict=True)]

    return Dataset(
        "stdlib-pieces", "next-token", fingerprint(), (), processing, load, {"tokenizer.json": own}
    )
