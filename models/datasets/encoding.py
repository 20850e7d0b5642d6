"""Raw examples to splits, through the very preprocessing that serving uses (`runtime.processing`).

It reads no files. Everything here is one pass over a whole split: the sets we train on fit in memory.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL.Image import Image
from tokenizers import Tokenizer

from models.datasets.dataset import IGNORED, Array, Split
from models.errors import DataError
from runtime.manifest import GenerationProcessing, ImageProcessing, Processing, TextProcessing
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


def answer_split(
    pairs: Sequence[tuple[str, str]], processing: GenerationProcessing, tokenizer: Path, window: int
) -> Split:
    """Sources and answers for an encoder-decoder, int64 [examples, longest] each, padded on the right.

    `input_ids` and `attention_mask` are the source with what the tokenizer puts around it;
    `decoder_input_ids` the answer after `start_ids`, and the targets what follows each of its tokens. Longer
    than `window` tokens, both are cut. The answers as they are written are the `references`.
    """
    loaded = load_tokenizer(tokenizer)
    sources, answers = [source for source, _ in pairs], [answer for _, answer in pairs]
    start, end = list(processing.start_ids), list(processing.eos_ids[:1]) or [IGNORED]
    input_ids = _padded([encoding.ids[:window] for encoding in loaded.encode_batch_fast(sources)])
    encodings = loaded.encode_batch_fast(answers, add_special_tokens=False)
    tokens = [encoding.ids[: window - len(start)] for encoding in encodings]
    wanted = _padded([[IGNORED] * (len(start) - 1) + row + end for row in tokens])
    inputs = {
        "input_ids": np.maximum(input_ids, 0),
        "attention_mask": (input_ids != IGNORED).astype(np.int64),
        "decoder_input_ids": np.maximum(_padded([start + row for row in tokens]), 0),
    }
    return Split(inputs, wanted, sources, answers)


def reads_sources(name: str, processing: Processing) -> GenerationProcessing:
    """`processing` where it is of an encoder-decoder. Raises DataError on behalf of data set `name`."""
    if not isinstance(processing, GenerationProcessing) or not processing.start_ids:
        raise DataError(f"data set '{name}' holds sources and answers, and this model is no encoder-decoder")
    return processing


def source_tokens(inputs: Mapping[str, Array]) -> list[list[int]]:
    """The tokens of each row of `input_ids` [rows, sequence], without its padding."""
    mask = inputs.get("attention_mask", np.ones_like(inputs["input_ids"]))
    rows = zip(inputs["input_ids"], mask.astype(bool), strict=True)
    return [tokens[kept].tolist() for tokens, kept in rows]


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


def _padded(rows: Sequence[Sequence[int]]) -> Array:
    """Rows of any length as int64 [rows, longest], IGNORED where one has ended."""
    padded: Array = np.full((len(rows), max(map(len, rows))), IGNORED, np.int64)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded


def _integers(targets: Targets) -> Array | None:
    return None if targets is None else np.asarray(targets, np.int64)
