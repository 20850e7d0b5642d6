"""Which layers a step prunes: patterns over module names, and refusals by name. It changes nothing."""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from compress.errors import StepError
from compress.patterns import select_names, some
from compress.prune.config import Pattern

LINEAR: tuple[type[nn.Module], ...] = (nn.Linear,)
LINEAR_OR_CONVOLUTION = (*LINEAR, nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Recurrent layers have several matrices, each of which counts as a layer.
ALL = (*LINEAR_OR_CONVOLUTION, nn.RNNBase)

Layers = Mapping[str, nn.Module]


class Matrix(nn.Module):
    """One matrix of a recurrent layer, with that layer's own parameter for a weight; it is never called."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight


def select(
    module: nn.Module, targets: Sequence[str], exclude: Sequence[str], kinds: tuple[type[nn.Module], ...]
) -> dict[str, nn.Module]:
    """The layers of `kinds` by name, those that `targets` match less those that `exclude` matches.

    A layer whose weight is also something else's, such as a head tied to its embedding, is not one of them;
    layers that share a weight count once. A matrix of a recurrent layer has its parameter's name, such as
    `gru.weight_hh_l0`. Raises StepError for a pattern that matches nothing.
    """
    candidates = _candidates(module, kinds)
    what = " or ".join(dict.fromkeys(_called(kind) for kind in kinds))
    if not candidates:
        raise StepError(f"prune: {type(module).__name__} has no {what} layer of its own; leave the step out")
    chosen = select_names("prune", f"{what} layer", list(candidates), targets, exclude)
    return {name: candidates[name] for name in chosen}


def weight_of(layer: nn.Module) -> nn.Parameter:
    """The weight [out, in, ...kernel] of a linear layer or a convolution."""
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    return weight


def refuse_empty(masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """`masks` as they are. Raises StepError for one that leaves nothing of its layer."""
    empty = [name for name, mask in masks.items() if not mask.any()]
    if empty:
        raise StepError(
            f"prune: ratio: nothing would be left of {some(empty)}; "
            "lower it, or use 'scope: layer' or 'exclude'"
        )
    return masks


def check_pattern(layers: Layers, pattern: Pattern) -> None:
    """Refuse layers whose inputs do not come in whole groups. Raises StepError."""
    odd = {name: weight_of(layer).shape[1] for name, layer in layers.items()}
    odd = {name: inputs for name, inputs in odd.items() if inputs % pattern.m}
    if odd:
        listed = some(f"{name} ({inputs})" for name, inputs in odd.items())
        raise StepError(
            f"prune: pattern: groups of {pattern.m} do not divide the inputs of {listed}; "
            "list them in 'exclude'"
        )


def _candidates(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> dict[str, nn.Module]:
    shared = {
        id(parameter)
        for each in module.modules()
        if not isinstance(each, kinds)
        for parameter in each.parameters(recurse=False)
    }
    found: dict[str, nn.Module] = {}
    for name, layer in _weighted(module, kinds):
        # A weight that is computed, as by torch's parametrizations, is no parameter that could be set.
        if isinstance(layer.weight, nn.Parameter) and id(layer.weight) not in shared:
            shared.add(id(layer.weight))
            found[name] = layer
    return found


def _weighted(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> Iterator[tuple[str, nn.Module]]:
    """Everything in `module` that has a `weight` of its own, by name."""
    for name, layer in module.named_modules():
        if not isinstance(layer, kinds):
            continue
        if not isinstance(layer, nn.RNNBase):
            yield name, layer
            continue
        for parameter, weight in layer.named_parameters(recurse=False):
            if weight.ndim == 2:
                yield f"{name}.{parameter}".lstrip("."), Matrix(weight)


def _called(kind: type[nn.Module]) -> str:
    return "recurrent" if kind is nn.RNNBase else kind.__name__.rstrip("123d")
