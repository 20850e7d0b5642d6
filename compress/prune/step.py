"""The `prune` step: single weights become zero, by one of six criteria.

steps:
  - method: prune
    criterion: magnitude           # magnitude | movement | iterative | nm | wanda | sparsegpt
    ratio: 0.9
    targets: ["*"]                 # shell patterns over layer names; `exclude` takes the same
    finetune: {steps: 600}         # pruned weights stay exactly zero
    gradual: {events: 10}          # magnitude only: prune during fine-tuning instead of before it

Linear layers, convolutions for all but `wanda` and `sparsegpt`, and the matrices of recurrent layers for
`magnitude`, `iterative` and `nm`. Shapes stay: zeros are
worth a smaller compressed file, and speed only where a kernel reads the pattern. `shrink` shrinks shapes.
"""

from typing import TYPE_CHECKING

from compress.errors import StepError
from compress.prune.config import NM, Iterative, Magnitude, Movement, PruneConfig, SparseGPT, Wanda
from compress.step import Figures, TorchMethod, register
from runtime.manifest import Task

if TYPE_CHECKING:
    from torch import nn

    from compress.prune.hold import Renew
    from compress.prune.layers import Layers
    from models.sources.source import SourceModel

Config = Magnitude | Movement | Iterative | NM | Wanda | SparseGPT


def run(config: Config, source: "SourceModel", seed: int) -> tuple["SourceModel", Figures]:
    """Prune `source.module` in place, and train what is left where the recipe says so."""
    from compress.prune.figures import sparsity_figures

    layers = _layers(config, source)
    teacher = _teacher(config, source)
    by_layer = _prune(config, source, layers, seed)
    trained = _finetune(config, source, layers, teacher, seed) if config.finetune else {}
    assert source.module is not None
    return source, {**sparsity_figures(source.module, layers, by_layer), **trained}


def rehearse(config: Config, source: "SourceModel", seed: int) -> "SourceModel":
    """Patterns, layers, samples and labels."""
    from compress.prune.calibrate import calibration_batches, execution_order

    layers = _layers(config, source)
    _teacher(config, source)
    if isinstance(config, Wanda | SparseGPT):
        assert source.module is not None
        execution_order(
            source.module, layers, calibration_batches(source, config.calibration.samples, seed)[0]
        )
    return source


def check(config: Config, task: Task) -> None:
    """Refuse what can be seen to fail before anything is trained."""
    if config.finetune and task == "embedding":
        raise StepError("prune: finetune: an embedding model has no labels to train by; leave 'finetune' out")


def _layers(config: Config, source: "SourceModel") -> "Layers":
    """The layers to prune, all of which can be."""
    from compress.prune.layers import ALL, LINEAR, LINEAR_OR_CONVOLUTION, check_pattern, select

    if source.module is None:
        raise StepError(f"{source.reference}: prune needs a torch model; a ready ONNX graph has none")
    kinds: tuple[type[nn.Module], ...] = LINEAR if isinstance(config, Wanda | SparseGPT) else ALL
    # Scores of movement are collected where a layer is called with its weight, which recurrent ones are not.
    kinds = LINEAR_OR_CONVOLUTION if isinstance(config, Movement) else kinds
    layers = select(source.module, config.targets, config.exclude, kinds)
    if isinstance(config, NM | Wanda | SparseGPT) and config.pattern:
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
    """Set weights to zero, save where that is done while training. Figures by layer."""
    from compress.prune.calibrate import calibration_batches
    from compress.prune.oneshot import prune_by_magnitude, prune_layers

    if isinstance(config, Movement | Iterative):
        return {}
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
    from compress.prune.iterative import prune_in_rounds
    from compress.prune.movement import moving

    assert config.finetune
    if isinstance(config, Iterative):
        return prune_in_rounds(config, source, layers, teacher, seed)
    renew: Renew = unchanged
    if isinstance(config, Magnitude) and config.gradual:
        renew = cubic_renewal(config, layers)
    zeros = moving(config, layers) if isinstance(config, Movement) else held(layers, renew)
    with zeros as before_step:
        trained = finetune(source, config.finetune, seed, teacher=teacher, before_step=before_step)
    return {"finetune": trained}


register(TorchMethod("prune", PruneConfig, run, check=check, rehearse=rehearse))
