"""Pruning a whole network at once.

By magnitude: weights alone decide. By Wanda and SparseGPT: collect a layer's inputs, prune it, go on to the
next.
"""

import sys
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from compress.errors import StepError
from compress.prune import masks, sparsegpt
from compress.prune.calibrate import Batch, execution_order, input_grams
from compress.prune.config import NM, Magnitude, Pattern, SparseGPT, Wanda
from compress.prune.layers import Layers, refuse_empty, weight_of
from compress.step import Figures


def prune_by_magnitude(layers: Layers, config: Magnitude | NM) -> None:
    """Prune `layers` in place by their own weights; for a gradual schedule, only see that it can be done.

    Raises StepError where a layer would be left empty.
    """
    weights = {name: weight_of(layer) for name, layer in layers.items()}
    if isinstance(config, NM):
        n, m = config.pattern.n, config.pattern.m
        kept = {name: masks.keep_pattern_of_weight(weight, n, m) for name, weight in weights.items()}
    else:
        kept = refuse_empty(masks.magnitude_masks(weights, config.ratio, config.scope))
        if config.gradual:
            return
    with torch.no_grad():
        for name, weight in weights.items():
            weight.masked_fill_(~kept[name], 0)


def prune_layers(
    module: nn.Module, layers: Layers, config: Wanda | SparseGPT, batches: Sequence[Batch]
) -> dict[str, Figures]:
    """Prune `layers` of `module` in place, in the order in which they run; figures by layer.

    `output_error` is ||X (W - W')^T|| / ||X W^T|| over the inputs that reach the layer once those before it
    are pruned; `magnitude_output_error` is the same for magnitude alone, in rows or in groups.
    """
    batches = list(batches)
    groups = execution_order(module, layers, batches[0])
    bar = Console(stderr=True)
    figures: dict[str, Figures] = {}
    for group in track(groups, config.criterion, console=bar, disable=not sys.stderr.isatty()):
        for name, gram in input_grams(module, group, batches).items():
            weight = weight_of(group.layers[name])
            pruned = prune_weight(weight.detach(), gram, config)
            plain = weight.detach().masked_fill(~_mask(weight.detach().abs(), config.amount), 0)
            figures[name] = {
                "output_error": masks.relative_output_error(weight.detach(), pruned, gram),
                "magnitude_output_error": masks.relative_output_error(weight.detach(), plain, gram),
            }
            with torch.no_grad():
                weight.copy_(pruned)
    return figures


def prune_weight(weight: Tensor, gram: Tensor, config: Wanda | SparseGPT) -> Tensor:
    """A pruned copy of `weight` [out, in]; `gram` is X^T X [in, in]."""
    amount = config.amount
    if isinstance(config, Wanda):
        return weight.masked_fill(~_mask(masks.wanda_scores(weight, gram), amount), 0)
    damping, block_size = config.damping, config.block_size
    try:
        if isinstance(amount, Pattern):
            n, m = amount.n, amount.m
            return sparsegpt.prune_by_pattern(weight, gram, n, m, damping=damping, block_size=block_size)
        return sparsegpt.prune_by_ratio(weight, gram, amount, damping=damping, block_size=block_size)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        raise StepError(
            f"prune: the Hessian of a layer of {len(gram)} inputs has no inverse; raise 'damping'"
        ) from None


def _mask(scores: Tensor, amount: float | Pattern) -> Tensor:
    if isinstance(amount, Pattern):
        return masks.keep_pattern(scores, amount.n, amount.m)
    return masks.drop_lowest_of_rows(scores, amount)
