"""What the student minimises: soft targets, and hidden states through projections that are thrown away."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.distill.config import DistillConfig
from compress.distill.layers import captured, stack_of
from compress.distill.losses import distillation_loss, hidden_loss, matched_layers
from compress.distill.relations import relation_loss
from compress.distill.student import example_batch
from compress.errors import StepError
from compress.finetune import taught
from compress.shrink.transformer import attentions
from models.objectives import forward
from models.sources.source import SourceModel
from models.training import Batch, Objective

RELATED = ("query", "key", "value")


class Projected(nn.Module):
    """A student with one projection a layer, from its width to the teacher's; they learn together."""

    def __init__(self, student: nn.Module, widths: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.student = student
        self.projections = nn.ModuleList(_projection(*pair) for pair in widths)


def soft_objective(config: DistillConfig, teacher: nn.Module) -> Objective:
    """The loss of a bare student: its logits against the targets and the teacher's logits."""

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        return _soft(config, forward(module, batch), taught(teacher, batch), batch)

    return loss


def hidden_objective(
    config: DistillConfig, student: nn.Module, source: SourceModel, name: str
) -> tuple[Projected, Objective]:
    """What to train in the student's place, and its loss; `source.module` teaches.

    Raises StepError for a model that is not one stack of transformer layers.
    """
    assert config.hidden is not None
    assert source.module is not None
    weight, teacher = config.hidden.weight, source.module
    own, all_theirs = list(stack_of(student, name)), list(stack_of(teacher, source.reference))
    theirs = [all_theirs[index] for index in matched_layers(len(own), len(all_theirs))]
    # One module may stand for two student layers, but a forward pass gives its output once.
    distinct = list(dict.fromkeys(theirs))
    order = [distinct.index(layer) for layer in theirs]

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(module, Projected)
        with captured(own) as states:
            logits = forward(module.student, batch)
        with captured(distinct) as found:
            wanted = taught(teacher, batch)
        pairs = zip(module.projections, states, [found[index] for index in order], strict=True)
        mask = batch.get("attention_mask")
        apart = [hidden_loss(project(state), target, mask) for project, state, target in pairs]
        return _soft(config, logits, wanted, batch) + weight * torch.stack(apart).mean()

    widths = _widths(student, own, source), _widths(teacher, theirs, source)
    return Projected(student, list(zip(*widths, strict=True))), loss


def with_relations(
    config: DistillConfig, student: nn.Module, source: SourceModel, name: str, loss: Objective
) -> Objective:
    """`loss`, and the divergence of the self-attention relations of the last layers beside it.

    Raises StepError for a model whose attention is not of a known form, or whose widths the relation heads do
    not divide.
    """
    assert config.relations is not None
    assert source.module is not None
    settings = config.relations
    own = _projections(student, -1, settings.heads, name)
    theirs = _projections(source.module, settings.teacher_layer, settings.heads, source.reference)

    def both(module: nn.Module, batch: Batch) -> Tensor:
        with captured(own) as ours, captured(theirs) as wanted:
            base = loss(module, batch)
        pairs = dict(zip(RELATED, ours, strict=True)), dict(zip(RELATED, wanted, strict=True))
        return base + settings.weight * relation_loss(*pairs, settings.heads, batch.get("attention_mask"))

    return both


def _projections(module: nn.Module, layer: int, heads: int, name: str) -> list[nn.Module]:
    """The query, key and value projections of one layer."""
    blocks = attentions(module)
    if not -len(blocks) <= layer < len(blocks):
        raise StepError(f"distill: relations: {name} has no layer {layer}; it has {len(blocks)}")
    block = blocks[layer]
    found = [module.get_submodule(f"{block.name}.{path}") for path in block.projections[:3]]
    for projection in found:
        assert isinstance(projection, nn.Linear)
        if projection.out_features % heads:
            raise StepError(
                f"distill: relations: {heads} heads do not divide the {projection.out_features} columns of "
                f"{block.name} of {name}; choose another number"
            )
    return found


def _soft(config: DistillConfig, logits: Tensor, wanted: Tensor, batch: Batch) -> Tensor:
    return distillation_loss(
        logits,
        wanted,
        batch["targets"],
        alpha=config.alpha,
        temperature=config.temperature,
        divergence=config.divergence,
    )


def _widths(module: nn.Module, layers: Sequence[nn.Module], source: SourceModel) -> list[int]:
    """The last axis of every layer's output, seen in one forward pass."""
    with captured(list(dict.fromkeys(layers))) as states, torch.no_grad():
        forward(module, example_batch(source))
    widths = {id(layer): state.shape[-1] for layer, state in zip(dict.fromkeys(layers), states, strict=True)}
    return [widths[id(layer)] for layer in layers]


def _projection(width: int, wanted: int) -> nn.Linear:
    """Starts as the identity where it can: a student of the teacher's layers is near it already."""
    projection = nn.Linear(width, wanted, bias=False)
    if width == wanted:
        nn.init.eye_(projection.weight)
    return projection
