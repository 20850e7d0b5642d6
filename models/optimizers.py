"""AdamW's parameter groups, and the learning rate along a run.

It holds no state beyond torch's own optimiser, so that a checkpoint needs nothing from here.
"""

import math

import torch
from torch import nn
from torch.optim import Optimizer

from models.registry import TrainingRecipe


def build_optimizer(module: nn.Module, recipe: TrainingRecipe) -> Optimizer:
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101) over the trainable parameters.

    A parameter's peak rate is that of the first of `recipe.rates` whose text is part of its name, else
    `recipe.learning_rate`. Vectors (biases, norms) are not decayed.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = recipe.weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((_peak(name, recipe), decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "peak": peak, "lr": peak, "weight_decay": decay}
            for (peak, decay), parameters in groups.items()
        ],
        betas=recipe.betas,
        fused=True,
    )


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
