"""What a pruned network is said to be: how much of it is zero, overall and layer by layer."""

from collections.abc import Mapping

from torch import nn

from compress.prune.layers import Layers, weight_of
from compress.step import Figures


def sparsity_figures(module: nn.Module, layers: Layers, by_layer: Mapping[str, Figures]) -> Figures:
    """`sparsity` is the share of zeros in the pruned layers' weights; the other counts are the whole model's.

    Tied parameters count once. `by_layer` is what else is known of each layer.
    """
    weights = {name: weight_of(layer) for name, layer in layers.items()}
    zeros = {name: int((weight == 0).sum()) for name, weight in weights.items()}
    parameters = list(module.parameters())
    return {
        "parameters": sum(parameter.numel() for parameter in parameters),
        "nonzero": sum(int(parameter.count_nonzero()) for parameter in parameters),
        "sparsity": sum(zeros.values()) / sum(weight.numel() for weight in weights.values()),
        "layers": {
            name: {
                "sparsity": zeros[name] / weight.numel(),
                **by_layer.get(name, {}),
            }
            for name, weight in weights.items()
        },
    }
