"""Movement pruning: weights that training moves towards zero go, however large they are.

Sanh, Wolf and Rush, Movement pruning: adaptive sparsity by fine-tuning, 2020, arXiv:2005.07683. A pruned
weight takes no part in the network but keeps its value, and its score goes on changing, so it may come back.
Scores are the paper's sums (equation 5) at rate 1: only their order counts.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compress.errors import StepError
from compress.prune.config import Movement
from compress.prune.layers import Layers, refuse_empty
from compress.prune.masks import cubic_ratio, masks_by_score, moved


class Moving(nn.Module):
    """A weight in the forward pass: what is kept of it, with its scores collected on the way back."""

    scores: Tensor
    mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("scores", torch.zeros_like(weight), persistent=False)
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        kept = weight * self.mask
        if kept.requires_grad:
            kept.register_hook(lambda gradient: self._collect(weight, gradient))  # type: ignore[no-untyped-call]
        return kept

    @torch.no_grad()
    def _collect(self, weight: Tensor, gradient: Tensor) -> None:
        self.scores.copy_(moved(self.scores, weight, gradient))


@contextmanager
def moving(config: Movement, layers: Layers) -> Iterator[Callable[[int], None]]:
    """Yields what to call before each step. At the end the layers have plain weights with exact zeros."""
    assert config.finetune
    events, span = config.gradual.events, config.gradual.until * config.finetune.steps
    # The first event comes after some steps: before any, every score is zero.
    due = {max(1, int(span * (event + 1) / events)): event + 1 for event in range(events)}
    parts = _parametrized(layers)

    def before_step(step: int) -> None:
        if step in due:
            _renew(parts, cubic_ratio(config.ratio, due[step], events), config)

    try:
        yield before_step
    finally:
        for layer in layers.values():
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def _parametrized(layers: Layers) -> Mapping[str, Moving]:
    found = {}
    for name, layer in layers.items():
        weight: Any = layer.weight
        if not weight.requires_grad:
            raise StepError(f"prune: '{name}' is frozen, and so moves nowhere; list it in 'exclude'")
        found[name] = Moving(weight.detach())
        parametrize.register_parametrization(layer, "weight", found[name])
    return found


def _renew(parts: Mapping[str, Moving], ratio: float, config: Movement) -> None:
    masks = masks_by_score({name: part.scores for name, part in parts.items()}, ratio, config.scope)
    for name, mask in refuse_empty(masks).items():
        parts[name].mask.copy_(mask)
