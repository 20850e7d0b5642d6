"""Handwritten digits to draw, or to draw again, from scikit-learn's (`models.datasets.digits`).

The model's task says which. To draw (generation): a request goes in for each image, its label with its row as
the seed, and the target is the image, float32 [examples, 1, SIDE, SIDE] in [-1, 1]. To draw again
(reconstruction): an image is its own target. A diffusion model's training inputs are images at all stages of
noise, since that is what its graph sees.
"""

import numpy as np

from models.datasets import digits
from models.datasets.dataset import Array, Dataset, Split, SplitName, View
from models.datasets.encoding import image_split
from models.errors import DataError
from models.storage import code_digest, digest
from runtime.drawing import encode_requests, signal
from runtime.manifest import Diffusion, DrawingProcessing, ImageProcessing
from runtime.processing import preprocess_images

SIDE = 16
_TO_DRAW = ImageProcessing(mode="L", height=SIDE, width=SIDE, rescale=1 / 255, mean=(0.5,), std=(0.5,))


def fingerprint() -> str:
    """What the drawings hang on: the digits, and this module."""
    return digest(digits.fingerprint(), code_digest([__name__]))


def open_dataset(view: View) -> Dataset:
    """The digits for `view.task`. Raises DataError for a model that neither draws nor redraws."""
    if view.task == "image-reconstruction":
        return _reconstruction(view)
    processing = view.processing or DrawingProcessing(noise=(1, SIDE, SIDE))
    if not isinstance(processing, DrawingProcessing):
        raise DataError("data set 'drawings' is for models that draw, and this one does not; choose another")

    def load(split: SplitName) -> Split:
        requests, images = _requests(split)
        inputs = encode_requests(requests, processing, digits.LABELS)
        if processing.diffusion and split == "train":
            inputs = _noisy(inputs, images, processing.diffusion)
        return Split(inputs, images, requests)

    return Dataset("drawings", "image-generation", fingerprint(), digits.LABELS, processing, load)


def _reconstruction(view: View) -> Dataset:
    processing = view.processing or digits.PROCESSING
    if not isinstance(processing, ImageProcessing):
        raise DataError(
            "data set 'drawings' holds images, and this model does not take images; choose another"
        )

    def load(split: SplitName) -> Split:
        source = digits.open_dataset(View()).load(split)
        assert source.raw is not None
        encoded = image_split(source.raw, None, processing)
        return Split(encoded.inputs, encoded.inputs["pixel_values"], source.raw)

    return Dataset("drawings", "image-reconstruction", fingerprint(), (), processing, load)


def _requests(split: SplitName) -> tuple[list[str], Array]:
    """A request for each image of the split, and the images."""
    source = digits.open_dataset(View()).load(split)
    assert source.raw is not None
    assert source.targets is not None
    requests = [f"{digits.LABELS[label]} #{row}" for row, label in enumerate(source.targets.tolist())]
    return requests, preprocess_images(source.raw, _TO_DRAW)


def _noisy(inputs: dict[str, Array], images: Array, diffusion: Diffusion) -> dict[str, Array]:
    """The images with as much of `noise` as a random timestep says."""
    times = np.random.default_rng(0).integers(1, diffusion.timesteps + 1, len(images))
    kept = np.array([signal(int(time), diffusion) for time in times], np.float32).reshape(-1, 1, 1, 1)
    noisy = np.sqrt(kept) * images + np.sqrt(1 - kept) * inputs["noise"]
    return {**inputs, "noise": noisy.astype(np.float32), "timestep": times.astype(np.int64)}
