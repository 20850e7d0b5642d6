import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.detection import detect, intersection_over_union
from runtime.manifest import Suppression
from runtime.processing import Array

corner = st.floats(0, 0.5, width=32)
side = st.floats(0.125, 0.5, width=32)
box = st.tuples(corner, corner, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


def output(*rows: tuple[tuple[float, ...], int, float]) -> Array:
    """One image's candidates, each (box, class of three, logit)."""
    made = np.full((1, len(rows), 7), -20.0)
    for place, (edges, label, logit) in enumerate(rows):
        made[0, place, :4], made[0, place, 4 + label] = edges, logit
    return made


def test_intersection_over_union_by_hand() -> None:
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 6, 6], [1, 1, 1, 1]], np.float64)
    wanted = [[1, 1 / 7, 0, 0], [1 / 7, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert intersection_over_union(boxes, boxes) == pytest.approx(np.array(wanted))


def test_the_likeliest_of_overlapping_boxes_of_a_class_stays() -> None:
    rows = output(
        ((0, 0, 4, 4), 1, 1.0), ((0, 0, 4, 5), 1, 2.0), ((0, 0, 4, 4), 2, 0.5), ((8, 8, 9, 9), 1, -9)
    )
    (found,) = detect(rows, Suppression(score=0.25, iou=0.5))
    assert found.boxes.tolist() == [[0, 0, 4, 5], [0, 0, 4, 4]]
    assert found.classes.tolist() == [1, 2]
    assert found.scores == pytest.approx(1 / (1 + np.exp([-2.0, -0.5])))


def test_an_image_without_likely_boxes_has_none() -> None:
    (found,) = detect(output(((0, 0, 1, 1), 0, -5.0)), Suppression())
    assert found.boxes.shape == (0, 4)


@given(st.lists(st.tuples(box, st.integers(0, 2), st.floats(-2, 4)), min_size=1, max_size=12))
def test_what_stays_does_not_overlap_and_what_goes_does(
    rows: list[tuple[tuple[float, ...], int, float]],
) -> None:
    settings = Suppression(score=0.3, iou=0.4, most=100)
    (found,) = detect(output(*rows), settings)
    rivals = intersection_over_union(found.boxes, found.boxes) * (found.classes[:, None] == found.classes)
    assert (rivals - np.diag(np.diag(rivals)) < settings.iou).all()
    assert (np.diff(found.scores) <= 0).all()
    for edges, label, logit in rows:
        if 1 / (1 + np.exp(-logit)) >= settings.score:
            overlaps = intersection_over_union(np.array([edges]), found.boxes)[0]
            assert (overlaps[found.classes == label] >= settings.iou).any()


def test_thousands_of_likely_boxes_take_no_room_for_their_pairs() -> None:
    """All pairs of 4,000 boxes took half a gigabyte."""
    rows = np.random.default_rng(0).uniform(0, 0.5, (1, 4000, 7)).astype(np.float32)
    rows[..., 2:4] += rows[..., :2]
    tracemalloc.start()
    (found,) = detect(rows, Suppression(most=20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.boxes) == 20
    assert peak < 2**25
