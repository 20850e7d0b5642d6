"""Adapters in a torch module: put beside its linear layers by peft, merged into them, or kept apart.

peft trains; what it leaves behind is replaced by plain layers, so that the rest of the pipeline sees linear
layers, or `AdaptedLinear` where the adapter stays separate. Only linear layers are taken.
"""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import StepError
from compress.lora.config import BaseConfig, LoraConfig
from compress.lora.merging import merged_dora, merged_weight
from compress.patterns import select_names, some
from models.errors import MissingExtra

# The name that peft knows the one adapter by.
ADAPTER = "trained"


class AdaptedLinear(nn.Module):
    """A linear layer with its adapter beside it: base(x) + lora_B(lora_A(x)), the scaling folded into B.

    `adapter` is the name that the adapter will be served by.
    """

    def __init__(self, base: nn.Linear, rank: int, adapter: str) -> None:
        super().__init__()
        self.base, self.adapter = base, adapter
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x float32 [..., in] to [..., out]."""
        result: Tensor = self.base(x) + self.lora_B(self.lora_A(x))
        return result


def target_layers(module: nn.Module, config: LoraConfig) -> dict[str, nn.Linear]:
    """The linear layers that `config` names. Raises StepError for a pattern without any, or too high a rank.

    Not among them: the output layer of a language model, whose adapter would be as wide as the vocabulary,
    and layers that share their weight, which a merge would tear apart.
    """
    candidates = _candidates(module)
    if not candidates:
        raise StepError(
            f"lora: {type(module).__name__} has no linear layer of its own to adapt; leave the step out"
        )
    names = select_names("lora", "linear layer", list(candidates), config.targets, config.exclude)
    low = {name: min(candidates[name].weight.shape) for name in names}
    low = {name: full for name, full in low.items() if config.rank > full}
    if low:
        listed = some(f"{name} ({full})" for name, full in low.items())
        raise StepError(
            f"lora: rank {config.rank} is above the full rank of {listed}; lower it, or exclude them"
        )
    return {name: candidates[name] for name in names}


def quantize_base(module: nn.Module, layers: Mapping[str, nn.Linear], config: BaseConfig) -> None:
    """Put bitsandbytes' 4-bit layers in the place of `layers`, which compute what nf4 and fp4 serve."""
    bnb = _bitsandbytes()
    for name, layer in layers.items():
        biased = layer.bias is not None
        quantized = bnb.nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=biased,
            compute_dtype=torch.float32,
            quant_type=config.scheme,
            compress_statistics=False,
        )
        # In evaluation it would repack itself for CPUs with bfloat16, with scales of eight bits' precision.
        quantized.support_avx512bf16_for_cpu = False
        weight = layer.weight.detach()
        quantized.weight = bnb.nn.Params4bit(
            weight.clone(),
            requires_grad=False,
            quant_type=config.scheme,
            blocksize=config.block_size,
            compress_statistics=False,
        )
        if biased:
            quantized.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
        # Moving it is what quantizes it.
        replace_module(module, name, quantized.to("cpu"))


def add_adapters(module: nn.Module, names: Sequence[str], config: LoraConfig, seed: int) -> None:
    """Put peft's adapters beside the layers `names`, in place; nothing else of the module learns any more."""
    try:
        import peft
    except ImportError:
        raise MissingExtra("lora needs peft; pip install 'modelpress[compress]'") from None
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        use_dora=config.dora,
        target_modules="|".join(re.escape(name) for name in names),
    )
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, module, adapter_name=ADAPTER)


@torch.no_grad()
def merge_adapters(module: nn.Module, names: Sequence[str]) -> None:
    """Each adapted layer becomes one linear layer with the float32 weight that both amounted to."""
    for name in names:
        layer: Any = module.get_submodule(name)
        replace_module(module, name, _linear(layer.get_base_layer(), merged(layer)))


@torch.no_grad()
def separate_adapters(module: nn.Module, names: Sequence[str], adapter: str) -> None:
    """Each adapted layer becomes an `AdaptedLinear` over the float32 weight that it was trained over."""
    for name in names:
        layer: Any = module.get_submodule(name)
        a, b = _factors(layer)
        base = layer.get_base_layer()
        apart = AdaptedLinear(_linear(base, base_weight(base)), len(a), adapter)
        apart.lora_A.weight.copy_(a)
        apart.lora_B.weight.copy_(layer.scaling[ADAPTER] * b)
        replace_module(module, name, apart.eval())


def merged(layer: Any) -> Tensor:
    """The weight [out, in] that peft's `layer` computes with, float32."""
    a, b = _factors(layer)
    weight, scaling = base_weight(layer.get_base_layer()), float(layer.scaling[ADAPTER])
    if ADAPTER in layer.lora_magnitude_vector:
        magnitude = layer.lora_magnitude_vector[ADAPTER].weight.detach()
        return merged_dora(weight, a, b, scaling, magnitude)
    return merged_weight(weight, a, b, scaling)


def base_weight(layer: Any) -> Tensor:
    """The frozen weight [out, in] as float32; of 4-bit layers, what their bits stand for."""
    state = getattr(layer.weight, "quant_state", None)
    if state is None:
        weight: Tensor = layer.weight.detach()
        return weight.float()
    dequantized: Tensor = _bitsandbytes().functional.dequantize_4bit(layer.weight.detach(), state)
    return dequantized.float()


def adapted_layers(module: nn.Module) -> dict[str, AdaptedLinear]:
    """Every layer whose adapter stands beside it, by name."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, AdaptedLinear)}


@contextmanager
def without_adapters(module: nn.Module) -> Iterator[None]:
    """While it lasts, the module is its base: plain linear layers in the places of the adapted ones."""
    layers = adapted_layers(module)
    for name, layer in layers.items():
        replace_module(module, name, layer.base)
    try:
        yield
    finally:
        for name, layer in layers.items():
            replace_module(module, name, layer)


def replace_module(module: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` where the submodule `name` is."""
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, new)


def _linear(base: Any, weight: Tensor) -> nn.Linear:
    layer = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if layer.bias is not None:
            layer.bias.copy_(base.bias)
    return layer.eval()


def _factors(layer: Any) -> tuple[Tensor, Tensor]:
    """A [rank, in] and B [out, rank] of peft's `layer`."""
    return layer.lora_A[ADAPTER].weight.detach(), layer.lora_B[ADAPTER].weight.detach()


def _candidates(module: nn.Module) -> dict[str, nn.Linear]:
    owners: dict[int, int] = {}
    for _, parameter in module.named_parameters(remove_duplicate=False):
        owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    output = _output_layer(module)
    return {
        name: layer
        for name, layer in module.named_modules()
        if type(layer) is nn.Linear and owners.get(id(layer.weight)) == 1 and layer is not output
    }


def _output_layer(module: nn.Module) -> nn.Module | None:
    models = (part for part in module.modules() if hasattr(part, "get_output_embeddings"))
    model: Any = next(models, None)
    return model.get_output_embeddings() if model is not None else None


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError:
        raise MissingExtra("a 4-bit base needs bitsandbytes; pip install 'modelpress[compress]'") from None
    return bitsandbytes
