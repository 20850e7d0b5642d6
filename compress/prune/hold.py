"""Fine-tuning around zeros: pruned weights get no gradient, and are set to zero before every step.

Both are wanted. Without the first, what pruned weights would like counts in the gradient's norm, which is
clipped; without the second, momentum from before a weight was pruned moves it away from zero.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from compress.prune.config import Magnitude
from compress.prune.layers import Layers, refuse_empty, weight_of
from compress.prune.masks import cubic_ratio, magnitude_masks

# The number of the step that begins, from 0 -> new masks by layer, or None to go on with those there are.
Renew = Callable[[int], Mapping[str, Tensor] | None]


@contextmanager
def held(layers: Layers, renew: Renew) -> Iterator[Callable[[int], None]]:
    """While it lasts, weights of `layers` that are zero stay zero, and `renew` may prune more of them.

    Yields what to call with each step's number before it. At the end the zeros are exact.
    """
    weights = {name: weight_of(layer) for name, layer in layers.items()}
    masks = {name: weight.detach() != 0 for name, weight in weights.items()}

    def before_step(step: int) -> None:
        masks.update(renew(step) or {})
        _apply(masks, weights)

    handles = [
        weight.register_hook(_masking(masks, name))  # type: ignore[no-untyped-call]
        for name, weight in weights.items()
        if weight.requires_grad
    ]
    try:
        yield before_step
        _apply(masks, weights)
    finally:
        for handle in handles:
            handle.remove()


def unchanged(step: int) -> None:
    """The `renew` of masks that were decided before training."""


def cubic_renewal(config: Magnitude, layers: Layers) -> Renew:
    """Prune by magnitude at the events of `config.gradual`, evenly spread from the first step on."""
    assert config.gradual
    assert config.finetune
    events, span = config.gradual.events, config.gradual.until * config.finetune.steps
    due = {int(span * event / events): event + 1 for event in range(events)}

    def renew(step: int) -> Mapping[str, Tensor] | None:
        if step not in due:
            return None
        weights = {name: weight_of(layer) for name, layer in layers.items()}
        ratio = cubic_ratio(config.ratio, due[step], events)
        return refuse_empty(magnitude_masks(weights, ratio, config.scope))

    return renew


def _masking(masks: Mapping[str, Tensor], name: str) -> Callable[[Tensor], Tensor]:
    return lambda gradient: gradient * masks[name]


@torch.no_grad()
def _apply(masks: dict[str, Tensor], weights: Mapping[str, nn.Parameter]) -> None:
    for name, weight in weights.items():
        # Training may have moved the weights to another device.
        masks[name] = masks[name].to(weight.device)
        weight.masked_fill_(~masks[name], 0)
