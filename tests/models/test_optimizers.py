import pytest
import torch
from torch import nn

from models.errors import TrainingError
from models.optimizers import build_optimizer, schedule, set_learning_rate
from models.registry import TrainingRecipe

RECIPE = TrainingRecipe(
    steps=10, batch_size=1, learning_rate=1e-3, rates=(("embedding", 0.1), ("norm", 0.2)), weight_decay=0.5
)


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, 4)
        self.hidden = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 8, bias=False)


def settings(module: nn.Module) -> dict[str, tuple[float, float]]:
    """Each parameter's (rate, weight decay)."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = build_optimizer(module, RECIPE).param_groups
    return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_the_schedule_warms_up_linearly_and_falls_as_a_cosine() -> None:
    assert [schedule(progress, 0.1) for progress in (0.0, 0.05, 0.1)] == [0.0, 0.5, 1.0]
    assert schedule(0.55, 0.1) == pytest.approx(0.5)
    assert schedule(1.0, 0.1) == pytest.approx(0.0)
    assert schedule(0.0, 0.0) == 1.0


def test_rates_go_by_name_and_vectors_are_not_decayed() -> None:
    assert settings(Language()) == {
        "embedding.weight": (0.1, 0.5),
        "hidden.weight": (1e-3, 0.5),
        "hidden.bias": (1e-3, 0.0),
        "norm.weight": (0.2, 0.0),
        "norm.bias": (0.2, 0.0),
        "head.weight": (1e-3, 0.5),
    }


def test_a_tied_parameter_is_held_once_and_a_frozen_one_not_at_all() -> None:
    module = Language()
    module.head.weight = module.embedding.weight
    module.hidden.requires_grad_(False)
    assert sorted(settings(module)) == ["embedding.weight", "norm.bias", "norm.weight"]


def test_the_schedule_scales_every_group() -> None:
    optimizer = build_optimizer(Language(), RECIPE)
    set_learning_rate(optimizer, RECIPE, RECIPE.warmup / 2)
    assert sorted({group["lr"] for group in optimizer.param_groups}) == pytest.approx([5e-4, 0.05, 0.1])


@pytest.mark.parametrize("name", ["adamw", "lamb", "lars", "adamw-8bit"])
def test_every_optimizer_goes_down_a_bowl(name: str) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 64, bias=False)
    rate = 1.0 if name == "lars" else 0.01
    recipe = TrainingRecipe(steps=1, batch_size=1, learning_rate=rate, weight_decay=0.0, optimizer=name)  # type: ignore[arg-type]
    optimizer, before = build_optimizer(layer, recipe), float(layer.weight.square().sum())
    for _ in range(30):
        layer.weight.square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    assert float(layer.weight.square().sum()) < 0.95 * before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to page out of")
def test_a_paged_optimizer_without_a_gpu_is_refused() -> None:
    recipe = TrainingRecipe(steps=1, batch_size=1, learning_rate=0.1, optimizer="paged-adamw")
    with pytest.raises(TrainingError, match="there is none; use adamw-8bit"):
        build_optimizer(Language(), recipe)
