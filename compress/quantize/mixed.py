"""Mixed precision: each weight gets 4, 8 or 16 bits; together they do the least damage for their size.

`sensitivity` measures what each weight costs in each format, `assignment` chooses, and the kernels are those
of the schemes with one format. Embeddings and the head are weights like the others.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto

from compress.errors import StepError
from compress.quantize.assignment import least_damage, smallest_within, total_size, within
from compress.quantize.blockwise import Floats, quantize_blocks, stored_bits
from compress.quantize.config import Budget, Mixed
from compress.quantize.fp16 import store_half
from compress.quantize.graph import Use, finish, shared_weights, stored_weights, table
from compress.quantize.observe import Feeds
from compress.quantize.sensitivity import Probe, as_stored
from compress.quantize.weight_only import store_blocks
from compress.step import Figures
from runtime.manifest import Graph

FORMATS = (4, 8, 16)

# How much worse a graph's metric is than the unchanged one's.
Drop = Callable[[ModelProto], float]


def mix_precisions(
    model: ModelProto, config: Mixed, graph: Graph, batches: Iterable[Feeds], folder: Path, drop: Drop
) -> Figures:
    """Rewrite `model` in place. Returns figures: the damage of each weight in each format, what it got, the
    bits a weight altogether and, under a `max_drop`, what `drop` measured.

    Raises StepError for a budget in bits that the smallest formats exceed, before anything is measured, and
    for a `max_drop` that 16 bits a weight do not keep to.
    """
    stored = stored_weights(model)
    found_uses = _stored_uses(model)
    layers = dict(zip(_names(found_uses), found_uses, strict=True))
    weights = {name: table(stored, uses[0]) for name, uses in layers.items()}
    sizes = [[_bits(layers[name], weights[name], b, config.group_size) for b in FORMATS] for name in layers]
    count = sum(weight.size for weight in weights.values())
    _check_budget(config, sizes, count)
    names = [use.weight for uses in layers.values() for use in uses]
    probe = Probe(model, graph, batches, list(dict.fromkeys(names)), folder)
    damages = [_damages(probe, layers[name], weights[name], config.group_size) for name in layers]
    front = least_damage(sizes, damages)

    def mixed(choice: Sequence[int]) -> ModelProto:
        made = ModelProto()
        made.CopyFrom(model)
        _store(made, _stored_uses(made), list(weights.values()), choice, config)
        return made

    choice, found = _within_budget(config.budget, front, sizes, count, lambda choice: drop(mixed(choice)))
    model.CopyFrom(mixed(choice))
    return {
        **found,
        "weights": count,
        "bits_per_weight": total_size(choice, sizes) / count,
        "predicted_damage": sum(layer[taken] for layer, taken in zip(damages, choice, strict=True)),
        "sensitivity": {
            name: {"bits": FORMATS[taken], **{str(b): d for b, d in zip(FORMATS, damage, strict=True)}}
            for name, damage, taken in zip(layers, damages, choice, strict=True)
        },
    }


def _within_budget(
    budget: Budget,
    front: Sequence[Sequence[int]],
    sizes: Sequence[Sequence[int]],
    count: int,
    drop: Callable[[Sequence[int]], float],
) -> tuple[Sequence[int], Figures]:
    """The choice of `front` that the budget asks for, and what was measured to find it."""
    if budget.bits is not None:
        number = within(front, sizes, budget.bits * count)
        assert number is not None  # the smallest fits
        return front[number], {}
    assert budget.max_drop is not None
    number, drops = smallest_within(len(front), lambda number: drop(front[number]), budget.max_drop)
    if number is None:
        raise StepError(
            f"quantize: budget.max_drop: {budget.max_drop:g} is below the {min(drops.values()):.3g} that was "
            f"measured with 16 bits a weight over {budget.examples} examples; allow more, or more 'examples'"
        )
    trials = [
        {"bits": total_size(front[tried], sizes) / count, "drop": found}
        for tried, found in sorted(drops.items())
    ]
    return front[number], {"drop": drops[number], "trials": trials}


def _check_budget(config: Mixed, sizes: Sequence[Sequence[int]], count: int) -> None:
    if not count:
        raise StepError("quantize: mixed: this model has no weight matrix to give bits to")
    least = sum(map(min, sizes)) / count
    if config.budget.bits is not None and config.budget.bits < least:
        raise StepError(
            f"quantize: budget.bits: {config.budget.bits:g} is below the {least:.2f} that 4 bits and their "
            f"scales take in groups of {config.group_size}; ask for more, or raise 'group_size'"
        )


def _bits(uses: Sequence[Use], weight: Floats, bits: int, group_size: int) -> int:
    """What a weight takes. Halves stay as the exporter stored them: a tied one twice, once transposed."""
    if bits == 16:
        return weight.size * bits * len({use.weight for use in uses})
    return stored_bits(weight.shape, bits, group_size)


def _damages(probe: Probe, uses: Sequence[Use], weight: Floats, group_size: int) -> list[float]:
    return [probe.damage(dict(as_stored(uses, _rounded(weight, bits, group_size)))) for bits in FORMATS]


def _rounded(weight: Floats, bits: int, group_size: int) -> Floats:
    if bits == 16:
        return weight.astype(np.float16).astype(np.float32)
    return quantize_blocks(weight, bits, group_size).dequantize()


def _store(
    model: ModelProto,
    layers: Sequence[Sequence[Use]],
    weights: Sequence[Floats],
    choice: Sequence[int],
    config: Mixed,
) -> None:
    halves: set[str] = set()
    for uses, weight, taken in zip(layers, weights, choice, strict=True):
        if FORMATS[taken] == 16:
            halves.update(use.weight for use in uses)
        else:
            blocks = quantize_blocks(weight, FORMATS[taken], config.group_size)
            store_blocks(model, uses, blocks, config.accuracy_level)
    finish(model)
    store_half(model, halves)


def _stored_uses(model: ModelProto) -> list[list[Use]]:
    return shared_weights(model, stored_weights(model))


def _names(layers: Sequence[Sequence[Use]]) -> list[str]:
    """What a report calls each weight; modules with several weights get numbers."""
    seen: Counter[str] = Counter()
    names = []
    for uses in layers:
        name = _name(uses)
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return names


def _name(uses: Sequence[Use]) -> str:
    """The module's path, where the exporter knew it; else an embedding's own name, or what a layer makes."""
    lookup = next((use for use in uses if use.looks_up), None)
    first = lookup or uses[0]
    return str(first.node.name) or (lookup.weight if lookup else first.node.output[0])
