"""Movement pruning: scores against their sum, and zeros that training decided on."""

import pytest
import torch
from torch import nn

from compress.errors import StepError
from compress.finetune import FinetuneConfig
from compress.prune.config import Gradual, Movement
from compress.prune.masks import moved
from compress.prune.movement import Moving, moving


def test_a_score_is_the_sum_over_steps_of_what_moved_the_weight_away_from_zero() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(3, 4))
    part, expected = Moving(weight.detach()), torch.zeros(3, 4)
    part.mask[0, 0] = False
    for _ in range(3):
        wanted = torch.randn(3, 4)
        kept = part(weight)
        # The loss's gradient by the kept weight is known: 2 (kept - wanted), pruned or not.
        expected = expected - weight.detach() * 2 * (kept.detach() - wanted)
        (kept - wanted).square().sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(part.scores, expected)
    assert weight.grad is not None
    assert weight.grad[0, 0] == 0


def test_pushing_a_weight_outwards_raises_its_score_whatever_its_sign() -> None:
    weight = torch.tensor([2.0, -2.0, 2.0, -2.0])
    gradient = torch.tensor([-1.0, 1.0, 1.0, -1.0])
    assert moved(torch.zeros(4), weight, gradient).tolist() == [2.0, 2.0, -2.0, -2.0]


def test_large_weights_that_shrink_go_and_small_ones_that_grow_stay() -> None:
    layer = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[2.0, 2.0, 0.1, 0.1]]))
    wanted = torch.tensor([[0.5, 0.5, 1.0, 1.0]])
    config = Movement(
        criterion="movement", gradual=Gradual(events=2, until=0.9), finetune=FinetuneConfig(steps=10)
    )
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.02)
    with moving(config, {"only": layer}) as before_step:
        for step in range(10):
            before_step(step)
            optimizer.zero_grad()
            (layer.weight - wanted).square().sum().backward()
            optimizer.step()
    assert isinstance(layer.weight, nn.Parameter)
    assert (layer.weight == 0).tolist() == [[True, True, False, False]]
    assert "parametrizations" not in dict(layer.named_children())


def test_a_frozen_layer_is_refused_for_it_would_be_pruned_by_no_score() -> None:
    layer = nn.Linear(4, 1).requires_grad_(False)
    config = Movement(
        criterion="movement", gradual=Gradual(events=2, until=0.9), finetune=FinetuneConfig(steps=10)
    )
    with pytest.raises(StepError, match="'only' is frozen"), moving(config, {"only": layer}):
        pass
