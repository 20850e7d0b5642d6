"""AWQ and SmoothQuant on a graph: scales found from statistics, moved by `migration`. It reads no data."""

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto

from compress.errors import StepError
from compress.quantize.awq import search_scales
from compress.quantize.blockwise import Floats
from compress.quantize.config import SmoothConfig, WeightOnly
from compress.quantize.gptq import Doubles
from compress.quantize.graph import is_sensitive, shared_weights, stored_weights
from compress.quantize.migration import Migration, migrate
from compress.quantize.smoothquant import migration_scales


def scale_for_rounding(
    model: ModelProto, config: WeightOnly, products: Mapping[str, Doubles]
) -> tuple[dict[str, Doubles], dict[str, float]]:
    """Scale weights of `model` in place by AWQ, given `products` X^T X by tensor X.

    Returns the products of the tensors as they are afterwards, and figures.
    """
    chosen: dict[str, Floats] = {}
    heads = _head_inputs(model)

    def choose(tensor: str, weights: Sequence[Floats]) -> Floats | None:
        if tensor in heads:  # it has bits enough
            return None
        chosen[tensor] = search_scales(weights, products[tensor], config.bits, config.group_size)
        return chosen[tensor]

    moved = migrate(model, choose)
    after = dict(products)
    for tensor, scales in chosen.items():
        after[moved.renamed.get(tensor, tensor)] = products[tensor] / np.outer(scales, scales)
    return after, _figures(moved)


def smooth(model: ModelProto, config: SmoothConfig, peaks: Mapping[str, Floats]) -> dict[str, float]:
    """Move outliers of activations into weights of `model` in place, given `peaks` max|X| [in] by tensor X.

    Raises StepError where nothing can be moved.
    """
    moved = migrate(
        model, lambda tensor, weights: migration_scales(peaks[tensor], list(weights), config.alpha)
    )
    if not moved.folded and not moved.renamed:
        raise StepError(
            "quantize: smooth: no layer of this model reads a norm's or a linear layer's output; leave it out"
        )
    return _figures(moved)


def _head_inputs(model: ModelProto) -> set[str]:
    shared = shared_weights(model, stored_weights(model))
    return {use.activation for uses in shared if is_sensitive(model, uses) for use in uses}


def _figures(moved: Migration) -> dict[str, float]:
    return {"scalings_folded": moved.folded, "scalings_multiplied": len(moved.renamed)}
