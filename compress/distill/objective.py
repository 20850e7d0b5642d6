"""What the student minimises: soft targets, hidden states (through projections that are thrown away),
relations, attention maps, and answers that the teacher gave before.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.distill.answers import pooled, taken_apart
from compress.distill.attention import attention_loss
from compress.distill.config import DistillConfig
from compress.distill.layers import captured, stack_of
from compress.distill.losses import distillation_loss, hidden_loss, matched_layers, top_k_loss
from compress.distill.relations import relation_loss
from compress.distill.student import example_batch
from compress.errors import StepError
from compress.finetune import taught
from compress.shrink.transformer import Attention, attentions
from models.datasets.dataset import IGNORED
from models.objectives import cross_entropy, forward
from models.sources.source import SourceModel
from models.training import Batch, Objective
from runtime.manifest import TextProcessing

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


def with_attention(
    config: DistillConfig, student: nn.Module, source: SourceModel, name: str, loss: Objective
) -> Objective:
    """`loss`, and how far each layer's attention maps are from those of the layer that it learns from.

    Raises StepError for a model whose attention is not of a known form, or heads that do not pair up.
    """
    assert config.attention is not None
    assert source.module is not None
    own, all_theirs = attentions(student), attentions(source.module)
    theirs = [all_theirs[index] for index in matched_layers(len(own), len(all_theirs))]
    heads = {each.heads for each in (*own, *theirs)} | {each.kv_heads for each in (*own, *theirs)}
    if len(heads) > 1:
        raise StepError(
            f"distill: attention: {name} and {source.reference} have blocks of {sorted(heads)} heads, which "
            "do not pair up; use 'relations'"
        )
    weight, count = config.attention.weight, heads.pop()
    asking, asked = _asking(student, own), _asking(source.module, theirs)

    def both(module: nn.Module, batch: Batch) -> Tensor:
        with captured(asking) as ours, captured(asked) as wanted:
            base = loss(module, batch)
        maps = attention_loss(_pairs(ours), _pairs(wanted), count, batch.get("attention_mask"))
        return base + weight * maps

    return both


def _asking(module: nn.Module, blocks: Sequence[Attention]) -> list[nn.Module]:
    """The query and key projections of `blocks`, one after the other."""
    paths = [f"{block.name}.{path}" for block in blocks for path in block.projections[:2]]
    return [module.get_submodule(path) for path in paths]


def _pairs(projected: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(projected[::2], projected[1::2], strict=True))


def cached_objective(config: DistillConfig) -> Objective:
    """The loss of a bare student whose batches bring the teacher's answers with them."""

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        inputs, tokens, scores = taken_apart(batch)
        logits, targets = forward(module, inputs), batch["targets"]
        scored = targets != IGNORED
        soft = top_k_loss(logits[scored], tokens[scored], scores[scored], config.temperature)
        return config.alpha * cross_entropy(logits, targets) + (1 - config.alpha) * soft

    return loss


def embedding_objective(processing: TextProcessing) -> Objective:
    """The squared difference of pooled vectors, whose targets are the teacher's (Reimers and Gurevych, 2020,
    arXiv:2004.09813, equation 1), in units of their mean square.
    """

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        vectors = pooled(forward(module, batch), batch["attention_mask"], processing)
        return hidden_loss(vectors, batch["targets"])

    return loss


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
