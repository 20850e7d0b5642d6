"""How long a decoder's graphs take for calls of different sizes, interleaved, on this machine."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from runtime.decoder import Decoder
from runtime.manifest import DecoderGraph
from runtime.processing import Array
from runtime.session import open_session

# Sequences that decode together, and prompts; a call of so many tokens is one or the other.
BATCHES, PROMPTS = (1, 2, 4, 8, 16, 32), (64, 128)
CACHED = 64
ROUNDS = 5


def time_calls(graphs: Mapping[str, tuple[Path, DecoderGraph]]) -> dict[str, dict[int, float]]:
    """Median seconds by name and number of tokens, for name -> (path of the file, its graph)."""
    calls = {name: _calls(path, graph) for name, (path, graph) in graphs.items()}
    rounds: dict[str, dict[int, list[float]]] = {name: {} for name in calls}
    for _ in range(ROUNDS):
        for tokens in next(iter(calls.values())):
            for name, by_tokens in calls.items():
                rounds[name].setdefault(tokens, []).append(_seconds(by_tokens[tokens]))
    return {name: {n: float(np.median(all_)) for n, all_ in found.items()} for name, found in rounds.items()}


def _calls(path: Path, graph: DecoderGraph) -> dict[int, Callable[[], object]]:
    cached = min(CACHED, graph.context_length // 2)
    capacity = min(graph.context_length, 2 * max(PROMPTS))
    small = graph.model_copy(update={"context_length": capacity})
    decoder = Decoder(open_session(path, spinning=True), small, max(BATCHES))
    found = {batch: _decode(decoder, batch, cached) for batch in BATCHES}
    return found | {n: _prefill(decoder, n) for n in PROMPTS if n < capacity}


def _decode(decoder: Decoder, batch: int, cached: int) -> Callable[[], object]:
    tokens: Array = np.zeros(batch, np.int64)

    def call() -> None:
        decoder.lengths[:] = cached
        decoder.decode(tokens)

    return call


def _prefill(decoder: Decoder, length: int) -> Callable[[], object]:
    def call() -> None:
        decoder.release(0)
        decoder.prefill(0, np.zeros(length, np.int64))

    return call


def _seconds(call: Callable[[], object]) -> float:
    call()  # the first one fills caches that another graph has just emptied
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
