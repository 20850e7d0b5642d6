"""The `factorize` step: linear layers become two thin ones, where that saves parameters.

steps:
  - method: factorize
    algorithm: svd-llm             # svd | asvd | svd-llm
    ratio: 0.5                     # or energy: 0.95, or rank: 32
    exclude: ["*lm_head"]
    finetune: {steps: 200}         # wins back what the rank cost
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from compress.errors import StepError
from compress.factorize.config import FactorizeConfig
from compress.order import loses_zeros
from compress.patterns import select_names
from compress.step import Figures, TorchMethod, register

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compress.factorize.lowrank import Spectrum
    from models.sources.source import SourceModel

_NOTHING_SAVED = "factorize: no layer gets smaller at this rank; ask for less energy, ratio or rank"


def run(config: FactorizeConfig, source: SourceModel, seed: int) -> tuple[SourceModel, Figures]:
    """Factorize the layers of `source.module` in place; ranks and errors as figures."""
    from compress.quality import parameter_count

    names = list(_layers(config, source))
    module = source.module
    assert module is not None
    teacher = _teacher(config, module)
    before = parameter_count(module)
    scalings = _scalings(config, source, names, seed)
    errors = {name: _factorize(config, module, name, scalings.get(name)) for name in names}
    ranks = {name: rank for name, (rank, _) in errors.items() if rank}
    if not ranks:
        raise StepError(_NOTHING_SAVED)
    figures: Figures = {
        "parameters_before": before,
        "parameters_after": parameter_count(module),
        "layers": len(ranks),
        "left_whole": [name for name in names if name not in ranks],
        "ranks": ranks,
        "worst_relative_error": max(errors[name][1] for name in ranks),
    }
    return source, {**figures, **_finetuned(config, source, seed, teacher)}


def rehearse(config: FactorizeConfig, source: SourceModel, seed: int) -> SourceModel | None:
    """Patterns, ranks, samples and labels; the thin layers, save where energy decides on them."""
    from compress.factorize.layers import example_rows, replace_layer
    from compress.factorize.lowrank import saves
    from compress.finetune import check_trains

    layers = _layers(config, source)
    if config.algorithm != "svd":
        example_rows(source, config.calibration.samples, seed)
    if config.finetune:
        check_trains(source)
    if config.energy is not None:
        return None
    ranks = {name: _asked_rank(config, layer) for name, layer in layers.items()}
    smaller = [n for n, layer in layers.items() if saves(layer.out_features, layer.in_features, ranks[n])]
    if not smaller:
        raise StepError(_NOTHING_SAVED)
    assert source.module is not None
    for name in smaller:
        replace_layer(source.module, name, ranks[name])
    return source


def restore(
    config: FactorizeConfig, source: SourceModel, shapes: Mapping[str, tuple[int, ...]]
) -> SourceModel:
    """Thin layers wherever the stored weights have them, of the stored rank."""
    from compress.factorize.layers import linear_layers, replace_layer

    assert source.module is not None
    for name in linear_layers(source.module):
        if stored := shapes.get(f"{name}.down.weight"):
            replace_layer(source.module, name, rank=stored[0])
    return source


def _layers(config: FactorizeConfig, source: SourceModel) -> dict[str, nn.Linear]:
    """The layers that are meant, by name."""
    from compress.factorize.layers import linear_layers

    if source.module is None:
        raise StepError(f"{source.reference}: factorize needs a torch model, not a graph")
    layers = linear_layers(source.module)
    what = "linear layer with a weight of its own"
    names = select_names("factorize", what, list(layers), config.targets, config.exclude)
    chosen = {name: layers[name] for name in names}
    _check_ranks(config, chosen)
    return chosen


def _check_ranks(config: FactorizeConfig, layers: Mapping[str, nn.Linear]) -> None:
    from compress.factorize.layers import WIDEST

    for name, layer in layers.items():
        full = min(layer.in_features, layer.out_features)
        if config.rank is not None and config.rank > full:
            raise StepError(
                f"factorize: rank {config.rank} is above the rank of '{name}', which is {full}; "
                "lower it, or exclude the layer"
            )
        if config.algorithm != "svd" and layer.in_features > WIDEST:
            raise StepError(
                f"factorize: '{name}' has {layer.in_features} inputs, too many for {config.algorithm} "
                f"(at most {WIDEST}); use svd, or exclude the layer"
            )


def _scalings(
    config: FactorizeConfig, source: SourceModel, names: Sequence[str], seed: int
) -> dict[str, Tensor]:
    """What multiplies each weight before it is decomposed; nothing for plain svd."""
    from compress.factorize.layers import grams
    from compress.factorize.lowrank import activation_scaling, whitening

    if config.algorithm == "svd":
        return {}
    scale = activation_scaling if config.algorithm == "asvd" else whitening
    found = grams(source, names, config.calibration.samples, seed)
    return {name: scale(gram) for name, gram in found.items()}


def _factorize(
    config: FactorizeConfig, module: nn.Module, name: str, scaling: Tensor | None
) -> tuple[int, float]:
    """Replace one layer; its rank and relative error. Rank 0: it would not have become smaller."""
    from torch import nn

    from compress.factorize.layers import fill, replace_layer
    from compress.factorize.lowrank import decompose, saves

    layer = module.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    spectrum = decompose(layer.weight.detach(), scaling)
    rank = _rank(config, layer, spectrum)
    if not saves(layer.out_features, layer.in_features, rank):
        return 0, 0.0
    fill(replace_layer(module, name, rank), layer, *spectrum.factors(rank))
    return rank, spectrum.error(rank)


def _rank(config: FactorizeConfig, layer: nn.Linear, spectrum: Spectrum) -> int:
    from compress.factorize.lowrank import rank_for_energy

    if config.energy is not None:
        return rank_for_energy(spectrum, config.energy)
    return _asked_rank(config, layer)


def _asked_rank(config: FactorizeConfig, layer: nn.Linear) -> int:
    """The rank that a ratio or a rank asks for, whatever the weights are."""
    from compress.factorize.lowrank import rank_for_ratio

    if config.ratio is not None:
        return rank_for_ratio(layer.out_features, layer.in_features, config.ratio)
    assert config.rank is not None
    return config.rank


def _teacher(config: FactorizeConfig, module: nn.Module) -> nn.Module | None:
    """The model as it is now, where fine-tuning will want its outputs."""
    import copy

    return copy.deepcopy(module) if config.finetune and config.finetune.distill else None


def _finetuned(config: FactorizeConfig, source: SourceModel, seed: int, teacher: nn.Module | None) -> Figures:
    from compress.finetune import finetune

    if config.finetune is None:
        return {}
    title = f"fine-tuning {source.name}"
    return {"finetune": finetune(source, config.finetune, seed, title=title, teacher=teacher)}


conflict = loses_zeros("makes new, dense factors")

register(TorchMethod("factorize", FactorizeConfig, run, restore, conflict=conflict, rehearse=rehearse))
