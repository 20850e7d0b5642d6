"""What a source has that can go, what each of it is worth, and what of it goes. It changes nothing."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from compress.calibration import drawn_rows
from compress.errors import StepError
from compress.finetune import own_objective
from compress.shrink import flops, importance, transformer
from compress.shrink.config import Kind, ShrinkConfig
from compress.shrink.convolutional import channel_units
from compress.shrink.selection import comparable, keep_globally, keep_in_each
from compress.shrink.units import Removal, Units, removed
from compress.step import Figures
from models.objectives import forward
from models.sources.source import SourceModel

Batch = dict[str, Tensor]
EXAMPLE_ROWS = 4
EXAMPLE_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """What is cut out, and the layers of a transformer that stay (None: all of them)."""

    removals: tuple[Removal, ...]
    layers: tuple[int, ...] | None
    figures: Figures


def plan(config: ShrinkConfig, source: SourceModel, module: nn.Module, seed: int) -> Plan:
    """Choose what goes. Raises StepError for what this model or this data cannot take."""
    asked = _asked(config, module)
    found, whole = _candidates(tuple(asked), source, module)
    worth = _scores(config, source, module, found, seed)
    scores = {units.name + units.kind: each for units, each in zip(found, worth, strict=True)}
    layers = _kept_layers(config, found, scores)
    left = [units for units in found if layers is None or _stays(module, units, layers)]
    if config.remove.flops is not None:
        asked = dict.fromkeys(asked, _flops_ratio(config, source, module, left, scores))
    removals = _removals(config, asked, left, scores)
    _refuse_none(config, source, asked, removals)
    figures: Figures = {"kept": {units.name: units.count - len(gone) for units, gone in removals}}
    if layers is not None:
        figures["layers_kept"] = list(layers)
    if whole:
        figures["whole"] = whole
    return Plan(tuple(removals), layers, figures)


def example(source: SourceModel) -> Batch:
    """A few inputs by name, in the order that the module takes them: real ones where there is data."""
    from compress.export.source import example_inputs

    if source.dataset is None and source.task == "text-generation":
        tokens = np.random.default_rng(0).integers(0, 32, (EXAMPLE_ROWS, EXAMPLE_TOKENS))
        return {source.input_names[0]: torch.from_numpy(tokens)}
    return {name: torch.from_numpy(value[:EXAMPLE_ROWS]) for name, value in example_inputs(source).items()}


def of_one_size(source: SourceModel, failure: RuntimeError) -> StepError:
    """What to say of a model that failed to run with some of its units cut out."""
    reason = str(failure).splitlines()[0]
    return StepError(f"{source.reference}: does not run at other sizes ({reason}); it cannot be shrunk")


def _asked(config: ShrinkConfig, module: nn.Module) -> dict[Kind, float]:
    """The kinds that go, with their ratios; those that 'flops' takes from begin with none."""
    if config.remove.flops is None:
        return config.remove.ratios()
    return {"ffn": 0.0, "heads": 0.0} if transformer.is_transformer(module) else {"channels": 0.0}


def _candidates(
    asked: Collection[Kind], source: SourceModel, module: nn.Module
) -> tuple[list[Units], dict[str, str]]:
    """All units of the kinds asked for; and the layers that must stay whole, with the reason."""
    if "channels" not in asked:
        return _transformer_units(asked, module), {}
    if transformer.is_transformer(module):
        raise StepError(f"{source.reference} is a transformers model; remove its ffn, heads or layers")
    found, whole = channel_units(module, list(example(source).values()))
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in whole.items())
        raise StepError(
            f"{source.reference}: no channels can go ({reasons or 'it has no convolution or linear'})"
        )
    return found, whole


def _transformer_units(asked: Collection[Kind], module: nn.Module) -> list[Units]:
    if not transformer.is_transformer(module):
        kinds = ", ".join(asked)
        raise StepError(
            f"{type(module).__name__}: {kinds} are of transformers models; remove channels instead"
        )
    found = []
    if "layers" in asked:
        found.append(transformer.layer_units(module))
    if "ffn" in asked:
        found += transformer.ffn_units(module)
    if "heads" in asked:
        found += transformer.head_units(module)
    return found


def _scores(
    config: ShrinkConfig, source: SourceModel, module: nn.Module, found: Sequence[Units], seed: int
) -> list[Tensor]:
    if config.importance == "magnitude":
        return [importance.magnitudes(module, units) for units in found]
    batches = training_batches(config, source, seed)
    if config.importance == "taylor":
        return importance.taylor(module, found, batches, own_objective(source))
    return importance.activations(module, found, batches, forward)


def training_batches(config: ShrinkConfig, source: SourceModel, seed: int) -> Iterator[Batch]:
    """Training examples drawn by seed: the inputs in the module's order, and `targets` where there are."""
    samples, dataset = config.calibration.samples, source.dataset
    if dataset is None:
        raise StepError(
            f"{source.reference}: '{config.importance}' needs data; give 'data', or take 'magnitude'"
        )
    split = dataset.train
    if config.importance == "taylor" and split.targets is None:
        raise StepError(f"{dataset.name} has no labels, and 'taylor' needs a loss; take 'activation'")
    arrays = {name: split.inputs[name] for name in source.input_names}
    if split.targets is not None:
        arrays["targets"] = split.targets
    parts = drawn_rows("shrink", dataset, samples, config.calibration.batch_size, seed)
    return ({name: torch.from_numpy(array[part]) for name, array in arrays.items()} for part in parts)


def _kept_layers(
    config: ShrinkConfig, found: Sequence[Units], scores: dict[str, Tensor]
) -> tuple[int, ...] | None:
    ratio = config.remove.layers
    for units in found:
        if units.kind == "layers" and ratio is not None:
            kept = keep_in_each([scores[units.name + units.kind]], ratio)[0]
            if len(kept) == units.count:
                raise StepError(
                    f"{units.name}: a ratio of {ratio} removes none of {units.count} layers; "
                    f"ask for at least {1 / units.count:.2f}"
                )
            return tuple(kept.tolist())
    return None


def _stays(module: nn.Module, units: Units, layers: tuple[int, ...]) -> bool:
    return transformer.layer_of(module, units) in (*layers, None)


def _removals(
    config: ShrinkConfig, asked: Mapping[Kind, float], found: Sequence[Units], scores: Mapping[str, Tensor]
) -> list[Removal]:
    kinds: tuple[Kind, ...] = ("channels", "ffn", "heads")
    return [each for kind in kinds for each in _chosen(config, kind, asked.get(kind), found, scores)]


def _chosen(
    config: ShrinkConfig,
    kind: Kind,
    ratio: float | None,
    found: Sequence[Units],
    scores: Mapping[str, Tensor],
) -> list[Removal]:
    """Every layer's units of one kind, with those that go at `ratio` (which may be none)."""
    of_kind = [units for units in found if units.kind == kind]
    if ratio is None or not of_kind:
        return []
    worth = [scores[units.name + units.kind] for units in of_kind]
    round_to = 1 if kind == "heads" else config.round_to
    if config.scope == "layer":
        kept = keep_in_each(worth, ratio, round_to)
    else:
        # Taylor scores are all in units of the loss: those compare as they are.
        worth = worth if config.importance == "taylor" else comparable(worth)
        kept = keep_globally(worth, ratio, round_to)
    return [(units, removed(units.count, stays)) for units, stays in zip(of_kind, kept, strict=True)]


def _flops_ratio(
    config: ShrinkConfig,
    source: SourceModel,
    module: nn.Module,
    found: Sequence[Units],
    scores: Mapping[str, Tensor],
) -> float:
    """The smallest ratio, the same for every kind, that removes the share 'flops'. Raises StepError."""
    batch, kinds = example(source), {units.kind for units in found}
    before, share = flops.multiply_accumulates(module, batch), config.remove.flops
    assert share is not None

    def cost(ratio: float) -> int:
        removals = _removals(config, dict.fromkeys(kinds, ratio), found, scores)
        try:
            return flops.after(module, removals, batch)
        except RuntimeError as failure:
            raise of_one_size(source, failure) from None

    ratio = flops.smallest_ratio((1 - share) * before, cost)
    if ratio is None:
        most = 1 - cost(1.0) / before
        raise StepError(
            f"{source.reference}: of its multiply-accumulates, at most {most:.0%} can go (one unit of every "
            f"layer stays); 'flops: {share}' is more"
        )
    return ratio


def _refuse_none(
    config: ShrinkConfig, source: SourceModel, asked: Mapping[Kind, float], removals: Sequence[Removal]
) -> None:
    """Raises StepError where one of the kinds asked for loses nothing."""
    if config.remove.flops is not None:
        return
    for kind, ratio in asked.items():
        of_kind = [(units.count, len(gone)) for units, gone in removals if units.kind == kind]
        if of_kind and not any(gone for _, gone in of_kind):
            counts = ", ".join(sorted({str(count) for count, _ in of_kind}))
            rounded = f" and round_to is {config.round_to}" if kind != "heads" and config.round_to > 1 else ""
            raise StepError(
                f"{source.reference}: '{kind}: {ratio}' removes nothing where a layer has {counts} of them"
                f"{rounded}; ask for more"
            )
