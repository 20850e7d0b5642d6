"""Mixed precision: each weight gets 4, 8 or 16 bits; together they do the least damage for their size.

`sensitivity` measures what each weight costs in each format, `assignment` chooses, and the kernels are those
of the schemes with one format. Embeddings and the head are weights like the others.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto

from compress.errors import StepError
from compress.quantize.assignment import least_damage, total_size, within
from compress.quantize.blockwise import Floats, quantize_blocks, stored_bits
from compress.quantize.config import Mixed
from compress.quantize.fp16 import store_half
from compress.quantize.graph import Use, finish, shared_weights, stored_weights, table
from compress.quantize.observe import Feeds
from compress.quantize.sensitivity import Probe, as_stored
from compress.quantize.weight_only import store_blocks
from compress.step import Figures
from runtime.manifest import Graph

FORMATS = (4, 8, 16)


def mix_precisions(
    model: ModelProto, config: Mixed, graph: Graph, batches: Iterable[Feeds], folder: Path
) -> Figures:
    """Rewrite `model` in place. Returns figures: the damage of each weight in each format, what it got, and
    the bits a weight altogether.

    Raises StepError for a budget that the smallest formats exceed, before anything is measured.
    """
    stored = stored_weights(model)
    layers = {_name(uses): uses for uses in shared_weights(model, stored)}
    weights = {name: table(stored, uses[0]) for name, uses in layers.items()}
    sizes = [[_bits(layers[name], weights[name], b, config.group_size) for b in FORMATS] for name in layers]
    count = sum(weight.size for weight in weights.values())
    _check_budget(config, sizes, count)
    names = [use.weight for uses in layers.values() for use in uses]
    probe = Probe(model, graph, batches, list(dict.fromkeys(names)), folder)
    damages = [_damages(probe, layers[name], weights[name], config.group_size) for name in layers]
    front = least_damage(sizes, damages)
    number = within(front, sizes, config.budget.bits * count)
    assert number is not None  # the smallest fits
    choice = front[number]
    _store(model, list(layers.values()), list(weights.values()), choice, config)
    return {
        "weights": count,
        "bits_per_weight": total_size(choice, sizes) / count,
        "predicted_damage": sum(layer[taken] for layer, taken in zip(damages, choice, strict=True)),
        "sensitivity": {
            name: {"bits": FORMATS[taken], **{str(b): d for b, d in zip(FORMATS, damage, strict=True)}}
            for name, damage, taken in zip(layers, damages, choice, strict=True)
        },
    }


def _check_budget(config: Mixed, sizes: Sequence[Sequence[int]], count: int) -> None:
    if not count:
        raise StepError("quantize: mixed: this model has no weight matrix to give bits to")
    least = sum(map(min, sizes)) / count
    if config.budget.bits < least:
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


def _name(uses: Sequence[Use]) -> str:
    """What a report calls a weight: an embedding's own name, or what a layer makes."""
    return next((use.weight for use in uses if use.looks_up), uses[0].node.output[0])
