import pytest
import torch
from torch import Tensor, nn

from compress.errors import StepError
from compress.prune.calibrate import execution_order, input_grams
from compress.prune.config import Wanda
from compress.prune.oneshot import prune_layers


class Branches(nn.Module):
    """Two layers on one tensor, then one used twice; declared in another order, one never used."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.twice = nn.Linear(4, 4)
        self.right = nn.Linear(4, 4)
        self.left = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)
        self.finished = 0

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        x = x + 0
        y = torch.relu(self.left(x) * self.right(input=x))
        y = self.twice(self.twice(y))
        self.finished += 1
        return y


def layers(network: Branches, *names: str) -> dict[str, nn.Module]:
    return {name: getattr(network, name) for name in names}


@pytest.fixture
def batches() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    return [
        {"x": torch.randn(2, 5, 4, generator=generator), "attention_mask": mask.roll(i, 0)} for i in range(3)
    ]


def test_layers_come_in_the_order_in_which_they_run(batches: list[dict[str, Tensor]]) -> None:
    network = Branches()
    groups = execution_order(network, layers(network, "twice", "right", "left"), batches[0])
    assert [(list(group.layers), group.calls) for group in groups] == [(["left", "right"], 2), (["twice"], 2)]


def test_a_layer_that_never_runs_is_refused_by_name(batches: list[dict[str, Tensor]]) -> None:
    network = Branches()
    with pytest.raises(StepError, match="unused is not called with the calibration data; list it"):
        execution_order(network, layers(network, "left", "unused"), batches[0])


def test_a_gram_is_over_every_row_that_is_no_padding(batches: list[dict[str, Tensor]]) -> None:
    network = Branches()
    groups = execution_order(network, layers(network, "left", "right", "twice"), batches[0])
    network.finished = 0
    first, second = (input_grams(network, group, batches) for group in groups)
    assert network.finished == 0
    rows = torch.cat([batch["x"][batch["attention_mask"].bool()] for batch in batches]).double()
    assert len(rows) == 24
    torch.testing.assert_close(first["left"], rows.T @ rows)
    torch.testing.assert_close(first["right"], rows.T @ rows)
    with torch.no_grad():
        rows = rows.float()
        hidden = torch.relu(network.left(rows) * network.right(rows))
        both = torch.cat([hidden, network.twice(hidden)]).double()
    torch.testing.assert_close(second["twice"], both.T @ both)


def test_later_layers_see_the_earlier_ones_pruned(batches: list[dict[str, Tensor]]) -> None:
    network, twin = Branches(), Branches()
    config = Wanda(criterion="wanda", ratio=0.5)
    figures = prune_layers(network, layers(network, "twice", "left", "right"), config, batches)
    prune_layers(twin, layers(twin, "left", "right"), config, batches)
    assert torch.equal(network.left.weight, twin.left.weight)
    alone = prune_layers(twin, layers(twin, "twice"), config, batches)
    assert torch.equal(network.twice.weight, twin.twice.weight)
    assert alone["twice"] == figures["twice"]
    assert not network.left._forward_pre_hooks
