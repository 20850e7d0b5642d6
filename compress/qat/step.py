"""The `qat` step: fine-tuning under int8 rounding, then int8 for good. Nothing needs to follow it.

steps:
  - method: qat
    ranges: learned                # learned (LSQ) | moving-average
    exclude: ["*.head"]            # shell patterns over layer names; `targets` takes the same
    finetune: {steps: 300, distill: {temperature: 2.0, alpha: 0.5}}

Linear layers and convolutions; embeddings stay in float32. Weights that are exactly zero when it starts, as
pruning leaves them, are zero when it ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from compress.errors import StepError
from compress.patterns import select_names
from compress.qat.config import QatConfig
from compress.step import Figures, TorchMethod, register
from runtime.manifest import Task

if TYPE_CHECKING:
    from torch import nn

    from compress.qat.layers import TrainedLayer
    from models.sources.source import SourceModel


def run(config: QatConfig, source: SourceModel, seed: int) -> tuple[SourceModel, Figures]:
    """Train `source.module` under rounding, in place, and leave it with integers for weights."""
    from compress.finetune import finetune
    from compress.prune.hold import held, unchanged
    from compress.qat.layers import QuantizedLayer, replace

    module = _module(source)
    _check_trains(source)
    teacher = _teacher(config, module)
    folded, layers = _prepare(config, module)
    replace(module, layers)
    _watch(config, source, layers, seed)
    with held(layers, unchanged) as before_step:
        trained = finetune(
            source,
            config.finetune,
            seed,
            title="fine-tuning in int8",
            teacher=teacher,
            before_step=before_step,
        )
    replace(module, {name: QuantizedLayer.of(each) for name, each in layers.items()})
    figures = {
        "layers": len(layers),
        "multiplied_in_int8": sum(each.inputs is not None for each in layers.values()),
        "batch_norms_folded": folded,
    }
    return source, {**figures, "finetune": trained}


def rehearse(config: QatConfig, source: SourceModel, seed: int) -> SourceModel:
    """Patterns, samples and labels."""
    from compress.calibration import drawn_rows

    _check_trains(source)
    _prepare(config, _module(source))
    assert source.dataset is not None
    drawn_rows("qat", source.dataset, config.samples, config.finetune.batch_size, seed)
    return source


def restore(config: QatConfig, source: SourceModel, shapes: Mapping[str, tuple[int, ...]]) -> SourceModel:
    """A fresh source with integer layers where the step put them."""
    from compress.qat.layers import QuantizedLayer, replace

    module = _module(source)
    _, layers = _prepare(config, module)
    replace(module, {name: QuantizedLayer.of(each) for name, each in layers.items()})
    return source


def check(config: QatConfig, task: Task) -> None:
    """Refuse a task without labels to train by."""
    if task == "embedding":
        raise StepError("qat: an embedding model has no labels to train by; use quantize: int8-static")


def _module(source: SourceModel) -> nn.Module:
    if source.module is None:
        raise StepError(f"{source.reference}: qat needs a torch model; a ready ONNX graph has none")
    return source.module


def _check_trains(source: SourceModel) -> None:
    from compress.finetune import own_objective

    if source.dataset is None:
        raise StepError(f"{source.reference}: qat trains on labelled data; give 'data' in the recipe")
    own_objective(source)


def _teacher(config: QatConfig, module: nn.Module) -> nn.Module | None:
    from copy import deepcopy

    return deepcopy(module) if config.finetune.distill else None


def _prepare(config: QatConfig, module: nn.Module) -> tuple[int, dict[str, TrainedLayer]]:
    """Fold batch norms into `module`, and make the layers that are to take others' places."""
    from compress.qat.batchnorm import fold_batch_norms
    from compress.qat.layers import TrainedLayer, quantizable

    folded = fold_batch_norms(module)
    candidates = quantizable(module)
    if not candidates:
        raise StepError(f"qat: {type(module).__name__} has no linear or convolution layer of its own")
    what = "linear or convolution layer"
    names = select_names("qat", what, list(candidates), config.targets, config.exclude)
    return folded, {
        name: TrainedLayer(
            candidates[name],
            config.ranges,
            rounds_input=_sums(candidates[name]) >= config.min_channels,
            reduce_range=config.reduce_range,
        )
        for name in names
    }


def _sums(layer: nn.Module) -> int:
    """Input channels that a convolution sums over; a linear layer is never too narrow."""
    from torch import nn

    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    return weight.shape[1] if weight.ndim > 2 else 1 << 30


def _watch(config: QatConfig, source: SourceModel, layers: Mapping[str, TrainedLayer], seed: int) -> None:
    """Show real inputs to the layers, so that their ranges start where activations are."""
    import torch

    from compress.calibration import drawn_rows

    assert source.dataset is not None
    module, split = _module(source), source.dataset.train
    for rows in drawn_rows("qat", source.dataset, config.samples, config.finetune.batch_size, seed):
        with torch.inference_mode():
            module(*(torch.from_numpy(split.inputs[name][rows]) for name in source.input_names))
    silent = [name for name, each in layers.items() if each.inputs is not None and not each.inputs.has_seen()]
    if silent:
        raise StepError(f"qat: {silent[0]} is not called with the training data; list it in 'exclude'")
    for each in layers.values():
        if each.inputs is not None:
            each.inputs.start()


register(TorchMethod("qat", QatConfig, run, restore, check, rehearse=rehearse))
