"""Scenes of digits: several handwritten digits on a 64 x 64 canvas, at three sizes, overlapping.

Made from the `digits` set by a fixed seed, so nothing is downloaded; digits that are held out there appear in
held-out scenes alone. The model's task says what the targets are. Segmentation: int64 [examples, height,
width], 0 for the background and 1 + the digit elsewhere (what is drawn later lies on top). Detection:
float32 [examples, OBJECTS, 5], a row being class, left, top, right, bottom in parts of the image, and class
-1 where there are fewer objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from models.datasets import digits
from models.datasets.dataset import Array, Dataset, Split, SplitName, View
from models.datasets.encoding import image_split
from models.errors import DataError
from models.storage import code_digest, digest
from runtime.manifest import ImageProcessing, Suppression, Task

SIZE, OBJECTS = 64, 4
# The sides of a digit, in pixels.
SCALES = (16, 22, 28)
COUNTS: dict[SplitName, int] = {"train": 2400, "validation": 240}
# A digit is turned by up to so many degrees either way.
TURN = 12.0
# An 8-bit grey value from which a pixel is ink.
INK = 96
# At most this part of a new digit's box may lie on one digit drawn before.
OVERLAP = 0.3
PROCESSING = ImageProcessing(mode="L", height=SIZE, width=SIZE, rescale=1 / 255, mean=(0.1,), std=(0.25,))
BACKGROUND = "background"


@dataclass(frozen=True, slots=True)
class Scene:
    """One image, the class of each pixel uint8 [SIZE, SIZE], and the boxes float32 [OBJECTS, 5]."""

    image: Image.Image
    mask: Array
    boxes: Array


def fingerprint() -> str:
    """What the scenes hang on: the digits, and this module."""
    return digest(digits.fingerprint(), code_digest([__name__]))


def open_dataset(view: View) -> Dataset:
    """The scenes with the targets of `view.task`. Raises DataError for a task that they have none for."""
    detects = view.task == "object-detection"
    if not detects and view.task not in (None, "segmentation"):
        raise DataError(f"data set 'scenes' is for segmentation and object-detection, not for {view.task}")
    own = PROCESSING.model_copy(update={"suppression": Suppression()}) if detects else PROCESSING
    processing = view.processing or own
    if not isinstance(processing, ImageProcessing):
        raise DataError("data set 'scenes' holds images, and this model does not take images; choose another")

    def load(split: SplitName) -> Split:
        scenes = _scenes(split)
        encoded = image_split([scene.image for scene in scenes], None, processing)
        return Split(encoded.inputs, _targets(scenes, detects), encoded.raw)

    labels = digits.LABELS if detects else (BACKGROUND, *digits.LABELS)
    task: Task = "object-detection" if detects else "segmentation"
    return Dataset("scenes", task, fingerprint(), labels, processing, load)


def _targets(scenes: Sequence[Scene], detects: bool) -> Array:
    if detects:
        return np.stack([scene.boxes for scene in scenes])
    return np.stack([scene.mask for scene in scenes]).astype(np.int64)


@cache
def _scenes(split: SplitName) -> tuple[Scene, ...]:
    source = digits.open_dataset(View()).load(split)
    assert source.raw is not None
    assert source.targets is not None
    rng = np.random.default_rng((0, split == "train"))
    return tuple(_scene(source.raw, source.targets, rng) for _ in range(COUNTS[split]))


def _scene(images: Sequence[Image.Image], classes: Array, rng: np.random.Generator) -> Scene:
    canvas, mask = np.zeros((SIZE, SIZE), np.uint8), np.zeros((SIZE, SIZE), np.uint8)
    boxes = np.full((OBJECTS, 5), -1, np.float32)
    corners: list[tuple[int, int, int, int]] = []
    for row in range(int(rng.integers(2, OBJECTS + 1))):
        chosen, side = int(rng.integers(len(images))), int(rng.choice(SCALES))
        corner = _place(side, corners, rng)
        if corner is None:
            continue
        enlarged = images[chosen].resize((side, side), Image.Resampling.BILINEAR)
        pixels = np.asarray(enlarged.rotate(rng.uniform(-TURN, TURN), Image.Resampling.BILINEAR))
        box = _draw(canvas, mask, pixels, corner, int(classes[chosen]))
        corners.append(box)
        boxes[row] = (classes[chosen], *(edge / SIZE for edge in box))
    return Scene(Image.fromarray(canvas), mask, boxes)


def _place(
    side: int, taken: Sequence[tuple[int, int, int, int]], rng: np.random.Generator
) -> tuple[int, int] | None:
    """A corner (left, top) where a digit of that size hides no other, if one is found soon."""
    for _ in range(20):
        left, top = (int(place) for place in rng.integers(0, SIZE - side + 1, 2))
        shared = [_shared((left, top, left + side, top + side), other) for other in taken]
        if all(part <= OVERLAP for part in shared):
            return left, top
    return None


def _shared(box: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """The part of the smaller box that lies in the other."""
    wide = min(box[2], other[2]) - max(box[0], other[0])
    tall = min(box[3], other[3]) - max(box[1], other[1])
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return max(wide, 0) * max(tall, 0) / smaller


def _draw(
    canvas: Array, mask: Array, pixels: Array, corner: tuple[int, int], label: int
) -> tuple[int, int, int, int]:
    """Put a digit's ink on top of what is there; its ink's box: left, top, right, bottom."""
    left, top = corner
    window = (slice(top, top + len(pixels)), slice(left, left + len(pixels)))
    ink = pixels >= INK
    canvas[window] = np.maximum(canvas[window] * ~ink, pixels)
    mask[window][ink] = label + 1
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1
