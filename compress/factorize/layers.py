"""The linear layers of a module: which are meant, what they see, and how two thin ones take one's place."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compress.calibration import drawn_rows
from compress.errors import StepError
from models.sources.source import SourceModel
from runtime.processing import Array

BATCH = 16
# X^T X of a layer this wide takes 512 MiB in float64, and its factorization as much again.
WIDEST = 8192


class LowRankLinear(nn.Module):
    """`up(down(x))`, in the place of one linear layer; the bias is `up`'s."""

    def __init__(self, in_features: int, out_features: int, rank: int, bias: bool) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.down = nn.Linear(in_features, rank, bias=False)
        self.up = nn.Linear(rank, out_features, bias=bias)

    @property
    def weight(self) -> Tensor:
        """The product, for modules that look at a layer's weight instead of calling it."""
        return self.up.weight @ self.down.weight

    @property
    def bias(self) -> nn.Parameter | None:
        """The bias, for the same."""
        return self.up.bias

    def forward(self, x: Tensor) -> Tensor:
        """x float32 [..., in] to [..., out]."""
        result: Tensor = self.up(self.down(x))
        return result


def linear_layers(module: nn.Module) -> dict[str, nn.Linear]:
    """Every linear layer by name whose weight is its own.

    One that shares its weight with an embedding or another layer would add parameters instead of saving them.
    Subclasses, such as torch's attention projections, are read past their forward: they stay.
    """
    owners: dict[int, int] = {}
    for _, parameter in module.named_parameters(remove_duplicate=False):
        owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    return {
        name: layer
        for name, layer in module.named_modules()
        if type(layer) is nn.Linear and owners.get(id(layer.weight)) == 1
    }


def replace_layer(module: nn.Module, name: str, rank: int) -> LowRankLinear:
    """Put two thin layers, with fresh weights, in the place of the linear layer `name`."""
    old = module.get_submodule(name)
    assert isinstance(old, nn.Linear)
    new = LowRankLinear(old.in_features, old.out_features, rank, old.bias is not None).eval()
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, new)
    return new


def fill(new: LowRankLinear, old: nn.Linear, up: Tensor, down: Tensor) -> None:
    """Give the thin layers their weights, and the old one's bias."""
    with torch.no_grad():
        new.up.weight.copy_(up)
        new.down.weight.copy_(down)
        if new.up.bias is not None:
            new.up.bias.copy_(old.bias)


def grams(source: SourceModel, names: Sequence[str], samples: int, seed: int) -> dict[str, Tensor]:
    """X^T X float64 [in, in] of every named layer's inputs over `samples` training examples.

    Padding does not count. Raises StepError for too few examples, and for a layer that sees none of them.
    """
    assert source.module is not None
    layers = {name: source.module.get_submodule(name) for name in names}
    found: dict[str, Tensor] = {}
    with _watched(layers, found) as mask, torch.inference_mode():
        for batch in _examples(source, samples, seed):
            mask[:] = [batch["attention_mask"]] if "attention_mask" in batch else []
            source.module(*(batch[name] for name in source.input_names))
    for name in names:
        if name not in found or not found[name].any():
            raise StepError(f"factorize: no calibration input reaches '{name}'; exclude it, or use svd")
    return found


@contextmanager
def _watched(layers: Mapping[str, nn.Module], found: dict[str, Tensor]) -> Iterator[list[Tensor]]:
    """Sums X^T X of each layer's inputs into `found` by name; yields where the batch's mask goes."""
    mask: list[Tensor] = []

    def hook(name: str) -> Any:
        def add(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0]
            kept = x[mask[0].bool()] if mask and x.shape[:2] == mask[0].shape else x.flatten(0, -2)
            product = kept.double().T @ kept.double()
            found[name] = found[name] + product if name in found else product

        return add

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield mask
    finally:
        for handle in handles:
            handle.remove()


def example_rows(source: SourceModel, samples: int, seed: int) -> list[Array]:
    """Row numbers of `samples` training examples, in batches. Raises StepError for too few, or none."""
    if source.dataset is None:
        raise StepError(f"{source.reference}: this algorithm needs calibration data; give 'data', or use svd")
    return drawn_rows("factorize", source.dataset, samples, BATCH, seed)


def _examples(source: SourceModel, samples: int, seed: int) -> Iterator[dict[str, Tensor]]:
    rows = example_rows(source, samples, seed)
    assert source.dataset is not None
    split = source.dataset.train
    for part in rows:
        yield {name: torch.from_numpy(split.inputs[name][part]) for name in source.input_names}
