"""Shrunk convolutional nets compute what masked ones do.

The mask here is put on the other side than in the code: on what writes and carries the channels. In nets
whose activations keep zero at zero, that silences them as well, whoever reads them.
"""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from compress.errors import StepError
from compress.shrink.convolutional import channel_units
from compress.shrink.surgery import resize
from compress.shrink.units import Units, cut_out


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.second_norm = nn.Conv2d(8, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.pool = nn.MaxPool2d(2)
        self.hidden, self.hidden_norm = nn.Linear(6 * 9, 10), nn.BatchNorm1d(10)
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first_norm(self.first(x)))
        x = self.pool(torch.relu(self.second_norm(self.second(x))))
        return self.head(torch.relu(self.hidden_norm(self.hidden(x.view(x.size(0), -1)))))


class Residual(nn.Module):
    """Two blocks on one stream, and a third that changes its width through a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.one = nn.Sequential(
            nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 8, 1)
        )
        self.two = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.three, self.project = nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.Conv2d(8, 16, 1, stride=2)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.one(x))
        x = torch.relu(self.two(x) + x)
        x = torch.relu(self.three(x) + self.project(x))
        return self.head(x.mean([2, 3]))


class Inverted(nn.Module):
    """An inverted residual: a depthwise convolution, squeeze-and-excitation; then two outputs a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.expand_norm = nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.depthwise, self.norm = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.widen = nn.Conv2d(8, 16, 3, groups=8)
        self.project = nn.Conv2d(16, 6, 1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self.expand_norm(self.expand(x)))
        x = nn.functional.hardswish(self.norm(self.depthwise(x)))
        gate = self.excite(torch.relu(self.squeeze(nn.functional.adaptive_avg_pool2d(x, 1))))
        return self.head(torch.relu(self.project(self.widen(x * torch.sigmoid(gate)))))


class Dense(nn.Module):
    """Branches that are concatenated, one of them twice, then flattened over space."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(3, 7, 1)
        self.norm = nn.BatchNorm2d(20)
        self.mix = nn.Conv2d(20, 6, 3)
        self.head = nn.Linear(6 * 36 + 3 * 64, 4)

    def forward(self, image: Tensor) -> Tensor:
        left, right = torch.relu(self.left(image)), torch.relu(self.right(image))
        x = self.norm(torch.cat([left, right, image, left], dim=1))
        x = torch.relu(self.mix(torch.relu(x)))
        return self.head(torch.cat((torch.flatten(x, 1), image.flatten(1)), 1))


def prepared(network: type[nn.Module]) -> nn.Module:
    """In evaluation mode, with random weights everywhere and batch norms that moved."""
    torch.manual_seed(0)
    module = network()
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif tensor.ndim:
            tensor.normal_(0, 0.3)
    return module.eval()


def example() -> Tensor:
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def dropped(units: Units) -> Tensor:
    return torch.arange(0, units.count - 1, 2)


def masked_at_the_source(module: nn.Module, found: list[Units]) -> nn.Module:
    """Zeros in what writes and carries the units that go. Of a batch norm, the variance stays as it is."""
    masked = deepcopy(module)
    state = masked.state_dict()
    for units in found:
        for cut in units.cuts:
            if cut.role != "reads" and not cut.tensor.endswith("running_var"):
                state[cut.tensor].index_fill_(cut.axis, cut.indices(dropped(units)), 0.0)
    return masked


def shrunk(module: nn.Module, found: list[Units]) -> nn.Module:
    smaller = deepcopy(module)
    state = cut_out(module.state_dict(), [(units, dropped(units)) for units in found])
    resize(smaller, {name: tuple(tensor.shape) for name, tensor in state.items()})
    smaller.load_state_dict(state)
    return smaller


GROUPS = {
    Plain: {"first", "second", "hidden"},
    Residual: {"stem+one.3+two.0", "one.0", "three+project"},
    Inverted: {"expand+excite", "squeeze", "project"},
    Dense: {"left", "right", "mix"},
}


@pytest.mark.parametrize("network", [Plain, Residual, Inverted, Dense])
def test_a_shrunk_net_computes_what_the_masked_one_does(network: type[nn.Module]) -> None:
    module, x = prepared(network), example()
    found, whole = channel_units(module, [x])
    smaller, masked = shrunk(module, found), masked_at_the_source(module, found)
    torch.testing.assert_close(smaller(x), masked(x), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(smaller(x), module(x), rtol=1e-2)
    count = [sum(p.numel() for p in each.parameters()) for each in (smaller, module)]
    assert count[0] < 0.8 * count[1]
    assert set(whole) == {"head"} or set(whole) == {"head.2"}


@pytest.mark.parametrize("network", [Plain, Residual, Inverted, Dense])
def test_groups_are_what_depends_on_each_other(network: type[nn.Module]) -> None:
    found, _ = channel_units(prepared(network), [example()])
    assert {units.name for units in found} == GROUPS[network]


def test_layers_know_their_new_sizes() -> None:
    module = prepared(Inverted)
    found, _ = channel_units(module, [example()])
    smaller = shrunk(module, [units for units in found if "expand" in units.name])
    depthwise = smaller.get_submodule("depthwise")
    assert (depthwise.in_channels, depthwise.out_channels, depthwise.groups) == (4, 4, 4)
    widen = smaller.get_submodule("widen")
    assert (widen.in_channels, widen.out_channels, widen.groups) == (4, 8, 4)
    assert smaller.get_submodule("norm").num_features == 4
    assert smaller.get_submodule("squeeze").in_channels == 4


class Partly(nn.Module):
    """Two convolutions and a head; between the convolutions, something of a kind to be told apart."""

    def __init__(self, between: Callable[[Tensor], Tensor] | nn.Module) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.between = between
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.two(self.between(self.one(x)))).mean((-1, -2)))


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (lambda x: x.softmax(1), "softmax"),
        (nn.GroupNorm(2, 8), "between (GroupNorm)"),
        (nn.PReLU(8), "between (PReLU)"),
        (nn.Conv2d(8, 8, 3, padding=1, groups=2), "between (Conv2d)"),
        (lambda x: x * x.mean(1, keepdim=True), "mean"),
        (lambda x: x + x.shape[1], "getattr"),
        (lambda x: x.view(-1, 8, 8, 8), "view"),
        (lambda x: torch.cat([x[:, 4:], x[:, :4]], 1), "getitem"),
        (lambda x: x.flip(1), "flip"),
    ],
)
def test_what_mixes_channels_keeps_them_whole_and_is_named(
    between: Callable[[Tensor], Tensor], reason: str
) -> None:
    found, whole = channel_units(Partly(between).eval(), [example()])
    assert [units.name for units in found] == ["two"]
    assert f"'{reason}' is not known" in whole["one"]


def test_a_layer_that_runs_twice_and_a_shared_weight_stay_whole() -> None:
    twice = nn.Conv2d(8, 8, 3, padding=1)
    found, _ = channel_units(Partly(nn.Sequential(twice, nn.ReLU(), twice)).eval(), [example()])
    assert [units.name for units in found] == ["two"]
    tied = Partly(nn.ReLU())
    tied.one = nn.Conv2d(8, 8, 3, padding=1)
    tied.two.weight = tied.one.weight
    with_eight = torch.randn(2, 8, 8, 8)
    assert channel_units(tied.eval(), [with_eight])[0] == []


def test_a_forward_that_branches_is_refused() -> None:
    with pytest.raises(
        StepError, match=r"Partly: torch\.fx cannot trace it \(.*without branches on its inputs"
    ):
        channel_units(Partly(lambda x: x if x.sum() > 0 else -x), [example()])
