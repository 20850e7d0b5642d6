"""LARS and LAMB against their papers' formulas, written out for one tensor in numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from models.large_batch import EPSILON, LARS_TRUST, Lamb, Lars

GRADIENTS = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
START = np.random.default_rng(1).standard_normal((4, 5)).astype(np.float32)
RATE, DECAY = 0.1, 0.05


def stepped(kind: type[Lars] | type[Lamb], start: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    weight = nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = kind([{"params": [weight], "lr": RATE, "weight_decay": DECAY}])
    for gradient in gradients:
        weight.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
    return weight.detach().numpy()


def test_lars_is_its_formula() -> None:
    weight, velocity = START.astype(np.float64), np.zeros_like(START, np.float64)
    for gradient in GRADIENTS:
        size = np.linalg.norm(weight)
        ratio = LARS_TRUST * size / (np.linalg.norm(gradient) + DECAY * size)
        velocity = 0.9 * velocity + RATE * ratio * (gradient + DECAY * weight)
        weight = weight - velocity
    np.testing.assert_allclose(stepped(Lars, START, GRADIENTS), weight, rtol=1e-5)


def test_lamb_is_its_formula() -> None:
    weight = START.astype(np.float64)
    mean, square = np.zeros_like(weight), np.zeros_like(weight)
    for step, gradient in enumerate(GRADIENTS, 1):
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        root = np.sqrt(square / (1 - 0.999**step)) + EPSILON
        update = mean / (1 - 0.9**step) / root + DECAY * weight
        weight = weight - RATE * np.linalg.norm(weight) / np.linalg.norm(update) * update
    np.testing.assert_allclose(stepped(Lamb, START, GRADIENTS), weight, rtol=1e-5)


@pytest.mark.parametrize("kind", [Lars, Lamb])
def test_a_weight_of_zeros_still_moves(kind: type[Lars] | type[Lamb]) -> None:
    assert stepped(kind, np.zeros_like(START), GRADIENTS[:1]).any()


def test_the_step_of_lamb_does_not_depend_on_the_gradients_scale() -> None:
    np.testing.assert_allclose(
        stepped(Lamb, START, GRADIENTS), stepped(Lamb, START, 100 * GRADIENTS), rtol=1e-3, atol=1e-5
    )
