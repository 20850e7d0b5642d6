"""Intra-class Frechet distance: what a drawing model must not be able to get away with."""

from collections.abc import Callable

import numpy as np
import pytest

from models import registry
from models.datasets import View, load_dataset
from models.datasets.dataset import Array
from models.drawing import drawing_rows, frechet_distance, intra_class_distance

DRAWINGS = load_dataset("drawings", View(task="image-generation"))
FLOOR = float(registry.get("diffusion").floor)


def distance(drawn: Array) -> float:
    assert DRAWINGS.validation.targets is not None
    return intra_class_distance(drawing_rows(drawn, DRAWINGS.validation.targets))


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
