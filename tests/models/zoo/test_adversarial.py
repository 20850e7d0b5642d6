"""Two players in one pass: whose gradient is whose; slopes against finite differences."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.training import Batch, Objective
from models.zoo.adversarial import (
    Critic,
    Game,
    adversarial_loss,
    gan,
    slopes,
    wasserstein_loss,
)

TINY = {"seen": (4, 4), "widths": (4, 4)}
CASES = [
    pytest.param(adversarial_loss, lambda scores: F.softplus(-scores), id="adversarial"),
    pytest.param(wasserstein_loss, lambda scores: -scores, id="wasserstein"),
]


def batch(rows: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(3)
    return {
        "noise": torch.randn(rows, 1, 16, 16, generator=generator),
        "label": torch.arange(rows) % 10,
        "targets": torch.randn(rows, 1, 16, 16, generator=generator).tanh(),
    }


def game() -> Game:
    torch.manual_seed(0)
    network = gan(code=4, **TINY)
    assert isinstance(network, Game)
    return network.eval()


def gradients(loss: Tensor, player: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(player.parameters()), retain_graph=True))


def assert_alike(ours: list[Tensor], wanted: list[Tensor]) -> None:
    for one, other in zip(ours, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def played(objective: Objective, module: nn.Module) -> Tensor:
    """The loss of one drawing: codes drawn alike each time."""
    torch.manual_seed(1)
    return objective(module, batch())


@pytest.mark.parametrize(("objective", "wish"), CASES)
def test_the_generator_learns_to_be_scored_highly_and_nothing_else(objective: Objective, wish: Any) -> None:
    module = game()
    ours = gradients(played(objective, module), module.generator)
    torch.manual_seed(1)
    drawn = module(torch.randn_like(batch()["noise"]), batch()["label"])
    assert_alike(ours, gradients(wish(module.critic(drawn, batch()["label"])).mean(), module.generator))


@pytest.mark.parametrize(("objective", "wish"), CASES)
def test_the_critic_learns_as_if_drawings_were_given(objective: Objective, wish: Any) -> None:
    module, still = game(), game()
    still.generator.requires_grad_(False)
    ours = gradients(played(objective, module), module.critic)
    assert_alike(ours, gradients(played(objective, still), still.critic))


@pytest.mark.parametrize(("objective", "wish"), CASES)
def test_the_value_is_the_critics_which_a_better_drawing_raises(objective: Objective, wish: Any) -> None:
    module = game()
    before = played(objective, module)
    better = copy.deepcopy(module)
    slope = gradients(before, module.generator)
    with torch.no_grad():
        for parameter, each in zip(better.generator.parameters(), slope, strict=True):
            parameter -= 0.1 * each
    assert played(objective, better) > before


def test_slopes_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    critic, images, label = (
        Critic(10, (3, 3)).double(),
        torch.randn(2, 1, 16, 16).double(),
        torch.tensor([3, 7]),
    )
    step, squares = 1e-6, torch.zeros(2, dtype=torch.float64)
    with torch.no_grad():
        for pixel in torch.eye(256, dtype=torch.float64).view(-1, 1, 16, 16) * step:
            rise = critic(images + pixel, label) - critic(images - pixel, label)
            squares += (rise / (2 * step)) ** 2
    assert torch.allclose(slopes(critic, images, label), squares.sqrt(), rtol=1e-4)


def test_the_penalty_on_slopes_is_learnt_from() -> None:
    """Its own gradient, through the gradient, against a finite difference of one weight."""
    torch.manual_seed(0)
    critic, images, label = (
        Critic(10, (3, 3)).double(),
        torch.randn(2, 1, 16, 16).double(),
        torch.tensor([3, 7]),
    )
    weight = next(critic.parameters())

    def penalty() -> Tensor:
        return (slopes(critic, images, label) - 1).square().mean()

    (gradient,) = torch.autograd.grad(penalty(), weight)
    step, around = 1e-6, []
    for sign in (1, -1):
        with torch.no_grad():
            weight[0, 0, 1, 1] += sign * step
        around.append(penalty().item())
        with torch.no_grad():
            weight[0, 0, 1, 1] -= sign * step
    assert float(gradient[0, 0, 1, 1]) == pytest.approx((around[0] - around[1]) / (2 * step), rel=1e-3)


def test_the_score_is_the_asked_labels() -> None:
    critic, images = Critic(10, (3, 3)), torch.randn(1, 1, 16, 16)
    scores = critic(images.expand(10, -1, -1, -1), torch.arange(10))
    assert torch.allclose(scores, critic.layers(images)[0], atol=1e-6)
    assert len(scores.unique()) == 10


@pytest.mark.parametrize("objective", [adversarial_loss, wasserstein_loss])
def test_mixed_precision_plays_nearly_the_same_game(objective: Objective) -> None:
    network = game()
    wanted = played(objective, network)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isclose(played(objective, network).float(), wanted, rtol=0.1)
