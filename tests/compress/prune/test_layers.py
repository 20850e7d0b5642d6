import pytest
import torch
from torch import nn

from compress.errors import StepError
from compress.prune.config import Pattern
from compress.prune.layers import (
    ALL,
    LINEAR,
    LINEAR_OR_CONVOLUTION,
    check_pattern,
    refuse_empty,
    select,
    weight_of,
)


class Tied(nn.Module):
    """An embedding that is also the head, and one layer used under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 8)
        self.first = nn.Linear(8, 8)
        self.again = self.first
        self.convolution = nn.Conv1d(8, 8, 1)
        self.head = nn.Linear(8, 12, bias=False)
        self.head.weight = self.embed.weight


def names(targets: tuple[str, ...] = ("*",), exclude: tuple[str, ...] = (), kinds=LINEAR_OR_CONVOLUTION):  # type: ignore[no-untyped-def]
    return list(select(Tied(), targets, exclude, kinds))


def test_patterns_choose_layers_by_name() -> None:
    assert names() == ["first", "convolution"]
    assert names(("f*",)) == ["first"]
    assert names(exclude=("conv*",)) == ["first"]
    assert names(kinds=LINEAR) == ["first"]


@pytest.mark.parametrize(
    ("targets", "exclude", "message"),
    [
        (("frist",), (), "targets: 'frist' matches no Linear or Conv layer; did you mean 'first'"),
        (("*",), ("xyz.*",), "exclude: 'xyz.*' matches no Linear or Conv layer; there is convolution, first"),
        (("head",), (), "'head' matches no Linear or Conv layer"),
        (("f*",), ("first",), "every layer that 'targets' match is excluded"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused_by_name(
    targets: tuple[str, ...], exclude: tuple[str, ...], message: str
) -> None:
    with pytest.raises(StepError) as caught:
        names(targets, exclude)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_message_stays_short_for_a_deep_model() -> None:
    deep = nn.Sequential(*[nn.Linear(2, 2) for _ in range(200)])
    with pytest.raises(StepError, match="and 194 more") as caught:
        select(deep, ("nothing*",), (), LINEAR)
    assert len(str(caught.value)) < 200


def test_a_network_without_such_layers_is_refused() -> None:
    with pytest.raises(StepError, match="LSTM has no Linear layer"):
        select(nn.LSTM(2, 2), ("*",), (), LINEAR)


def test_the_matrices_of_a_recurrent_layer_are_its_own_parameters() -> None:
    network = nn.ModuleDict({"gru": nn.GRU(4, 3, num_layers=2), "head": nn.Linear(3, 2)})
    found = select(network, ("*",), (), ALL)
    matrices = [f"gru.weight_{part}_l{layer}" for layer in (0, 1) for part in ("ih", "hh")]
    assert list(found) == [*matrices, "head"]
    for name in matrices:
        assert weight_of(found[name]) is network.get_parameter(name)
    assert list(select(network, ("*hh*",), (), ALL)) == [matrices[1], matrices[3]]


def test_a_weight_that_is_computed_is_none_to_prune() -> None:
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4))
    assert list(select(normed, ("*",), (), LINEAR)) == ["1"]


def test_inputs_that_groups_do_not_divide_are_refused_by_name() -> None:
    layers = {"good": nn.Linear(8, 3), "odd": nn.Linear(10, 4), "narrow": nn.Conv2d(3, 8, 3)}
    with pytest.raises(StepError, match=r"groups of 4 .* odd \(10\), narrow \(3\); list them in 'exclude'"):
        check_pattern(layers, Pattern())


def test_a_layer_is_never_left_empty() -> None:
    with pytest.raises(StepError, match="nothing would be left of small; lower it"):
        refuse_empty(
            {"small": torch.zeros(2, 2, dtype=torch.bool), "large": torch.ones(2, 2, dtype=torch.bool)}
        )
