"""A module's tensors and attributes brought to given shapes, and layers taken out of a transformer.

`resize` knows shapes only, so the same function shrinks a trained module and gives a fresh one the structure
that stored weights have.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from compress.errors import StepError
from compress.shrink import transformer


def resize(module: nn.Module, shapes: Mapping[str, Sequence[int]]) -> None:
    """Give every parameter and buffer of `module` the shape that `shapes` has by its name, in place.

    The values of those that change are undefined afterwards. Sizes that layers keep as attributes follow.
    Raises StepError where a tensor would need another rank.
    """
    for path, owner in module.named_modules():
        if _resize_own(path, owner, shapes):
            _fit(owner)
    transformer.fit_attributes(module)


def drop_layers(module: nn.Module, kept: Sequence[int]) -> None:
    """Keep the layers numbered `kept` of a transformer, renumbered from 0, in place."""
    path, layers = transformer.layer_list(module)
    parent, _, name = path.rpartition(".")
    stays = nn.ModuleList(layers[index] for index in kept)
    setattr(module.get_submodule(parent), name, stays)
    numbered: Any
    for index, layer in enumerate(stays):
        for numbered in layer.modules():
            if hasattr(numbered, "layer_idx"):
                numbered.layer_idx = index
    transformer.fit_depth(module)


def stored_layers(module: nn.Module, shapes: Mapping[str, Sequence[int]]) -> int:
    """How many of a transformer's layers the stored tensors are of."""
    prefix = transformer.layer_list(module)[0] + "."
    return len({name.removeprefix(prefix).split(".")[0] for name in shapes if name.startswith(prefix)})


def _resize_own(path: str, owner: nn.Module, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Resize the tensors that `owner` itself holds; whether any changed."""
    changed = False
    own = [*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False)]
    for name, tensor in own:
        full = f"{path}.{name}" if path else name
        shape = tuple(shapes.get(full, tensor.shape))
        if shape == tuple(tensor.shape):
            continue
        if len(shape) != tensor.ndim:
            raise StepError(
                f"{full}: stored as {shape}, the model has {tuple(tensor.shape)}; run the step again"
            )
        fresh: Any = torch.empty(shape, dtype=tensor.dtype)
        if isinstance(tensor, nn.Parameter):
            fresh = nn.Parameter(fresh, requires_grad=tensor.requires_grad)
        setattr(owner, name, fresh)
        changed = True
    return changed


def _fit(layer: nn.Module) -> None:
    """Bring a layer's own sizes in line with its tensors."""
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, _ConvNd):
        # A grouped one is depthwise here: each input channel has outputs of its own.
        groups = 1 if layer.groups == 1 else layer.weight.shape[0] // (layer.out_channels // layer.groups)
        layer.groups, layer.out_channels = groups, layer.weight.shape[0]
        layer.in_channels = layer.weight.shape[1] * groups
    elif isinstance(layer, _BatchNorm):
        layer.num_features = len(layer.weight if layer.affine else layer.running_mean)  # type: ignore[arg-type]
