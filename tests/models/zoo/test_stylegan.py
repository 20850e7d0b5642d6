"""Styles against weights of each example's own, what a drawing hangs on, and what the critic compares."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.zoo.adversarial import Game
from models.zoo.stylegan import ComparingCritic, StyledConvolution, spreads, stylegan


@pytest.mark.parametrize("doubled", [False, True])
def test_a_style_modulates_and_demodulates_each_examples_weights(doubled: bool) -> None:
    """Karras et al. (2020), equations 1 and 3, with one convolution an example."""
    torch.manual_seed(0)
    layer = StyledConvolution(4, 3, 5, doubled)
    with torch.no_grad():
        layer.strength.normal_()
        layer.bias.normal_()
    features, style, side = torch.randn(2, 3, 4, 4), torch.randn(2, 4), 8 if doubled else 4
    noise, weight = torch.randn(2, 1, side, side), layer.convolution.weight
    for row in range(2):
        modulated = layer.style(style[row])[None, :, None, None] * weight
        modulated = modulated / (modulated.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        grown = features[row].repeat_interleave(2, 1).repeat_interleave(2, 2) if doubled else features[row]
        sums = F.conv2d(grown[None], modulated, padding=1)
        wanted = F.leaky_relu(sums + layer.strength * noise[row] + layer.bias, 0.2) * 2**0.5
        got = layer(features, style, noise)[row : row + 1]
        assert torch.allclose(got, wanted, atol=1e-5)


def test_stylegan_draws_by_code_label_and_noise() -> None:
    torch.manual_seed(0)
    network = stylegan(style=4, depth=1, widths=(4, 4, 4), seen=(4, 4)).eval()
    assert isinstance(network, Game)
    assert network.length == 4 + 4**2 + 8**2 + 16**2
    for layer in network.generator.layers:  # type: ignore[union-attr]
        nn.init.ones_(layer.strength)
    noise = torch.randn(1, network.length)
    image = network(noise, torch.tensor([3]))
    assert image.shape == (1, 1, 16, 16)
    for part in (slice(0, 4), slice(4, 20), slice(20, 84), slice(84, 340)):
        other = noise.clone()
        other[:, part] += 1
        assert not torch.allclose(network(other, torch.tensor([3])), image, atol=1e-4)
    assert not torch.allclose(network(noise, torch.tensor([4])), image, atol=1e-4)


def test_spreads_are_standard_deviations_within_a_label() -> None:
    torch.manual_seed(0)
    features, label = torch.randn(7, 5), torch.tensor([0, 3, 0, 3, 3, 1, 0])
    for row, each in enumerate(spreads(features, label)):
        wanted = features[label == label[row]].std(0, correction=0)
        assert torch.allclose(each, wanted, atol=2e-4)


def test_the_critic_compares_an_image_with_those_of_its_label_alone() -> None:
    torch.manual_seed(0)
    critic, images = ComparingCritic(10, (4, 4)), torch.randn(4, 1, 16, 16)
    label, copies = torch.tensor([2, 2, 5, 5]), images[[0, 0, 2, 3]]
    scores, among_copies = critic(images, label), critic(copies, label)
    assert not torch.isclose(scores[0], among_copies[0], atol=1e-3)
    assert torch.allclose(scores[2:], among_copies[2:], atol=1e-5)
