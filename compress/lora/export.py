"""A module with separate adapters, exported: its base as any decoder, and its adapter as a file beside it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import nn

from compress.artifact import GraphArtifact
from compress.export.parity import check_logits
from compress.lora.attach import attach, find_sites
from compress.lora.layers import AdaptedLinear
from runtime.adapters import adapter_inputs, factor_names, read_adapter
from runtime.decoder import score
from runtime.manifest import AdapterGraph, AdapterSite, DecoderGraph
from runtime.processing import Array
from runtime.session import open_session

SUFFIX = ".onnx_adapter"
PARITY_ROWS, PARITY_LENGTH = 2, 16


def export_adapter(
    module: nn.Module, layers: Mapping[str, AdaptedLinear], base: GraphArtifact, tokens: Array
) -> tuple[GraphArtifact, dict[str, float]]:
    """Write the adapter of `layers` and the graph that takes it beside the exported `base`.

    `tokens` int64 [stream] are real ones, for the parity of the adapted graph with `module`, which has its
    adapters in place. Raises ExportError where they disagree.
    """
    assert isinstance(base.graph, DecoderGraph)
    weights = {name: layer.base.weight.detach().numpy() for name, layer in layers.items()}
    sites = find_sites(base.path, weights)
    name = next(iter(layers.values())).adapter
    file = name + SUFFIX
    write_adapter(base.folder / file, sites, layers)
    graph = base.graph.model_copy(update={"adapters": AdapterGraph(sites=sites, files={name: file})})
    adapted = replace(base, graph=graph)
    attach(adapted)
    return adapted, _check(module, adapted, base.folder / file, tokens)


def write_adapter(path: Path, sites: tuple[AdapterSite, ...], layers: Mapping[str, AdaptedLinear]) -> None:
    """The factors of `layers`, scaling included, in onnxruntime's format."""
    factors = {}
    for site in sites:
        layer = layers[site.name]
        for name, linear in zip(factor_names(site), (layer.lora_A, layer.lora_B), strict=True):
            value = np.ascontiguousarray(linear.weight.detach().numpy().T)
            factors[name] = ort.OrtValue.ortvalue_from_numpy(value)
    adapter = ort.AdapterFormat()
    adapter.set_adapter_version(1)
    adapter.set_model_version(1)
    adapter.set_parameters(factors)
    staging = path.with_suffix(".partial")
    adapter.export_adapter(str(staging))
    staging.rename(path)


def _check(module: nn.Module, adapted: GraphArtifact, path: Path, tokens: Array) -> dict[str, float]:
    """Logits of the adapted graph against the module's."""
    assert isinstance(adapted.graph, DecoderGraph)
    assert adapted.graph.adapters is not None
    graph = adapted.graph.adapters
    length = min(PARITY_LENGTH, adapted.graph.context_length)
    input_ids = np.resize(tokens, (PARITY_ROWS, length))
    more = adapter_inputs([read_adapter(path, graph)] * PARITY_ROWS, graph)
    target = adapted.folder / graph.file
    got = score(open_session(target), adapted.graph, input_ids, more)
    with torch.inference_mode():
        wanted = module(torch.from_numpy(input_ids)).logits.numpy()
    return check_logits(got, wanted, target)
