"""scikit-learn's handwritten digits: 1,797 grey images of 8 x 8 pixels, ten classes.

A quarter-sized UCI set (Alpaydin and Kaynak, 1998) that every installation already has. It stands in for
MNIST, so that training and proving an image model needs no network; its images are easier, and its figures
are not MNIST's.
"""

from functools import cache

import numpy as np
from PIL import Image

from models.datasets.dataset import Array, Dataset, Split, SplitName, View
from models.datasets.encoding import image_split
from models.errors import DataError, MissingExtra
from models.storage import code_digest, digest, versions
from runtime.manifest import ImageProcessing

# A fifth is held out: 360 images, so that one image is 0.28 points of accuracy.
HELD_OUT = 360
LABELS = tuple(str(digit) for digit in range(10))
# LeNet-5 takes 32 x 32; the mean and standard deviation are those of the enlarged training images.
PROCESSING = ImageProcessing(mode="L", height=32, width=32, rescale=1 / 255, mean=(0.3,), std=(0.33,))


def fingerprint() -> str:
    """What the set's content hangs on: the library that carries it, and this split."""
    return digest(code_digest([__name__]), *versions(["scikit-learn"]).values())


def open_dataset(view: View) -> Dataset:
    """The digits as `view` wants them. Raises DataError for a model that does not take images."""
    processing = view.processing or PROCESSING
    if not isinstance(processing, ImageProcessing):
        raise DataError("data set 'digits' holds images, and this model does not take images; choose another")

    def load(split: SplitName) -> Split:
        images, targets = _splits()[split]
        return image_split(images, targets, processing)

    return Dataset("digits", "image-classification", fingerprint(), LABELS, processing, load)


@cache
def _splits() -> dict[SplitName, tuple[list[Image.Image], Array]]:
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise MissingExtra(
            "data set 'digits' needs scikit-learn; pip install 'modelpress[compress]'"
        ) from None
    pixels, targets = load_digits(return_X_y=True)
    train, held_out, train_targets, held_out_targets = train_test_split(
        pixels, targets, test_size=HELD_OUT, stratify=targets, random_state=0
    )
    return {"train": (_images(train), train_targets), "validation": (_images(held_out), held_out_targets)}


def _images(pixels: Array) -> list[Image.Image]:
    """Rows of 64 values from 0 to 16 as 8-bit grey images."""
    scaled = np.round(pixels * (255 / 16)).astype(np.uint8)
    return [Image.fromarray(row.reshape(8, 8)) for row in scaled]
