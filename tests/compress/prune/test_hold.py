from collections.abc import Callable

import torch
from torch import nn

from compress.errors import StepError
from compress.finetune import FinetuneConfig
from compress.prune.config import Gradual, Magnitude
from compress.prune.hold import cubic_renewal, held, unchanged
from compress.prune.masks import cubic_ratio, magnitude_masks


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 1)).train()


def train(
    module: nn.Module, steps: int, before_step: Callable[[int], None] = lambda step: None
) -> list[float]:
    """A few steps with momentum and weight decay; the share of zeros before each backward pass."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.05, weight_decay=0.1)
    inputs = torch.randn(32, 6, generator=torch.Generator().manual_seed(1))
    shares = []
    for step in range(steps):
        before_step(step)
        loss = (module(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        first = module.get_submodule("0").weight
        assert isinstance(first, nn.Parameter)
        shares.append(float((first == 0).float().mean()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return shares


def test_zeros_stay_exactly_zero_and_the_rest_learns() -> None:
    module = network()
    layers = {"0": module[0]}
    weight = module[0].weight
    weight.data.mul_(magnitude_masks({"0": weight}, 0.7, "layer")["0"])
    before = weight.detach().clone()
    with held(layers, unchanged) as before_step:
        train(module, 15, before_step)
    assert torch.equal(weight == 0, before == 0)
    assert (weight[before != 0] != before[before != 0]).all()
    train(module, 1)
    assert (weight[before == 0] != 0).any()


def test_pruned_weights_add_nothing_to_the_gradients_norm() -> None:
    module = network()
    module[0].weight.data[:, :3] = 0
    with held({"0": module[0]}, unchanged):
        module(torch.ones(2, 6)).sum().backward()
        gradient = module[0].weight.grad
    assert gradient is not None
    assert (gradient[:, :3] == 0).all()
    assert gradient[:, 3:].any()


def test_a_gradual_schedule_prunes_at_its_events_and_keeps_what_it_pruned() -> None:
    module = network()
    layers = {"0": module[0], "2": module[2]}
    config = Magnitude(
        criterion="magnitude",
        ratio=0.8,
        scope="layer",
        finetune=FinetuneConfig(steps=20),
        gradual=Gradual(events=4, until=0.8),
    )
    with held(layers, cubic_renewal(config, layers)) as before_step:
        shares = train(module, 20, before_step)
    expected = [int(120 * cubic_ratio(0.8, min(step // 4 + 1, 4), 4)) / 120 for step in range(20)]
    torch.testing.assert_close(shares, expected)
    assert int((module[0].weight == 0).sum()) == 96
    assert int((module[2].weight == 0).sum()) == 16


def test_a_layer_that_empties_on_the_way_is_refused() -> None:
    module = network()
    module[2].weight.data.mul_(1e-6)
    config = Magnitude(
        criterion="magnitude", ratio=0.5, finetune=FinetuneConfig(steps=4), gradual=Gradual(events=2)
    )
    layers = {"0": module[0], "2": module[2]}
    message = ""
    try:
        with held(layers, cubic_renewal(config, layers)) as before_step:
            train(module, 4, before_step)
    except StepError as error:
        message = str(error)
    assert message.startswith("prune: ratio: nothing would be left of 2;")


def test_the_zeros_of_a_frozen_layer_stay_beside_one_that_learns() -> None:
    module = network()
    module[0].requires_grad_(False)
    module[0].weight[:, :3] = 0
    before = module[0].weight.clone()
    with held({"0": module[0], "2": module[2]}, unchanged) as before_step:
        train(module, 3, before_step)
    assert torch.equal(module[0].weight, before)
