"""The `prune` step: single weights become zero, by one of four criteria.

steps:
  - method: prune
    criterion: magnitude           # magnitude | nm | wanda | sparsegpt
    ratio: 0.9
    targets: ["*"]                 # shell patterns over layer names; `exclude` takes the same
    finetune: {steps: 600}         # pruned weights stay exactly zero
    gradual: {events: 10}          # magnitude only: prune during fine-tuning instead of before it

Linear layers, and convolutions for `magnitude` and `nm`. Shapes stay: what zeros are worth is a smaller
compressed file, and speed only where a kernel reads the pattern. What shrinks shapes is `shrink`.
"""

from typing import TYPE_CHECKING

from compress.errors import StepError
from compress.prune.config import NM, Magnitude, PruneConfig, SparseGPT, Wanda
from compress.step import Figures, TorchMethod, register
from runtime.manifest import Task

if TYPE_CHECKING:
    from torch import nn

    from compress.prune.hold import Renew
    from compress.prune.layers import Layers
    from models.sources.source import SourceModel

Config = Magnitude | NM | Wanda | SparseGPT


def run(config: Config, source: "SourceModel", seed: int) -> tuple["SourceModel", Figures]:
    """Prune `source.module` in place, and train what is left where the recipe says so."""
    from compress.prune.figures import sparsity_figures

    layers = _layers(config, source)
    teacher = _teacher(config, source)
    by_layer = _prune(config, source, layers, seed)
    trained = _finetune(config, source, layers, teacher, seed) if config.finetune else {}
    assert source.module is not None
    return source, {**sparsity_figures(source.module, layers, by_layer), **trained}


def check(config: Config, task: Task) -> None:
    """Refuse what can be seen to fail before anything is trained."""
    if config.finetune and task == "embedding":
        raise StepError("prune: finetune: an embedding model has no labels to train by; leave 'finetune' out")


def _layers(config: Config, source: "SourceModel") -> "Layers":
    """The layers to prune, all of which can be."""
    from compress.prune.layers import LINEAR, LINEAR_OR_CONVOLUTION, check_pattern, select

    if source.module is None:
        raise StepError(f"{source.reference}: prune needs a torch model; a ready ONNX graph has none")
    kinds = LINEAR_OR_CONVOLUTION if isinstance(config, Magnitude | NM) else LINEAR
    layers = select(source.module, config.targets, config.exclude, kinds)
    if not isinstance(config, Magnitude) and config.pattern:
        check_pattern(layers, config.pattern)
    return layers


def _teacher(config: Config, source: "SourceModel") -> "nn.Module | None":
    """The model as it was, where fine-tuning learns from it; refuses a model that cannot be trained."""
    from copy import deepcopy

    from compress.finetune import own_objective

    if config.finetune is None:
        return None
    if source.dataset is None:
        raise StepError(f"{source.reference}: fine-tuning needs labelled data; give 'data' in the recipe")
    own_objective(source)
    return deepcopy(source.module) if config.finetune.distill else None


def _prune(config: Config, source: "SourceModel", layers: "Layers", seed: int) -> dict[str, Figures]:
    """Set weights to zero, save for a gradual schedule, which does it while training. Figures by layer."""
    from compress.prune.calibrate import calibration_batches
    from compress.prune.oneshot import prune_by_magnitude, prune_layers

    if isinstance(config, Magnitude | NM):
        prune_by_magnitude(layers, config)
        return {}
    assert source.module is not None
    batches = calibration_batches(source, config.calibration.samples, seed)
    return prune_layers(source.module, layers, config, batches)


def _finetune(
    config: Config, source: "SourceModel", layers: "Layers", teacher: "nn.Module | None", seed: int
) -> Figures:
    from compress.finetune import finetune
    from compress.prune.hold import cubic_renewal, held, unchanged

    assert config.finetune
    assert source.module is not None
    renew: Renew = unchanged
    if isinstance(config, Magnitude) and config.gradual:
        renew = cubic_renewal(config, layers)
    with held(source.module, layers, renew):
        return {"finetune": finetune(source, config.finetune, seed, teacher=teacher)}


register(TorchMethod("prune", PruneConfig, run, check=check))
