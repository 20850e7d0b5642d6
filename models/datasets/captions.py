"""Handwritten digits (`models.datasets.digits`) and captions in words that say which digit they show.

Each training image has one caption, of a template drawn by its row. A held-out image goes beside the ten of
a template that no training caption is made of: which of them is its own is the target. The trade-off: the
templates are combined from parts, so a caption is new as a whole, while most of its words are not.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from PIL.Image import Image

from models.datasets import digits
from models.datasets.dataset import Array, Dataset, Split, SplitName, View
from models.datasets.wordpieces import PAD_ID, tokenizer_file
from models.errors import DataError
from models.storage import code_digest, digest, home, versions
from runtime.captions import Captioned, encode_captioned
from runtime.manifest import CaptionedProcessing, Task, TextProcessing
from runtime.processing import load_tokenizer

TASK: Task = "zero-shot-image-classification"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# The first is what an image is compared with where a request brings no captions.
HELD_OUT = ("a handwritten {}", "this picture shows the number {}", "somebody wrote a {} with a pencil")
_OPENINGS = (
    "a picture of", "an image of", "a photo of", "a scan of", "this is", "here is", "somebody drew",
    "in this picture you see", "on the page stands", "the image has", "we read",
)  # fmt: skip
_ENDINGS = (
    "the digit {}", "the number {}", "a {}", "one digit, {}", "a digit, handwritten: {}",
    "a {} in handwriting", "{}, written by hand", "a small {} in pencil",
)  # fmt: skip
TEMPLATES = tuple(f"{opening} {ending}" for opening, ending in product(_OPENINGS, _ENDINGS))
PROCESSING = CaptionedProcessing(image=digits.PROCESSING, text=TextProcessing(max_length=24, pad_id=PAD_ID))
_MODULES = (__name__, "models.datasets.wordpieces")


def fingerprint() -> str:
    """What the set hangs on: the digits, the templates, and the code and library that tokenize them."""
    return digest(digits.fingerprint(), code_digest(_MODULES), repr(versions(["tokenizers"])))


def open_dataset(view: View) -> Dataset:
    """Images beside captions. Raises DataError for a model that does not take both."""
    processing = view.processing or PROCESSING
    if not isinstance(processing, CaptionedProcessing):
        raise DataError("data set 'captions' is for models that compare images with captions; choose another")
    tokenizer = view.tokenizer or own_tokenizer()

    def load(split: SplitName) -> Split:
        source = digits.open_dataset(View()).load(split)
        assert source.raw is not None
        assert source.targets is not None
        items = source.raw if split == "validation" else _captioned(source.raw, source.targets)
        inputs = encode_captioned(items, processing, load_tokenizer(tokenizer), LABELS)
        return Split(inputs, source.targets, items)

    files = {"tokenizer.json": tokenizer}
    return Dataset("captions", TASK, fingerprint(), LABELS, processing, load, files)


def captions_of(template: str) -> tuple[str, ...]:
    """The template's caption for each digit, in order."""
    return tuple(template.format(word) for word in WORDS)


LABELS = captions_of(HELD_OUT[0])


def own_tokenizer() -> Path:
    """The tokenizer learnt from the training captions."""
    path = home() / "data" / f"captions-{fingerprint()[:12]}" / "tokenizer.json"
    return tokenizer_file(path, (caption for template in TEMPLATES for caption in captions_of(template)))


def _captioned(images: Sequence[Image], targets: Array) -> list[Captioned]:
    """Each image with one caption."""
    drawn = np.random.default_rng(0).integers(len(TEMPLATES), size=len(images))
    captions = [TEMPLATES[row].format(WORDS[label]) for row, label in zip(drawn, targets, strict=True)]
    return [Captioned(image, (caption,)) for image, caption in zip(images, captions, strict=True)]
