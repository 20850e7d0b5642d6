"""The `lora` step: low-rank adapters learn beside frozen weights.

steps:
  - method: lora
    rank: 8
    alpha: 16
    targets: ["*q_proj", "*v_proj"]       # patterns over linear layers; default: all but the output layer
    quantized_base: {scheme: nf4}         # QLoRA
    dora: false
    merge: true                           # false: the adapter ships beside the base, as `name`
    training: {steps: 300, distill: {temperature: 1.0}}

A merged adapter costs nothing to serve. After a 4-bit base it is merged in float32 with what the bits stand
for, and a later `quantize: nf4` rounds the sum anew; `requantized` says in advance what that costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from compress.errors import StepError
from compress.lora.config import LoraConfig
from compress.order import loses_zeros
from compress.step import Figures, TorchMethod, register
from runtime.manifest import Task

if TYPE_CHECKING:
    from torch import nn

    from models.sources.source import SourceModel

# Enough to tell what merging cost from noise, at a quarter of the time that the gate's number takes.
EXAMPLES = 256


def run(config: LoraConfig, source: SourceModel, seed: int) -> tuple[SourceModel, Figures]:
    """Train adapters for `source.module`, in place; parameters trained, and the metric before and after."""
    from compress.finetune import finetune
    from compress.lora.layers import add_adapters, quantize_base, target_layers
    from compress.quality import metric_name, module_metric, parameter_count

    module = _module(source)
    metric = metric_name("lora", source)
    layers = target_layers(module, config)
    names = list(layers)
    teacher = _teacher(config, module)
    figures: Figures = {"metric": metric, "before": module_metric(source, module, seed, EXAMPLES)}
    figures["parameters"] = parameter_count(module)
    if config.quantized_base:
        quantize_base(module, layers, config.quantized_base)
        figures["quantized"] = module_metric(source, module, seed, EXAMPLES)
    add_adapters(module, names, config, seed)
    figures["trained_parameters"] = sum(p.numel() for p in module.parameters() if p.requires_grad)
    trained = finetune(source, config.training, seed, title=f"adapting {source.name}", teacher=teacher)
    figures["adapted"] = module_metric(source, module, seed, EXAMPLES)
    return source, {**figures, **_settle(config, source, names, seed), **trained}


def rehearse(config: LoraConfig, source: SourceModel, seed: int) -> SourceModel:
    """Patterns, ranks and labels."""
    from compress.lora.layers import target_layers
    from compress.quality import metric_name

    target_layers(_module(source), config)
    metric_name("lora", source)
    return source


def restore(config: LoraConfig, source: SourceModel, shapes: Mapping[str, tuple[int, ...]]) -> SourceModel:
    """Separate adapters wherever the stored weights have them, of the stored rank."""
    from torch import nn

    from compress.lora.layers import AdaptedLinear, replace_module

    assert source.module is not None
    for stored, shape in shapes.items():
        name, found, _ = stored.rpartition(".lora_A.weight")
        if found:
            base = source.module.get_submodule(name)
            assert isinstance(base, nn.Linear)
            replace_module(source.module, name, AdaptedLinear(base, shape[0], config.name).eval())
    return source


def check(config: LoraConfig, task: Task) -> None:
    """Refuse what can be seen to fail before anything is trained."""
    if task == "embedding":
        raise StepError("lora learns from labels, and an embedding model has none; use another method")
    if not config.merge and task != "text-generation":
        raise StepError(
            f"lora: an adapter is served beside a language model only, not beside {task}; use 'merge: true'"
        )
    if config.quantized_base and find_spec("bitsandbytes") is None:
        raise StepError("lora: quantized_base needs bitsandbytes; pip install 'modelpress[compress]'")


def _module(source: SourceModel) -> nn.Module:
    from compress.finetune import own_objective

    if source.module is None or source.dataset is None:
        raise StepError(f"{source.reference}: lora needs a torch model and labelled data; give 'data'")
    own_objective(source)
    return source.module


def _teacher(config: LoraConfig, module: nn.Module) -> nn.Module | None:
    from copy import deepcopy

    return deepcopy(module) if config.training.distill else None


def _settle(config: LoraConfig, source: SourceModel, names: Sequence[str], seed: int) -> Figures:
    """Merge the adapters, or set them apart; what the merged weights are worth."""
    from compress.lora.layers import merge_adapters, separate_adapters
    from compress.quality import module_metric

    module = source.module
    assert module is not None
    if not config.merge:
        separate_adapters(module, names, config.name)
        _thaw(module)
        return {"adapter": config.name}
    merge_adapters(module, names)
    _thaw(module)
    figures: Figures = {"merged": module_metric(source, module, seed, EXAMPLES)}
    if config.quantized_base:
        figures["requantized"] = _requantized(config, source, names, seed)
    return figures


def _requantized(config: LoraConfig, source: SourceModel, names: Sequence[str], seed: int) -> float:
    """The metric with the merged weights rounded to the base's 4 bits again; the module stays as it is."""
    from copy import deepcopy

    from torch import nn

    from compress.lora.layers import quantize_base
    from compress.quality import module_metric

    assert config.quantized_base is not None
    rounded = deepcopy(source.module)
    assert rounded is not None
    layers = {name: layer for name, layer in rounded.named_modules() if name in names}
    linear = {name: layer for name, layer in layers.items() if isinstance(layer, nn.Linear)}
    quantize_base(rounded, linear, config.quantized_base)
    return module_metric(source, rounded, seed, EXAMPLES)


def _thaw(module: nn.Module) -> None:
    """What peft froze learns again in later steps."""
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())


conflict = loses_zeros("adds a dense product to the weights")

register(TorchMethod("lora", LoraConfig, run, restore, check, conflict=conflict, rehearse=rehearse))
