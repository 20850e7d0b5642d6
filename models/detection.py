"""Average precision as COCO defines it, and the overlap of boxes, in two steps: one image's, then all.

The first gives a row of fixed length an image, so that a bootstrap can draw images without running the
detector again. The trade-off: an image keeps its KEPT likeliest boxes, far more than it has objects.
"""

import numpy as np

from models.datasets.dataset import Array
from runtime.detection import Detections, detect, intersection_over_union
from runtime.manifest import Suppression

KEPT = 24
THRESHOLDS = np.arange(0.5, 1.0, 0.05)
# COCO interpolates precision at these recalls, and looks at boxes however unlikely.
RECALLS = np.linspace(0, 1, 101)
EVERYTHING = Suppression(score=0.01, iou=0.5, most=KEPT)


def match_rows(output: Array, targets: Array) -> Array:
    """Statistics of each image, float64 [batch, KEPT * (2 + thresholds) + classes].

    For each kept box its score, its class (-1: none) and whether it is right at each threshold; then the
    number of objects of each class. `targets` is [batch, objects, 5]: class (-1: none), left, top, right,
    bottom.
    """
    classes = output.shape[-1] - 4
    found = detect(output, EVERYTHING)
    return np.stack([_row(boxes, rows, classes) for boxes, rows in zip(found, targets, strict=True)])


def mean_average_precision(rows: Array, thresholds: Array = THRESHOLDS) -> float:
    """The mean over classes and `thresholds` of average precision; `rows` are `match_rows`'."""
    width = 2 + len(THRESHOLDS)
    boxes, objects = rows[:, : KEPT * width].reshape(-1, width), rows[:, KEPT * width :].sum(0)
    boxes = boxes[np.argsort(-boxes[:, 0], kind="stable")]
    columns = [2 + int(np.abs(THRESHOLDS - threshold).argmin()) for threshold in thresholds]
    figures = [
        _average_precision(boxes[boxes[:, 1] == label][:, column], objects[label])
        for label in np.flatnonzero(objects)
        for column in columns
    ]
    return float(np.mean(figures))


def overlap_rows(output: Array, targets: Array) -> Array:
    """How well what is answered lies on what is there, float64 [batch, 2], for an IoU that needs no scores.

    Each image's sum over its objects of the IoU with the best box of the object's class (0 where none is
    answered, by the default suppression), and the number of its objects.
    """
    found = detect(output, Suppression())
    rows = [_overlapped(boxes, rows[rows[:, 0] >= 0]) for boxes, rows in zip(found, targets, strict=True)]
    return np.array(rows, np.float64)


def _overlapped(found: Detections, real: Array) -> tuple[float, int]:
    overlaps = intersection_over_union(found.boxes, real[:, 1:]) * (found.classes[:, None] == real[:, 0])
    return float(overlaps.max(0, initial=0).sum()), len(real)


def _row(found: Detections, targets: Array, classes: int) -> Array:
    real = targets[targets[:, 0] >= 0]
    boxes = np.zeros((KEPT, 2 + len(THRESHOLDS)))
    boxes[:, 1] = -1
    count = len(found.scores)
    boxes[:count, 0], boxes[:count, 1] = found.scores, found.classes
    boxes[:count, 2:] = _right(found, real)
    return np.concatenate([boxes.ravel(), np.bincount(real[:, 0].astype(np.int64), minlength=classes)])


def _right(found: Detections, real: Array) -> Array:
    """Whether each box, likeliest first, finds an object of its class that none before it found.

    bool [found, thresholds].
    """
    right: Array = np.zeros((len(found.scores), len(THRESHOLDS)), bool)
    if not len(real):
        return right
    overlaps = intersection_over_union(found.boxes, real[:, 1:]) * (found.classes[:, None] == real[:, 0])
    for column, threshold in enumerate(THRESHOLDS):
        free = np.ones(len(real), bool)
        for place, row in enumerate(overlaps):
            best = int((row * free).argmax())
            if free[best] and row[best] >= threshold:
                right[place, column], free[best] = True, False
    return right


def _average_precision(right: Array, objects: float) -> float:
    """Interpolated precision, averaged over recalls; `right` likeliest first."""
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(hits / objects, RECALLS, side="left")
    return float(np.append(best_from_here, 0.0)[np.minimum(places, len(right))].mean())
