"""A small Llama with two adapters: exported as one base with both, and merged into two models."""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compress.artifact import GraphArtifact
from compress.export.decoder import export_decoder
from compress.lora.export import export_adapter
from compress.lora.layers import AdaptedLinear, adapted_layers, replace_module, without_adapters
from runtime.adapters import Adapters
from runtime.decoder import Decoder
from runtime.manifest import DecoderGraph, Signature
from runtime.prefix_cache import PrefixCache
from runtime.scheduler import Scheduler
from runtime.session import open_session

TOKENS = np.random.default_rng(0).integers(0, 96, 64)


@dataclass(frozen=True, slots=True)
class Served:
    """A base with its two adapters' files, and each adapter merged, as torch modules by the same names."""

    artifact: GraphArtifact
    files: dict[str, Path]
    merged: dict[str | None, Any]

    @property
    def graph(self) -> DecoderGraph:
        assert isinstance(self.artifact.graph, DecoderGraph)
        return self.artifact.graph

    def adapters(self) -> Adapters:
        loaded = Adapters(self.graph.adapters)
        for name, path in self.files.items():
            loaded.load(name, path)
        return loaded

    def scheduler(self, slots: int, adapters: Adapters, prefixes: PrefixCache | None = None) -> Scheduler:
        assert self.graph.adapters is not None
        folder, file = self.artifact.folder, self.graph.adapters.file
        decoder = Decoder(
            open_session(self.artifact.path), self.graph, slots, adapted=lambda: open_session(folder / file)
        )
        return Scheduler(decoder, adapters=adapters, prefix_cache=prefixes)


def adapted(llama: Any, name: str, targets: tuple[str, ...], rank: int, seed: int) -> Any:
    """A copy of `llama` with separate adapters of seeded factors."""
    module = deepcopy(llama)
    torch.manual_seed(seed)
    for path, layer in list(module.named_modules()):
        if isinstance(layer, nn.Linear) and path.endswith(targets):
            apart = AdaptedLinear(layer, rank, name)
            nn.init.normal_(apart.lora_A.weight, std=0.3)
            nn.init.normal_(apart.lora_B.weight, std=0.3)
            replace_module(module, path, apart.eval())
    return module


def merge(module: Any) -> Any:
    result = deepcopy(module)
    with torch.no_grad():
        for name, layer in adapted_layers(result).items():
            layer.base.weight += layer.lora_B.weight @ layer.lora_A.weight
            replace_module(result, name, layer.base)
    return result


@pytest.fixture(scope="session")
def served(llama: Any, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """`style` adapts every layer with rank 3, `task` two kinds of them with rank 5."""
    modules = {
        "style": adapted(llama, "style", ("_proj",), 3, seed=1),
        "task": adapted(llama, "task", ("q_proj", "down_proj"), 5, seed=2),
    }
    files, artifacts = {}, {}
    for name, module in modules.items():
        folder = tmp_path_factory.mktemp(name)
        layers = adapted_layers(module)
        with without_adapters(module):
            graph = export_decoder(module, folder / "decoder.onnx")
        base = GraphArtifact(folder, graph, Signature(inputs=(), outputs=()))
        artifacts[name], _ = export_adapter(module, layers, base, TOKENS)
        files[name] = folder / f"{name}.onnx_adapter"
    merged = {None: llama, **{name: merge(module) for name, module in modules.items()}}
    return Served(artifacts["style"], files, merged)
