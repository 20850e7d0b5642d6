"""What adapters cost a decoding step: the plain graph beside the one that takes adapters, on random weights.

    python benchmarks/adapters.py

`nothing to add` runs the adapted graph with an adapter of zeros: what every request would pay if there were
one graph for all. Medians of interleaved rounds over one thread; ratios are to the plain graph.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from compress.artifact import GraphArtifact
from compress.export.decoder import export_decoder
from compress.lora.export import export_adapter
from compress.lora.layers import AdaptedLinear, adapted_layers, replace_module, without_adapters
from compress.machine import machine
from models.zoo.decoders import llama
from runtime.adapters import Adapter, read_adapter
from runtime.decoder import Decoder
from runtime.manifest import DecoderGraph, Signature
from runtime.session import open_session

SIZES = {
    "4M, 3 layers": {"hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 3},
    "34M, 12 layers": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 12},
}
RANK, BATCHES, PROMPT, ROUNDS, STEPS = 8, (1, 8), 64, 25, 4


def main() -> None:
    """Print one row for each model and batch."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("model", "batch", "plain ms", "nothing to add", "one adapter", "four adapters"):
        table.add_column(heading, justify="right")
    for name, sizes in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            for batch, times in _measure(Path(folder), sizes).items():
                plain, *others = times
                table.add_row(name, str(batch), f"{plain:.2f}", *(f"{each / plain:.2f}x" for each in others))
    console = Console(width=140)
    console.print(machine())
    console.print(table)


def _measure(folder: Path, sizes: dict[str, int]) -> dict[int, list[float]]:
    graph, adapter = _exported(folder, sizes)
    assert graph.adapters is not None
    plain, adapted = (open_session(folder / file, threads=1) for file in (graph.file, graph.adapters.file))
    twins = [Adapter(adapter.rank, adapter.factors, str(number)) for number in range(4)]
    mixes = [[None], [Adapter(1, {}, "zeros")], twins[:1], twins]
    found = {}
    for batch in BATCHES:
        decoders = []
        for mix in mixes:
            decoder = Decoder(plain, graph, batch, adapted=lambda: adapted)
            for slot in range(batch):
                decoder.prefill(slot, np.arange(PROMPT), mix[slot % len(mix)])
            decoders.append(decoder)
        rounds = [[_round(decoder, batch) for decoder in decoders] for _ in range(ROUNDS)]
        found[batch] = np.median(np.array(rounds), 0).tolist()
    return found


def _round(decoder: Decoder, batch: int) -> float:
    """Milliseconds a step, each from the same place."""
    start = time.perf_counter()
    for _ in range(STEPS):
        decoder.lengths[:] = PROMPT
        decoder.decode(np.full(batch, 1))
    return (time.perf_counter() - start) / STEPS * 1e3


def _exported(folder: Path, sizes: dict[str, int]) -> tuple[DecoderGraph, Adapter]:
    torch.manual_seed(0)
    heads = sizes["hidden_size"] // 64
    module = llama(vocab_size=4096, num_attention_heads=heads, num_key_value_heads=heads // 2, **sizes).eval()
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.Linear) and name.endswith("_proj"):
            apart = AdaptedLinear(layer, RANK, "random")
            nn.init.normal_(apart.lora_B.weight, std=0.01)
            replace_module(module, name, apart.eval())
    layers = adapted_layers(module)
    with without_adapters(module):
        graph = export_decoder(module, folder / "decoder.onnx")
    base = GraphArtifact(folder, graph, Signature(inputs=(), outputs=()))
    artifact, _ = export_adapter(module, layers, base, np.arange(PROMPT))
    assert isinstance(artifact.graph, DecoderGraph)
    assert artifact.graph.adapters is not None
    return artifact.graph, read_adapter(folder / "random.onnx_adapter", artifact.graph.adapters)


if __name__ == "__main__":
    main()
