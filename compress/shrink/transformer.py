"""The removable units of transformers' models: FFN neurons, key-value heads with their query heads, layers.

Blocks are known by the names of their projections, so any model of these families is taken; what is not of
one of these forms (fused projections, norms across heads, layers of different types) is refused by name.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from compress.errors import StepError
from compress.shrink.units import Cut, Units

# Query, key, value and output projections, as paths below the module that computes attention.
ATTENTIONS = (
    ("q_proj", "k_proj", "v_proj", "o_proj"),
    ("q_proj", "k_proj", "v_proj", "out_proj"),
    ("q_lin", "k_lin", "v_lin", "out_lin"),
    ("self.query", "self.key", "self.value", "output.dense"),
)
# The projections into the neurons and the one out of them, below the module that holds both.
FFNS = (
    (("gate_proj", "up_proj"), "down_proj"),
    (("intermediate.dense",), "output.dense"),
    (("fc1",), "fc2"),
    (("lin1",), "lin2"),
)
# What models call the same figure.
HEADS = ("num_heads", "num_attention_heads", "n_heads")
KV_HEADS = ("num_key_value_heads",)
HEAD_DIMS = ("head_dim", "attention_head_size")


@dataclass(frozen=True, slots=True)
class Attention:
    """One attention block: `module` has its sizes as attributes; projections (query, key, value, output) are
    paths below the module called `name`.
    """

    name: str
    module: nn.Module
    projections: tuple[str, ...]
    head_dim: int
    heads: int
    kv_heads: int


def is_transformer(module: nn.Module) -> bool:
    """Whether `module` is, or wraps, a model of transformers."""
    return any(hasattr(part, "config") and hasattr(part, "save_pretrained") for part in module.modules())


def head_units(module: nn.Module) -> list[Units]:
    """Key-value heads, each with all its query heads. Raises StepError where they cannot be told apart."""
    return [_head_units(module, block) for block in attentions(module)]


def ffn_units(module: nn.Module) -> list[Units]:
    """Neurons of the feed-forward blocks. Raises StepError for a model without a block of a known form."""
    found = [_neurons(module, name, writers, reader) for (name, _), writers, reader in _find_ffns(module)]
    if not found:
        known = " | ".join("+".join(writers) + " -> " + reader for writers, reader in FFNS)
        raise StepError(
            f"{_model_name(module)}: no feed-forward block of a known form ({known}); leave out 'ffn'"
        )
    return found


def layer_units(module: nn.Module) -> Units:
    """The layers. Raises StepError where they are not interchangeable."""
    path, layers = layer_list(module)
    kinds = {kind for config in _configs(module) for kind in getattr(config, "layer_types", None) or ()}
    if len(kinds) > 1:
        mixed = ", ".join(sorted(kinds))
        raise StepError(
            f"{path}: layers of different types ({mixed}) cannot be renumbered; leave out 'layers'"
        )
    return Units(path, "layers", len(layers))


def layer_list(module: nn.Module) -> tuple[str, nn.ModuleList]:
    """The list of layers and its full name: what holds every attention block. Raises StepError."""
    paths = {
        match[1] for block in attentions(module) if (match := re.match(r"(.*?)\.\d+\.", block.name + "."))
    }
    if len(paths) == 1:
        path = paths.pop()
        layers = module.get_submodule(path)
        if isinstance(layers, nn.ModuleList):
            return path, layers
    raise StepError(f"{_model_name(module)}: its layers are not one list; leave out 'layers'")


def layer_of(module: nn.Module, units: Units) -> int | None:
    """The number of the layer that `units` are in; None where they are outside of the layers."""
    match = re.match(rf"{re.escape(layer_list(module)[0])}\.(\d+)(\.|$)", units.name)
    return int(match[1]) if match else None


def attentions(module: nn.Module) -> list[Attention]:
    """Every attention block, in order. Raises StepError for a model without one of a known form."""
    found = _find_attentions(module)
    if not found:
        known = " | ".join(", ".join(projections) for projections in ATTENTIONS)
        raise StepError(f"{_model_name(module)}: no attention of a known form ({known}); leave out 'heads'")
    return found


def fit_attributes(module: nn.Module) -> None:
    """Bring the sizes that blocks and configurations state in line with their projections, in place."""
    if not is_transformer(module):
        return
    for block in _find_attentions(module):
        _set(block.module, HEADS, block.heads)
        _set(block.module, KV_HEADS, block.kv_heads)
        _set(block.module, ("all_head_size",), block.heads * block.head_dim)
    for part, _, reader in _find_ffns(module):
        _set(part[1], ("intermediate_size",), _linear(part[1], reader).in_features)
    fit_configs(module)


def fit_configs(module: nn.Module) -> None:
    """Let configurations say what all layers have in common; where layers differ, they keep the original."""
    blocks, ffns = _find_attentions(module), _find_ffns(module)
    heads = {(block.heads, block.kv_heads) for block in blocks}
    widths = {_linear(part, reader).in_features for (_, part), _, reader in ffns}
    for config in _configs(module):
        # A head's size would else be derived from the number of heads.
        if len(heads) == 1 and getattr(config, "head_dim", None):
            _set(config, ("num_attention_heads",), blocks[0].heads)
            _set(config, KV_HEADS, blocks[0].kv_heads)
        if len(widths) == 1:
            _set(config, ("intermediate_size",), next(iter(widths)))


def fit_depth(module: nn.Module) -> None:
    """Let configurations say how many layers there are."""
    depth = len(layer_list(module)[1])
    for config in _configs(module):
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:depth]
        _set(config, ("num_hidden_layers",), depth)


def _find_attentions(module: nn.Module) -> list[Attention]:
    return [
        _attention(name, part, projections)
        for name, part in module.named_modules()
        for projections in ATTENTIONS
        if _linears(part, projections)
    ]


def _find_ffns(module: nn.Module) -> list[tuple[tuple[str, nn.Module], tuple[str, ...], str]]:
    """Each block: (its name, the module that holds its projections), writers, reader."""
    return [
        ((name, part), writers, reader)
        for name, part in module.named_modules()
        for writers, reader in FFNS
        if _linears(part, (*writers, reader))
    ]


def _head_units(module: nn.Module, block: Attention) -> Units:
    if block.heads % block.kv_heads:
        raise StepError(f"{block.name}: {block.heads} query heads do not share {block.kv_heads} evenly")
    for name, parameter in module.get_submodule(block.name).named_parameters():
        beside = name.startswith(("q_", "k_")) and name.rpartition(".")[0] not in block.projections
        if beside and parameter.numel() != block.head_dim:
            raise StepError(f"{block.name}.{name} spans several heads; leave out 'heads'")
    query, key, value, output = (f"{block.name}.{path}" for path in block.projections)
    group = block.heads // block.kv_heads * block.head_dim
    cuts = (
        *_writes(module, query, group),
        *_writes(module, key, block.head_dim),
        *_writes(module, value, block.head_dim),
        Cut(f"{output}.weight", 1, "reads", span=group),
    )
    return Units(block.name, "heads", block.kv_heads, cuts)


def _neurons(module: nn.Module, name: str, writers: Sequence[str], reader: str) -> Units:
    path = f"{name}." if name else ""
    width = _linear(module, path + reader).in_features
    for writer in writers:
        if _linear(module, path + writer).out_features != width:
            raise StepError(f"{path}{writer}: does not end where {path}{reader} begins; leave out 'ffn'")
    cuts = [cut for writer in writers for cut in _writes(module, path + writer, 1)]
    return Units(name, "ffn", width, (*cuts, Cut(f"{path}{reader}.weight", 1, "reads")))


def _writes(module: nn.Module, path: str, span: int) -> Iterator[Cut]:
    yield Cut(f"{path}.weight", 0, "writes", span=span)
    if _linear(module, path).bias is not None:
        yield Cut(f"{path}.bias", 0, "writes", span=span)


def _attention(name: str, part: nn.Module, projections: tuple[str, ...]) -> Attention:
    """The block whose projections are below `part`."""
    owner = part.get_submodule(projections[0].rpartition(".")[0])
    head_dim = next((int(getattr(owner, key)) for key in HEAD_DIMS if hasattr(owner, key)), 0)
    if not head_dim:
        raise StepError(
            f"{name}: the size of a head is unknown ({' or '.join(HEAD_DIMS)}); leave out 'heads'"
        )
    query, key, *_ = (_linear(part, path).out_features for path in projections)
    return Attention(name, owner, projections, head_dim, query // head_dim, key // head_dim)


def _linears(part: nn.Module, paths: Sequence[str]) -> bool:
    """Whether every path below `part` leads to a linear layer."""
    for path in paths:
        try:
            if not isinstance(part.get_submodule(path), nn.Linear):
                return False
        except AttributeError:
            return False
    return True


def _linear(module: nn.Module, path: str) -> nn.Linear:
    layer = module.get_submodule(path)
    assert isinstance(layer, nn.Linear)
    return layer


def _configs(module: nn.Module) -> list[Any]:
    """Every configuration object of the model, each once."""
    found = {id(part.config): part.config for part in module.modules() if hasattr(part, "config")}
    return list(found.values())


def _set(target: Any, names: Sequence[str], value: int) -> None:
    """Set those of `names` that `target` has."""
    for name in names:
        if hasattr(target, name):
            setattr(target, name, value)


def _model_name(module: nn.Module) -> str:
    inner = (part for part in module.modules() if hasattr(part, "save_pretrained"))
    return type(next(inner, module)).__name__
