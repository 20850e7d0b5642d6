"""Optimizers for large batches: LARS and LAMB, which set each tensor's step by the ratio of its norms.

Sources: You et al., Large batch training of convolutional networks, 2017, arXiv:1708.03888 (LARS, with
momentum as in algorithm 1); You et al., Large batch optimization for deep learning, 2019, arXiv:1904.00962
(LAMB, algorithm 2, with bias correction). bitsandbytes has classes of these names that clip an update's norm
instead. Vectors, which are not decayed, take no ratio either, as is usual for both.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

# LARS's trust coefficient; LAMB has none.
LARS_TRUST = 1e-3
EPSILON = 1e-6


class Lars(Optimizer):
    """v = m v + rate * ratio * (g + decay w); w -= v, where ratio = trust ||w|| / (||g|| + decay ||w||)."""

    def __init__(self, groups: Iterable[dict[str, Any]], momentum: float = 0.9) -> None:
        super().__init__(groups, {"momentum": momentum, "weight_decay": 0.0, "lr": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step on every parameter with a gradient."""
        for group, parameter in _with_gradients(self):
            weight, decay = parameter, group["weight_decay"]
            assert weight.grad is not None
            update = weight.grad.add(weight, alpha=decay)
            scale = weight.grad.norm() + decay * weight.norm()
            ratio = LARS_TRUST * _ratio(weight.norm(), scale) if weight.ndim > 1 else 1.0
            state = self.state[weight]
            if not state:
                state["velocity"] = torch.zeros_like(weight)
            state["velocity"].mul_(group["momentum"]).add_(update * ratio, alpha=group["lr"])
            weight.sub_(state["velocity"])


class Lamb(Optimizer):
    """w -= rate * ||w|| / ||u|| * u, where u = m / (sqrt(v) + eps) + decay w, m and v Adam's."""

    def __init__(self, groups: Iterable[dict[str, Any]], betas: tuple[float, float] = (0.9, 0.999)) -> None:
        super().__init__(groups, {"betas": betas, "weight_decay": 0.0, "lr": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step on every parameter with a gradient."""
        for group, weight in _with_gradients(self):
            update = self._adam(weight, group["betas"]).add_(weight, alpha=group["weight_decay"])
            ratio = _ratio(weight.norm(), update.norm()) if weight.ndim > 1 else 1.0
            weight.sub_(update * ratio, alpha=group["lr"])

    def _adam(self, weight: Tensor, betas: tuple[float, float]) -> Tensor:
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state |= {"step": torch.zeros(()), "mean": torch.zeros_like(weight)}
            state["square"] = torch.zeros_like(weight)
        state["step"] += 1
        state["mean"].lerp_(weight.grad, 1 - betas[0])
        state["square"].lerp_(weight.grad.square(), 1 - betas[1])
        corrections = [1 - beta ** float(state["step"]) for beta in betas]
        root = (state["square"] / corrections[1]).sqrt_().add_(EPSILON)
        result: Tensor = state["mean"] / corrections[0] / root
        return result


def _ratio(weight: Tensor, update: Tensor) -> Tensor:
    """1 where either norm is zero, as both papers' code has it."""
    usable = (weight > 0) & (update > 0)
    return torch.where(usable, weight / update.clamp(min=torch.finfo(update.dtype).tiny), 1.0)


def _with_gradients(optimizer: Optimizer) -> Iterable[tuple[dict[str, Any], Tensor]]:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                yield group, parameter
