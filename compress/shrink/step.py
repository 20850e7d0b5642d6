"""The `shrink` step: chooses what goes, cuts it out, proves that the rest computes what it did, fine-tunes.

steps:
  - method: shrink
    remove: {heads: 0.25, ffn: 0.3}     # or channels: 0.5; layers: 0.25; or flops: 0.5, the ratio found
    importance: taylor                  # magnitude | taylor | activation
    scope: global                       # layer | global
    round_to: 8
    finetune: {steps: 300, distill: {temperature: 2.0}}

`plan` -> `surgery.resize` and the cut weights -> comparison with the masked model -> `surgery.drop_layers` ->
`compress.finetune`. Only shapes tell a shrunk model from its source, so `restore` needs nothing else.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from compress.errors import StepError
from compress.order import loses_zeros
from compress.shrink.config import ShrinkConfig
from compress.step import Figures, StepConfig, TorchMethod, register
from runtime.manifest import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compress.shrink.units import Removal
    from models.sources.source import SourceModel

# Largest difference between the shrunk and the masked model, over the largest output: float32 sums in
# another order. What is cut wrongly is off by orders of magnitude more.
TOLERANCE = 1e-4


def run(config: ShrinkConfig, source: "SourceModel", seed: int) -> tuple["SourceModel", Figures]:
    """Shrink the source's module in place. Raises StepError."""
    import copy

    from compress.finetune import finetune
    from compress.quality import parameter_count
    from compress.shrink.flops import multiply_accumulates
    from compress.shrink.plan import example, plan
    from compress.shrink.surgery import drop_layers

    module = _module(source)
    batch = example(source)
    work = multiply_accumulates(module, batch)
    chosen = plan(config, source, module, seed)
    distils = config.finetune is not None and config.finetune.distill is not None
    teacher = copy.deepcopy(module) if distils else None
    before = parameter_count(module)
    error = _cut(source, module, chosen.removals)
    if chosen.layers is not None:
        drop_layers(module, chosen.layers)
    figures = {
        **chosen.figures,
        "masked_difference": error,
        "parameters_before": before,
        "parameters_after": parameter_count(module),
        "flops_kept": multiply_accumulates(module, batch) / work,
    }
    if config.finetune is not None:
        tuned = finetune(source, config.finetune, seed, title="fine-tuning what is left", teacher=teacher)
        figures["finetune"] = tuned
    return replace(source, module=module.eval()), figures


def rehearse(config: ShrinkConfig, source: "SourceModel", seed: int) -> "SourceModel | None":
    """Units, ratios, samples and labels; what is left of a model that each layer takes its own share from."""
    from compress.finetune import check_trains
    from compress.shrink.plan import plan, training_batches
    from compress.shrink.surgery import drop_layers

    module = _module(source)
    if config.importance != "magnitude":
        training_batches(config, source, seed)
    if config.finetune is not None or config.importance == "taylor":
        check_trains(source)
    chosen = plan(config.model_copy(update={"importance": "magnitude"}), source, module, seed)
    if config.scope == "global":
        return None
    _cut(source, module, chosen.removals)
    if chosen.layers is not None:
        drop_layers(module, chosen.layers)
    return replace(source, module=module.eval())


def restore(
    config: ShrinkConfig, source: "SourceModel", shapes: Mapping[str, tuple[int, ...]]
) -> "SourceModel":
    """Give a fresh source the structure that tensors of `shapes` are of; the weights are yet to be loaded."""
    from compress.shrink.surgery import drop_layers, resize, stored_layers

    module = _module(source)
    if config.remove.layers is not None:
        drop_layers(module, range(stored_layers(module, shapes)))
    resize(module, shapes)
    return source


def check(config: ShrinkConfig, task: Task) -> None:
    """Refuse what cannot work for the task, before anything is trained."""
    if config.remove.channels is not None and task in (
        "text-generation",
        "embedding",
        "token-classification",
    ):
        raise StepError(f"channels are of feed-forward nets; for {task}, shrink removes ffn, heads or layers")
    if config.importance == "taylor" and task == "embedding":
        raise StepError("'taylor' needs a loss, and the task 'embedding' has none; take 'activation'")


def _cut(source: "SourceModel", module: "nn.Module", removals: tuple["Removal", ...]) -> float:
    """Cut out `removals`; how far the outputs are from those of the masked model. Raises StepError."""
    import copy

    from compress.shrink.plan import example, of_one_size
    from compress.shrink.surgery import resize
    from compress.shrink.units import cut_out, silence

    inputs, state = example(source), module.state_dict()
    masked = copy.deepcopy(module)
    masked.load_state_dict(silence(state, removals))
    smaller = cut_out(state, removals)
    resize(module, {name: tuple(tensor.shape) for name, tensor in smaller.items()})
    module.load_state_dict(smaller)
    try:
        error = difference(module, masked, inputs)
    except RuntimeError as failure:
        raise of_one_size(source, failure) from None
    if not error <= TOLERANCE:
        raise StepError(
            f"{source.reference}: shrunk, it differs from the masked model by {error:.1e} (relative; "
            f"{TOLERANCE:.0e} is allowed); some layer uses what was cut in a way that is not known here"
        )
    return error


def difference(one: "nn.Module", other: "nn.Module", inputs: Mapping[str, "Tensor"]) -> float:
    """The largest difference of the outputs over the largest output of `other`; inputs go in by position."""
    import torch

    from models.objectives import forward

    with torch.no_grad():
        got, wanted = (forward(module, dict(inputs)) for module in (one, other))
    return float((got - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))


def _module(source: "SourceModel") -> "nn.Module":
    if source.module is None:
        raise StepError(f"{source.reference}: shrink changes a torch model, and this is a graph already")
    return source.module


def conflict(config: ShrinkConfig, early: StepConfig) -> str | None:
    """Fine-tuning makes pruned weights dense, and factorized layers have no neurons or heads of their own."""
    if early.method == "factorize":
        return "'shrink' looks for whole layers, and 'factorize' took them apart; put 'shrink' first"
    return loses_zeros("trains what is left", unless=lambda late: config.finetune is None)(config, early)


register(TorchMethod("shrink", ShrinkConfig, run, restore, check, conflict=conflict, rehearse=rehearse))
