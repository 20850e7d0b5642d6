"""Images beside captions to choose from, as tensors and as answers. The counterpart of `processing`.

It knows nothing of the network. The trade-off: a caption is read anew for each image that it is compared
with, so that a row of the batch stands by itself, as rows of every other model do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL.Image import Image
from tokenizers import Tokenizer

from runtime.errors import InputError
from runtime.manifest import CaptionedProcessing, TextProcessing
from runtime.processing import MAX_PIXELS, Array, encode_texts, label_one, preprocess_images, softmax

MAX_CAPTIONS = 256


@dataclass(frozen=True, slots=True)
class Captioned:
    """An image, or its encoded bytes, and the captions to choose from; none are the model's own."""

    image: Image | bytes
    captions: tuple[str, ...] = ()


def encode_captioned(
    items: Sequence[Captioned | Image | bytes],
    processing: CaptionedProcessing,
    tokenizer: Tokenizer,
    default: Sequence[str],
    *,
    max_pixels: int = MAX_PIXELS,
) -> dict[str, Array]:
    """Images and captions as pixel_values, input_ids and attention_mask, a row an image.

    Rows with fewer captions than others repeat their first. Raises InputError for an empty batch, bytes that
    are not an image or one of over `max_pixels`, or captions that `check_captions` refuses.
    """
    asked = [item if isinstance(item, Captioned) else Captioned(item) for item in items]
    images = [each.image for each in asked]
    pixels = preprocess_images(images, processing.image, max_pixels=max_pixels)
    chosen = [captions_of(each, default) for each in asked]
    distinct = list(dict.fromkeys(caption for captions in chosen for caption in captions))
    encoded = _encoded(distinct, processing.text, tokenizer)
    numbers = {caption: number for number, caption in enumerate(distinct)}
    most = max(map(len, chosen))
    rows = np.array(
        [[numbers[caption] for caption in (*each, *each[:1] * (most - len(each)))] for each in chosen]
    )
    return {"pixel_values": pixels, **{name: tensor[rows] for name, tensor in encoded.items()}}


def captions_of(item: Any, default: Sequence[str]) -> tuple[str, ...]:
    """What an item is compared with: its own captions, else `default`."""
    return item.captions if isinstance(item, Captioned) and item.captions else tuple(default)


def check_captions(captions: Any) -> tuple[str, ...]:
    """Captions as a person sent them. Raises InputError for none, too many, an empty or a repeated one."""
    given = [captions] if isinstance(captions, str) else list(captions)
    if not given:
        raise InputError("there are no captions; send at least one, or none of them for the model's own")
    if len(given) > MAX_CAPTIONS:
        raise InputError(f"{len(given)} captions for one image; send at most {MAX_CAPTIONS}")
    for index, caption in enumerate(given):
        if not caption.strip():
            raise InputError(f"caption {index} is empty; send at least one word")
        if (first := given.index(caption)) < index:
            raise InputError(f"caption {index} is caption {first} again; send each once")
    return tuple(given)


def rank_captions(logits: Array, captions: Sequence[str]) -> dict[str, Any]:
    """Logits [captions or more] as `{label, probability, scores}`, over these captions alone."""
    return label_one(softmax(logits[: len(captions)]), captions)


def _encoded(captions: Sequence[str], text: TextProcessing, tokenizer: Tokenizer) -> dict[str, Array]:
    """int64 [captions, max_length] each. Raises InputError for a caption without a single known word."""
    encoded = encode_texts(tokenizer, captions, text)
    unknown = np.isin(encoded["input_ids"], _wordless(tokenizer, text.pad_id)).all(1)
    if unknown.any():
        caption = captions[int(unknown.argmax())]
        raise InputError(f"this model knows no word of '{caption[:80]}'; say it in other words")
    width = text.max_length - encoded["input_ids"].shape[1]
    fill = {"input_ids": text.pad_id}
    return {
        name: np.pad(tensor, ((0, 0), (0, width)), constant_values=fill.get(name, 0))
        for name, tensor in encoded.items()
    }


def _wordless(tokenizer: Tokenizer, pad_id: int) -> list[int]:
    """The tokens that say nothing: padding, what stands around a text, and the one for unknown words."""
    unknown = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "")
    return [pad_id, *tokenizer.encode("").ids, *([] if unknown is None else [unknown])]
