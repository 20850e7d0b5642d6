"""The optimizers and their parameter groups, and the learning rate along a run.

It holds no state beyond torch's own optimiser, so that a checkpoint needs nothing from here.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from models.errors import MissingExtra, TrainingError
from models.large_batch import Lamb, Lars
from models.registry import TrainingRecipe


def build_optimizer(module: nn.Module, recipe: TrainingRecipe) -> Optimizer:
    """`recipe.optimizer` over the trainable parameters; AdamW is Loshchilov and Hutter's, arXiv:1711.05101.

    A parameter's peak rate is that of the first of `recipe.rates` whose text is part of its name, else
    `recipe.learning_rate`. Vectors (biases, norms) are not decayed.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = recipe.weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((_peak(name, recipe), decay), []).append(parameter)
    return _optimizer(
        recipe,
        [
            {"params": parameters, "peak": peak, "lr": peak, "weight_decay": decay}
            for (peak, decay), parameters in groups.items()
        ],
    )


def _optimizer(recipe: TrainingRecipe, groups: list[dict[str, Any]]) -> Optimizer:
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=recipe.betas, fused=True)
    if recipe.optimizer == "lamb":
        return Lamb(groups, betas=recipe.betas)
    if recipe.optimizer == "lars":
        return Lars(groups, momentum=recipe.betas[0])
    return _bitsandbytes(recipe, groups)


def _bitsandbytes(recipe: TrainingRecipe, groups: list[dict[str, Any]]) -> Optimizer:
    """AdamW with 8-bit state (Dettmers et al., arXiv:2110.02861), or with state that leaves a full GPU."""
    if recipe.optimizer == "paged-adamw" and not torch.cuda.is_available():
        raise TrainingError("paged-adamw pages out of a GPU's memory, and there is none; use adamw-8bit")
    try:
        from bitsandbytes import optim
    except ImportError:
        raise MissingExtra(
            f"{recipe.optimizer} needs bitsandbytes; pip install 'modelpress[compress]'"
        ) from None
    kind = optim.AdamW8bit if recipe.optimizer == "adamw-8bit" else optim.PagedAdamW
    optimizer: Optimizer = kind(groups, betas=recipe.betas)
    return optimizer


def set_learning_rate(optimizer: Optimizer, recipe: TrainingRecipe, progress: float) -> None:
    """Set every group's rate for `progress` in [0, 1]."""
    share = schedule(progress, recipe.warmup)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share


def schedule(progress: float, warmup: float) -> float:
    """Share of the peak rate: linear warm-up over `warmup`, then a cosine to zero (arXiv:1608.03983)."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def _peak(name: str, recipe: TrainingRecipe) -> float:
    return next((rate for part, rate in recipe.rates if part in name), recipe.learning_rate)
