"""Pre- and post-processing in numpy: images and texts to tensors, logits to labels.

Declared in the bundle's manifest and used alike by training, evaluation and serving, so that there is one
implementation. It does not know which graph runs in between. Images are resized with Pillow.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from tokenizers import Encoding, Tokenizer

from runtime.errors import BatchTooLarge, InputError, PromptTooLong
from runtime.manifest import ImageProcessing, TextProcessing

Array = npt.NDArray[Any]

# Refuse to decode anything larger: 64 megapixels is beyond any model here and bounds a decompression bomb.
MAX_PIXELS = 64_000_000
# Of that size, images in one request: 64 megapixels decode in half a second, from a file of 60 kB.
LARGEST_IMAGES = 16
# What Pillow raises for a damaged file; ValueError for one whose parts contradict each other, or explode.
_UNREADABLE = (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def preprocess_images(
    images: Sequence[Image.Image | bytes], processing: ImageProcessing, *, max_pixels: int = MAX_PIXELS
) -> Array:
    """Images, or encoded PNG/JPEG bytes, as float32 [batch, channels, height, width].

    Raises InputError for an empty batch, for bytes that are not an image, or for one of over `max_pixels`.
    """
    if not images:
        raise InputError("the batch is empty; send at least one image")
    return np.stack([_image_tensor(image, processing, max_pixels) for image in images])


def check_pixels(images: Sequence[Any], max_pixels: int) -> None:
    """Raise BatchTooLarge for more than `LARGEST_IMAGES` of `max_pixels`, by their headers alone.

    What is no image counts nothing: `preprocess_images` says so.
    """
    most = LARGEST_IMAGES * max_pixels
    if len(images) > LARGEST_IMAGES and (pixels := sum(map(_pixels, images))) > most:
        raise BatchTooLarge(f"the images have {pixels:,} pixels together; send at most {most:,} at once")


def encode_texts(
    tokenizer: Tokenizer, texts: Sequence[str], processing: TextProcessing, *, truncate: bool = True
) -> dict[str, Array]:
    """Texts as input_ids and attention_mask, int64 [batch, sequence], padded on the right to the longest.

    Longer texts are truncated to `processing.max_length`, to their beginnings or ends as the processing says;
    PromptTooLong where they are not to be. Raises InputError for an empty batch or text, and for what is no
    text.
    """
    if not texts:
        raise InputError("the batch is empty; send at least one text")
    for index, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            where = f"text {index}" if len(texts) > 1 else "the text"
            what = "empty; send at least one word" if isinstance(text, str) else "no text; send one"
            raise InputError(f"{where} is {what}")
    if (tokenizer.truncation or {}).get("max_length") != processing.max_length:
        side = "right" if processing.keep == "first" else "left"
        tokenizer.enable_truncation(processing.max_length, direction=side)
    encodings = tokenizer.encode_batch(list(texts))
    if not truncate:
        _check_whole([_whole_length(encoding) for encoding in encodings], processing)
    return padded(encodings, processing)


def padded(encodings: Sequence[Encoding], processing: TextProcessing) -> dict[str, Array]:
    """A tokenizer's encodings as int64 tensors [batch, sequence], padded on the right to the longest."""
    length = max(len(encoding.ids) for encoding in encodings)
    for encoding in encodings:
        encoding.pad(length, pad_id=processing.pad_id)
    tensors = {
        "input_ids": np.array([encoding.ids for encoding in encodings], np.int64),
        "attention_mask": np.array([encoding.attention_mask for encoding in encodings], np.int64),
    }
    if processing.token_type_ids:
        tensors["token_type_ids"] = np.array([encoding.type_ids for encoding in encodings], np.int64)
    return tensors


def _whole_length(encoding: Encoding) -> int:
    """How many tokens a text has, those that were cut off included."""
    cut_off = (len(part.ids) - sum(part.special_tokens_mask) for part in encoding.overflowing)
    return len(encoding.ids) + sum(cut_off)


def _check_whole(lengths: Sequence[int], processing: TextProcessing) -> None:
    """Raise PromptTooLong for a text of more tokens than the model reads."""
    for index, length in enumerate(lengths):
        if length > processing.max_length:
            where = f"text {index}" if len(lengths) > 1 else "the text"
            raise PromptTooLong(
                f"{where} has {length} tokens and the model reads {processing.max_length}; shorten it"
            )


def pad_tokens(
    rows: Sequence[Sequence[int]], processing: TextProcessing, *, truncate: bool = False
) -> dict[str, Array]:
    """What `encode_texts` gives, for texts that are tokens already, special ones included.

    Raises InputError for an empty batch or row or for what is no token, and PromptTooLong for a text that is
    too long and not to be truncated.
    """
    if not rows or not all(rows):
        raise InputError("there is nothing to read; send at least one token for each text")
    if truncate:
        most = processing.max_length
        rows = [row[:most] if processing.keep == "first" else row[-most:] for row in rows]
    _check_whole([len(row) for row in rows], processing)
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    input_ids = np.full(mask.shape, processing.pad_id, np.int64)
    tokens = [token for row in rows for token in row]
    if not all(isinstance(token, int | np.integer) and 0 <= token < 2**63 for token in tokens):
        raise InputError("a token is outside the vocabulary; send whole numbers from 0 on")
    input_ids[mask] = tokens
    tensors = {"input_ids": input_ids, "attention_mask": mask.astype(np.int64)}
    if processing.token_type_ids:
        tensors["token_type_ids"] = np.zeros_like(input_ids)
    return tensors


def check_texts(inputs: Mapping[str, Array], vocabulary: int, max_length: int) -> None:
    """Raise InputError for tokens outside the vocabulary, and for a mask that is not ones and then zeros.

    PromptTooLong where a text would have been truncated: there may be no positions for more tokens.
    Not every graph refuses unknown tokens: a table counts -1 from its end, a quantized one has zeros for
    others. Graphs count a row's ones and read as many tokens from its beginning: padding on the left would
    silently be read, and a row without any ones is one that recurrent kernels leave as they found the memory.
    """
    tokens, mask = inputs.get("input_ids"), inputs.get("attention_mask")
    if tokens is not None and (tokens.min() < 0 or tokens.max() >= vocabulary):
        raise InputError(f"input 'input_ids': a token is outside the vocabulary of {vocabulary}")
    if tokens is not None and tokens.shape[-1] > max_length:
        raise PromptTooLong(f"input 'input_ids': {tokens.shape[-1]} tokens a text; send at most {max_length}")
    # A single text has no padding, and microseconds count.
    if mask is not None and not (mask == 1).all():
        padded_right = np.arange(mask.shape[-1]) < mask.sum(-1, keepdims=True)
        if (mask != padded_right).any() or (mask[..., 0] != 1).any():
            raise InputError(
                "input 'attention_mask' is not 1 for a row's tokens, at least one, and 0 behind them; "
                "pad on the right"
            )


def load_tokenizer(path: Path | str) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`, with its own padding and truncation switched off."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def pool(hidden: Array, attention_mask: Array, processing: TextProcessing) -> Array:
    """Token vectors [batch, sequence, width] to one vector a text, [batch, width] (`none`: unchanged).

    Mean pooling counts the tokens that the mask keeps (Reimers and Gurevych, 2019, arXiv:1908.10084).
    """
    if processing.pooling == "none":
        return hidden
    if processing.pooling == "cls":
        pooled = hidden[:, 0]
    else:
        mask = attention_mask[..., None].astype(hidden.dtype)
        pooled = (hidden * mask).sum(1) / np.maximum(mask.sum(1), 1)
    if not processing.normalize:
        return pooled
    return np.asarray(pooled / np.maximum(np.linalg.norm(pooled, axis=-1, keepdims=True), 1e-12))


def softmax(logits: Array) -> Array:
    """Probabilities over the last axis, computed without overflow."""
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(-1, keepdims=True))


def classify(logits: Array, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Logits [batch, classes] as one `{label, probability, scores}` a row."""
    names = labels or [str(index) for index in range(logits.shape[-1])]
    return [label_one(row, names) for row in softmax(logits)]


def label_one(probabilities: Array, names: Sequence[str]) -> dict[str, Any]:
    """Probabilities [classes] of one example as `{label, probability, scores}`."""
    best = int(probabilities.argmax())
    scores = {name: float(value) for name, value in zip(names, probabilities, strict=True)}
    return {"label": names[best], "probability": scores[names[best]], "scores": scores}


def tag_tokens(
    logits: Array, inputs: Mapping[str, Array], tokenizer: Tokenizer, labels: Sequence[str]
) -> list[dict[str, Any]]:
    """Logits [batch, sequence, classes] as one `{tokens: [{token, label, probability}]}` a row.

    What the tokenizer puts around any text ([CLS] and [SEP], say) is not the text's, and is left out.
    """
    frame = set(tokenizer.encode("").ids)
    answers = []
    for row, ids, mask in zip(softmax(logits), inputs["input_ids"], inputs["attention_mask"], strict=True):
        kept = int(mask.sum())
        best = row[:kept].argmax(-1)
        tokens = [
            {
                "token": tokenizer.id_to_token(token),
                "label": labels[label] if labels else str(label),
                "probability": float(row[i, label]),
            }
            for i, (token, label) in enumerate(zip(ids[:kept].tolist(), best.tolist(), strict=True))
            if token not in frame
        ]
        answers.append({"tokens": tokens})
    return answers


def png(pixels: Array) -> str:
    """Grey values, uint8 [height, width], as a PNG file in base64."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def _image_tensor(image: Image.Image | bytes, processing: ImageProcessing, max_pixels: int) -> Array:
    picture = _decode(image, max_pixels) if isinstance(image, bytes) else image
    if not isinstance(picture, Image.Image):
        raise InputError(f"an item is {type(picture).__name__}, no image; send one, or a file's bytes")
    if picture.mode.startswith("I;16"):
        # Pillow takes the upper byte of 16-bit colours, and cuts 16-bit greys off at 255.
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    picture = picture.convert(processing.mode)
    if picture.size != (processing.width, processing.height):
        picture = picture.resize((processing.width, processing.height), _RESAMPLE[processing.resample])
    pixels = np.asarray(picture, np.float32).reshape(processing.height, processing.width, -1)
    mean, std = np.array(processing.mean, np.float32), np.array(processing.std, np.float32)
    return ((pixels * np.float32(processing.rescale) - mean) / std).transpose(2, 0, 1)


def _pixels(image: Any) -> int:
    if not isinstance(image, bytes):
        return image.width * image.height if isinstance(image, Image.Image) else 0
    try:
        opened = Image.open(io.BytesIO(image), formats=_FORMATS)
        return opened.width * opened.height
    except _UNREADABLE:
        return 0


def _decode(data: bytes, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if image.width * image.height > max_pixels:
            raise InputError(
                f"the image has {image.width}x{image.height} pixels; send at most {max_pixels:,}"
            )
        image.load()
    except _UNREADABLE:
        raise InputError("not a readable image; send a whole PNG, JPEG, WebP, BMP or GIF") from None
    return image
