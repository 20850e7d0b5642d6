"""Boxes: how much two overlap, and which of a detector's many are worth answering.

Boxes are [..., 4], left, top, right, bottom, in any one unit. A detector's output row is such a box and a
logit a class: float32 [batch, candidates, 4 + classes].
"""

from dataclasses import dataclass

import numpy as np

from runtime.manifest import Suppression
from runtime.processing import Array


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """One image, likeliest first: boxes [found, 4], scores [found], classes int64 [found]."""

    boxes: Array
    scores: Array
    classes: Array


def intersection_over_union(boxes: Array, others: Array) -> Array:
    """[n, 4] and [m, 4] to [n, m]."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    areas = [np.clip(part[:, 2:] - part[:, :2], 0, None).prod(-1) for part in (boxes, others)]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1] - shared, 1e-12))


def detect(output: Array, settings: Suppression) -> list[Detections]:
    """The detections of each image of a batch, after suppression class by class.

    Each candidate counts for its likeliest class alone, with the sigmoid of its logit as its score.
    """
    return [_detect(rows, settings) for rows in output]


def _detect(rows: Array, settings: Suppression) -> Detections:
    logits = rows[:, 4:]
    classes = logits.argmax(-1)
    scores = np.exp(-np.logaddexp(0, -logits.max(-1)))
    likely = np.flatnonzero(scores >= settings.score)
    order = likely[np.argsort(-scores[likely], kind="stable")]
    kept = order[_suppress(rows[order, :4], classes[order], settings)]
    return Detections(rows[kept, :4], scores[kept], classes[kept])


def _suppress(boxes: Array, classes: Array, settings: Suppression) -> Array:
    """Places of the boxes that stay, greedily from the first on (non-maximum suppression)."""
    left = np.arange(len(boxes))
    kept: list[int] = []
    # One row of rivals after another: of all pairs there are gigabytes.
    while len(left) and len(kept) < settings.most:
        best, left = left[0], left[1:]
        kept.append(int(best))
        overlap = intersection_over_union(boxes[best : best + 1], boxes[left])[0]
        left = left[(overlap < settings.iou) | (classes[left] != classes[best])]
    return np.array(kept, np.int64)
