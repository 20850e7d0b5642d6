"""Intra-class Frechet distance and class coverage: what a drawing model must not be able to get away with."""

from collections.abc import Callable

import numpy as np
import pytest

from models import registry
from models.datasets import View, load_dataset
from models.datasets.dataset import Array
from models.drawing import (
    class_coverage,
    drawing_rows,
    frechet_distance,
    intra_class_distance,
    recognition_rows,
)
from models.evaluation import Evaluation

DRAWINGS = load_dataset("drawings", View(task="image-generation"))
NOISE = np.random.default_rng(0)
FLOOR = float(registry.get("diffusion").floor)


def distance(drawn: Array) -> float:
    assert DRAWINGS.validation.targets is not None
    return intra_class_distance(drawing_rows(drawn, DRAWINGS.validation.targets))


def coverage(drawn: Array) -> float:
    assert DRAWINGS.validation.targets is not None
    return Evaluation("class-coverage", recognition_rows(drawn, DRAWINGS.validation.targets)).value()


def of_class(label: int) -> Array:
    assert DRAWINGS.train.targets is not None
    return DRAWINGS.train.targets[DRAWINGS.train.inputs["label"] == label]


def asked() -> list[int]:
    labels: list[int] = DRAWINGS.validation.inputs["label"].tolist()
    return labels


def test_other_digits_of_the_labels_asked_for_are_near() -> None:
    rng = np.random.default_rng(0)
    assert distance(np.stack([rng.choice(of_class(label)) for label in asked()])) < FLOOR / 2


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda label: of_class(label).mean(0), id="each class's mean"),
        pytest.param(lambda label: of_class(label)[0], id="one drawing a class"),
        pytest.param(lambda label: of_class(3)[label], id="one class"),
        pytest.param(lambda label: np.full((1, 16, 16), -1.0), id="black"),
        pytest.param(lambda label: NOISE.uniform(-1, 1, (1, 16, 16)), id="noise"),
    ],
)
def test_a_broken_model_cannot_reach_the_floor(broken: Callable[[int], Array]) -> None:
    assert distance(np.stack([broken(label) for label in asked()])) > FLOOR


def test_real_digits_under_other_labels_are_far() -> None:
    assert distance(np.stack([of_class((label + 1) % 10)[0] for label in asked()])) > FLOOR


def test_the_distance_of_two_normal_sets_is_the_closed_form() -> None:
    points = np.random.default_rng(0).standard_normal((4000, 2))
    points = (points - points.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(points, rowvar=False))).T
    # Means 3 apart; spreads of 1 and 2 in each of two directions.
    assert frechet_distance(points, 2 * points + (3, 0)) == pytest.approx(9 + 2 * (2 - 1) ** 2)


def test_a_class_is_covered_from_half_of_its_drawings_on() -> None:
    # 0 is read twice of two, 1 once of two, 2 once of three, and 3 never, though it is read elsewhere.
    rows = np.array([(0, 0), (0, 0), (1, 1), (1, 3), (2, 2), (2, 3), (2, 0), (3, 1)], np.float64)
    assert class_coverage(rows) == 2


def test_other_digits_of_the_labels_asked_for_cover_every_class() -> None:
    assert coverage(np.stack([of_class(label)[1] for label in asked()])) == 10


@pytest.mark.parametrize(
    ("drawn", "covered"),
    [
        pytest.param(lambda label: of_class(3)[label], 1, id="one class"),
        pytest.param(lambda label: of_class((label + 1) % 10)[1], 0, id="the next class"),
        pytest.param(lambda label: of_class(max(label, 4))[1], 6, id="no digit below four"),
    ],
)
def test_classes_that_are_never_drawn_are_not_covered(drawn: Callable[[int], Array], covered: int) -> None:
    assert coverage(np.stack([drawn(label) for label in asked()])) == covered
