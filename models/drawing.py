"""How good drawings are: the Frechet distance to real ones, class by class, in a classifier's features,
and how many of the classes that classifier recognises.

The mean over classes is intra-FID (Miyato and Koyama, 2018, arXiv:1802.05637): a class that is never drawn,
one that is always drawn alike, and drawings of another label than was asked for are each far from the real
ones. The classifier is a linear discriminant on 8 x 8 pixels, whose features have a spread of one within a
class: always drawing a class's mean costs about 9. Figures are comparable only within this project.
Coverage says what the distance's mean can hide, that a class is not drawn at all; it does not see variety.
"""

from functools import cache
from typing import Any

import numpy as np

from models.datasets.dataset import Array
from models.errors import MissingExtra

FEATURES, SIDE = 9, 8
# Of the drawings asked for a class, the share that must be read as it before the class counts as covered.
RECOGNISED = 0.5


def drawing_rows(drawn: Array, real: Array) -> Array:
    """A row each, float64 [batch, 2 * FEATURES + 1]: features of the drawing, of the real one, its class.

    Images are [batch, 1, height, width] in [-1, 1]; a drawing was asked for by the label of the real one in
    its row, and what the classifier reads there stands for that label.
    """
    classifier, pixels = _classifier(), _small(real)
    features = (classifier.transform(each) for each in (_small(drawn), pixels))
    return np.concatenate([*features, classifier.predict(pixels)[:, None]], 1)


def intra_class_distance(rows: Array) -> float:
    """The mean over classes of the Frechet distance of its drawings to its real images."""
    classes = [rows[rows[:, -1] == label] for label in np.unique(rows[:, -1])]
    wide = [each for each in classes if len(each) > 1]
    return float(np.mean([frechet_distance(each[:, :FEATURES], each[:, FEATURES:-1]) for each in wide]))


def recognition_rows(drawn: Array, real: Array) -> Array:
    """A row each, float64 [batch, 2]: the class that was asked for, and the one that the drawing is read as.

    Images as for `drawing_rows`; what the classifier reads in the real one stands for the label here too.
    """
    classifier = _classifier()
    return np.stack([classifier.predict(_small(each)) for each in (real, drawn)], 1).astype(np.float64)


def class_coverage(rows: Array) -> float:
    """How many of the classes asked for are read in at least half of the drawings asked for them."""
    asked, read = rows.T
    shares = [(read[asked == label] == label).mean() for label in np.unique(asked)]
    return float(sum(share >= RECOGNISED for share in shares))


def frechet_distance(one: Array, other: Array) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2) of two sets [n, width] (Heusel et al., 2017)."""
    gap = one.mean(0) - other.mean(0)
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(first @ second).real.clip(min=0)).sum()
    return float(gap @ gap + np.trace(first) + np.trace(second) - 2 * roots)


@cache
def _classifier() -> Any:
    try:
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    except ImportError:
        hint = "pip install 'modelpress[compress]'"
        raise MissingExtra(f"judging drawings needs scikit-learn; {hint}") from None
    from models.datasets import View, load_dataset

    split = load_dataset("drawings", View(task="image-generation")).load("train")
    assert split.targets is not None
    classifier = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto")
    return classifier.fit(_small(split.targets), split.inputs["label"])


def _small(images: Array) -> Array:
    """Pixels in [0, 1] of the images at SIDE x SIDE, averaged over blocks, float64 [batch, pixels]."""
    rows, _, height, width = images.shape
    blocks = images.reshape(rows, SIDE, height // SIDE, SIDE, width // SIDE)
    return np.asarray((blocks.mean((2, 4)).reshape(rows, -1).clip(-1, 1) + 1) / 2, np.float64)
