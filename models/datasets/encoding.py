"""Raw examples to splits, through the very preprocessing that serving uses (`runtime.processing`).

It reads no files. Everything here is one pass over a whole split: the sets we train on fit in memory.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL.Image import Image
from tokenizers import Tokenizer

from models.datasets.dataset import IGNORED, Array, Split
from models.errors import DataError
from runtime.manifest import ImageProcessing, TextProcessing
from runtime.processing import encode_texts, load_tokenizer, preprocess_images

Targets = Sequence[int] | Array | None


def image_split(images: Sequence[Image], targets: Targets, processing: ImageProcessing) -> Split:
    """Images as pixel_values float32 [examples, channels, height, width]."""
    return Split({"pixel_values": preprocess_images(images, processing)}, _integers(targets), images)


def text_split(texts: Sequence[str], targets: Targets, processing: TextProcessing, tokenizer: Path) -> Split:
    """Texts as input_ids and attention_mask, int64 [examples, sequence]."""
    return Split(encode_texts(load_tokenizer(tokenizer), texts, processing), _integers(targets), texts)


def pair_split(
    pairs: Sequence[tuple[str, str]], scores: Sequence[float], processing: TextProcessing, tokenizer: Path
) -> Split:
    """Pairs of texts as rows 2i and 2i+1; targets are the scores, float64 [pairs]."""
    texts = [text for pair in pairs for text in pair]
    inputs = encode_texts(load_tokenizer(tokenizer), texts, processing)
    return Split(inputs, np.array(scores, np.float64), texts)


def word_split(
    texts: Sequence[str], labels: Sequence[Sequence[int]], processing: TextProcessing, tokenizer: Path
) -> Split:
    """Texts with one label a word (words are what white space separates).

    A word's label goes to its first token and the rest are IGNORED, as in Devlin et al. (2019), section 5.3.
    """
    loaded = load_tokenizer(tokenizer)
    inputs = encode_texts(loaded, texts, processing)
    targets: Array = np.full(inputs["input_ids"].shape, IGNORED, np.int64)
    for row, (text, words) in enumerate(zip(texts, labels, strict=True)):
        for position, word in _first_tokens(loaded, text, len(words), row):
            if position < targets.shape[1]:
                targets[row, position] = words[word]
    return Split(inputs, targets, texts)


def encode_corpus(tokenizer: Tokenizer, documents: Iterable[str], end_of_text: int | None) -> Array:
    """Documents as one stream of tokens, int64 [tokens], with `end_of_text` after each."""
    encodings = tokenizer.encode_batch_fast(list(documents), add_special_tokens=False)
    separator = [] if end_of_text is None else [end_of_text]
    return np.concatenate([np.array(encoding.ids + separator, np.int64) for encoding in encodings])


def token_windows(stream: Array, window: int) -> Split:
    """A stream cut into input_ids int64 [windows, window] and the tokens that follow each, as targets.

    Every token but the first is a target once; a last, shorter window is dropped.
    """
    count = (len(stream) - 1) // window
    if count < 1:
        raise DataError(f"{len(stream)} tokens do not fill one window of {window}; give more text")
    inputs = stream[: count * window].astype(np.int64).reshape(count, window)
    targets = stream[1 : count * window + 1].astype(np.int64).reshape(count, window)
    return Split({"input_ids": inputs}, targets)


def token_stream(split: Split) -> Array:
    """The stream that `token_windows` cut, int64 [windows * window + 1]."""
    assert split.targets is not None
    return np.concatenate([split.inputs["input_ids"][0, :1], split.targets.ravel()])


def _first_tokens(tokenizer: Tokenizer, text: str, words: int, row: int) -> list[tuple[int, int]]:
    """(position, word) of the first token of each word."""
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    if len(spans) != words:
        raise DataError(f"text {row} has {len(spans)} words and {words} labels; give one label a word")
    encoding = tokenizer.encode(text)
    found: dict[int, int] = {}
    for position, (start, end) in enumerate(encoding.offsets):
        for word, (first, last) in enumerate(spans):
            if start < end and start < last and end > first:
                found.setdefault(word, position)
    return [(position, word) for word, position in found.items()]


def _integers(targets: Targets) -> Array | None:
    return None if targets is None else np.asarray(targets, np.int64)
