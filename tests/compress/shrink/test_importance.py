"""Every importance against what it is said to be, computed another way."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.shrink.convolutional import channel_units
from compress.shrink.importance import activations, magnitudes, taylor
from compress.shrink.transformer import head_units, layer_units
from compress.shrink.units import Units
from models.objectives import cross_entropy, forward


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Flatten(), nn.Linear(4 * 16, 3))
    return nn.Sequential(*layers).eval()


@pytest.fixture
def batches() -> list[dict[str, Tensor]]:
    torch.manual_seed(1)
    return [{"x": torch.randn(5, 1, 6, 6), "targets": torch.randint(3, (5,))} for _ in range(2)]


def loss(module: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return cross_entropy(forward(module, batch), batch["targets"])


def channels(network: nn.Module) -> Units:
    (units,), _ = channel_units(network, [torch.zeros(2, 1, 6, 6)])
    return units


def test_magnitude_is_the_norm_of_all_that_goes(network: nn.Module) -> None:
    convolution, norm, head = network[0], network[1], network[4]
    for unit, got in enumerate(magnitudes(network, channels(network))):
        parts = [convolution.weight[unit], convolution.bias[unit], norm.weight[unit], norm.bias[unit]]
        parts.append(head.weight[:, unit * 16 : (unit + 1) * 16])
        assert float(got) == pytest.approx(
            float(torch.cat([part.detach().flatten() for part in parts]).norm())
        )


def test_taylor_is_the_derivative_of_the_loss_by_a_gate(
    network: nn.Module, batches: list[dict[str, Tensor]]
) -> None:
    (got,) = taylor(network, [channels(network)], batches, loss)
    assert all(parameter.grad is None for parameter in network.parameters())
    wanted = torch.zeros(4)
    for batch in batches:
        gate = torch.ones(4, requires_grad=True)
        features = network[2](network[1](network[0](batch["x"]))) * gate[:, None, None]
        cross_entropy(network[4](features.flatten(1)), batch["targets"]).backward()
        assert gate.grad is not None
        wanted += gate.grad.abs()
    torch.testing.assert_close(got, wanted)


def test_activation_is_the_norm_of_what_is_read(network: nn.Module, batches: list[dict[str, Tensor]]) -> None:
    (got,) = activations(network, [channels(network)], batches, forward)
    features = torch.cat([network[2](network[1](network[0](batch["x"]))) for batch in batches])
    torch.testing.assert_close(got, features.movedim(1, 0).flatten(1).norm(dim=1).detach())
    assert not any(module._forward_pre_hooks for module in network.modules())


def tokens() -> list[dict[str, Tensor]]:
    numbers = torch.from_numpy(np.random.default_rng(0).integers(0, 64, (2, 3, 12)))
    return [{"input_ids": batch[:, :-1], "targets": batch[:, 1:]} for batch in numbers]


def test_a_head_is_worth_what_closing_its_gate_does_to_the_loss(llama: Any) -> None:
    """The derivative by central differences, scaling the columns of the output projection that read it."""
    first = head_units(llama)[0]
    (got,) = taylor(llama, [first], tokens(), loss)
    weight, step, wanted = llama.model.layers[0].self_attn.o_proj.weight, 1e-2, torch.zeros(2)
    for batch in tokens():
        for head, columns in enumerate((slice(0, 16), slice(16, 32))):
            before, at = weight.detach().clone(), []
            for gate in (1 + step, 1 - step):
                weight.data[:, columns] = before[:, columns] * gate
                with torch.no_grad():
                    at.append(float(loss(llama, batch)))
                weight.data.copy_(before)
            wanted[head] += abs(at[0] - at[1]) / (2 * step)
    torch.testing.assert_close(got, wanted, rtol=0.02, atol=1e-4)


def test_a_layer_is_worth_what_it_adds(llama: Any) -> None:
    units = layer_units(llama)
    (loud,) = activations(llama, [units], tokens(), forward)
    with torch.no_grad():
        runs = [
            llama.model(input_ids=batch["input_ids"], output_hidden_states=True).hidden_states
            for batch in tokens()
        ]
    added = torch.stack([run[1] - run[0] for run in runs])
    assert float(loud[0]) == pytest.approx(float(added.norm()), rel=1e-5)
    (gates,) = taylor(llama, [units], tokens(), loss)
    assert gates.shape == (2,)
    assert gates.gt(0).all()
    norm = torch.cat([p.detach().flatten() for p in llama.model.layers[1].parameters()]).norm()
    assert float(magnitudes(llama, units)[1]) == pytest.approx(float(norm))


def test_the_layers_gate_is_the_way_from_identity_to_the_layer(llama: Any) -> None:
    """By central differences: the last layer's output moved a little towards its input and away from it."""
    (got,) = taylor(llama, [layer_units(llama)], tokens(), loss)
    wanted = 0.0
    for batch in tokens():
        at = []
        for gate in (1.01, 0.99):

            def move(layer: Any, inputs: Any, output: Tensor, gate: float = gate) -> Tensor:
                return inputs[0] + gate * (output - inputs[0])

            handle = llama.model.layers[1].register_forward_hook(move)
            with torch.no_grad():
                at.append(float(loss(llama, batch)))
            handle.remove()
        wanted += abs(at[0] - at[1]) / 0.02
    assert float(got[1]) == pytest.approx(wanted, rel=0.02)
