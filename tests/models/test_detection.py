"""Average precision against a plain reading of its definition, and by hand."""

import numpy as np
import pytest

from models.datasets.dataset import Array
from models.detection import match_rows, mean_average_precision, overlap_rows
from runtime.detection import intersection_over_union

RNG = np.random.default_rng(0)
CLASSES = 3
HALF = np.array([0.5])


def target(*rows: tuple[float, ...]) -> Array:
    made: Array = np.full((1, 4, 5), -1.0)
    for place, row in enumerate(rows):
        made[0, place] = row
    return made


def candidates(*rows: tuple[tuple[float, ...], int, float]) -> Array:
    made = np.full((1, len(rows), 4 + CLASSES), -20.0)
    for place, (box, label, logit) in enumerate(rows):
        made[0, place, :4], made[0, place, 4 + label] = box, logit
    return made


def scenes(count: int) -> tuple[Array, Array]:
    """Random objects, and candidates that are near some of them."""
    targets: Array = np.full((count, 4, 5), -1.0)
    output = np.full((count, 8, 4 + CLASSES), -20.0)
    for image in range(count):
        for place in range(RNG.integers(1, 5)):
            corner, side = RNG.random(2) * 0.7, 0.1 + RNG.random(2) * 0.2
            targets[image, place] = (RNG.integers(CLASSES), *corner, *(corner + side))
        for place in range(8):
            near = targets[image, place % 4]
            output[image, place, :4] = near[1:] + RNG.normal(0, 0.015, 4)
            output[image, place, 4 + RNG.integers(CLASSES)] = RNG.normal()
            if near[0] >= 0:
                output[image, place, 4 + int(near[0])] = RNG.normal(1)
    return output, targets


def plainly(rows: list[tuple[int, float, int, Array]], targets: Array, label: int, threshold: float) -> float:
    """Precision at each recall, one detection at a time, over (image, score, class, box) rows."""
    mine = sorted((row for row in rows if row[2] == label), key=lambda row: -row[1])
    objects, taken, hits, curve = int((targets[..., 0] == label).sum()), set(), 0, []
    for seen, (image, _, _, box) in enumerate(mine, 1):
        free = [p for p in range(4) if targets[image, p, 0] == label and (image, p) not in taken]
        overlaps = {
            p: float(intersection_over_union(box[None], targets[image, p : p + 1, 1:])[0, 0]) for p in free
        }
        best = max(overlaps, key=lambda place: overlaps[place], default=None)
        if best is not None and overlaps[best] >= threshold:
            taken.add((image, best))
            hits += 1
        curve.append((hits / objects, hits / seen))
    return float(
        np.mean([max((p for r, p in curve if r >= wanted), default=0.0) for wanted in np.linspace(0, 1, 101)])
    )


def test_it_is_what_the_definition_says() -> None:
    from models.detection import EVERYTHING
    from runtime.detection import detect

    output, targets = scenes(12)
    found = detect(output, EVERYTHING)
    rows = [
        (image, float(score), int(label), box)
        for image, each in enumerate(found)
        for score, label, box in zip(each.scores, each.classes, each.boxes, strict=True)
    ]
    for threshold in (0.5, 0.75):
        wanted = np.mean([plainly(rows, targets, label, threshold) for label in range(CLASSES)])
        assert mean_average_precision(match_rows(output, targets), np.array([threshold])) == pytest.approx(
            wanted
        )


def test_by_hand() -> None:
    here, there = (0.0, 0.0, 0.2, 0.2), (0.5, 0.5, 0.9, 0.9)
    targets = target((0, *here), (0, *there))
    right = candidates((here, 0, 2.0), (there, 0, 1.0))
    assert mean_average_precision(match_rows(right, targets)) == 1.0
    half = candidates((here, 0, 2.0))
    assert mean_average_precision(match_rows(half, targets), HALF) == pytest.approx(51 / 101)
    wrong_class = candidates((here, 1, 2.0))
    assert mean_average_precision(match_rows(wrong_class, targets), HALF) == 0.0


def test_an_object_counts_once() -> None:
    """Two boxes that both fit one object, though not each other: the less likely one is wrong."""
    here, there = (0.2, 0.0, 0.6, 0.4), (0.5, 0.5, 0.9, 0.9)
    left, right = (0.1, 0.0, 0.5, 0.4), (0.3, 0.0, 0.7, 0.4)
    rows = match_rows(
        candidates((left, 0, 3.0), (right, 0, 2.0), (there, 0, 1.0)), target((0, *here), (0, *there))
    )
    assert mean_average_precision(rows, HALF) == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_overlap_is_of_the_best_answered_box_of_an_objects_class() -> None:
    here, half, there = (0.0, 0.0, 0.2, 0.2), (0.0, 0.0, 0.2, 0.1), (0.5, 0.5, 0.9, 0.9)
    targets = target((0, *here), (1, *there), (2, *there))
    found = candidates((half, 0, 3.0), (there, 1, 3.0), (there, 2, -5.0))
    assert overlap_rows(found, targets) == pytest.approx(np.array([[1.5, 3]]))
    assert overlap_rows(candidates((here, 1, 3.0)), targets).tolist() == [[0, 3]]
    assert overlap_rows(found, target()).tolist() == [[0, 0]]
