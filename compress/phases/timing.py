"""How long a decoder's graphs take for calls of different sizes, interleaved, on this machine."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from runtime.decoder import Decoder
from runtime.manifest import DecoderGraph
from runtime.processing import Array
from runtime.session import open_session

# Sequences that decode together, and prompts; a call of so many tokens is one or the other.
BATCHES, PROMPTS = (1, 2, 4, 8, 16, 32), (64, 128)
CACHED = 64
# Two rounds at least; no more where one graph was faster by CLEARLY in all of them. A call of a few
# milliseconds is repeated for as long.
LEAST_ROUNDS, ROUNDS, CLEARLY = 2, 5, 1.25
REPEATED_SECONDS = 0.03


def time_calls(graphs: Mapping[str, tuple[Path, DecoderGraph]]) -> dict[str, dict[int, float]]:
    """Least seconds by name and number of tokens, for name -> (path of the file, its graph).

    The least, because whatever else the machine does makes a call slower and never faster.
    """
    calls = {name: _calls(path, graph) for name, (path, graph) in graphs.items()}
    sizes = list(next(iter(calls.values())))
    rounds: dict[int, list[dict[str, float]]] = {tokens: [] for tokens in sizes}
    for _ in range(ROUNDS):
        for tokens in [tokens for tokens in sizes if not is_settled(rounds[tokens])]:
            rounds[tokens].append({name: _seconds(each[tokens]) for name, each in calls.items()})
    return {name: {n: min(found[name] for found in rounds[n]) for n in sizes} for name in calls}


def is_settled(rounds: Sequence[Mapping[str, float]]) -> bool:
    """Whether one graph was `CLEARLY` the fastest in every round, each of seconds by name."""
    if len(rounds) < LEAST_ROUNDS:
        return False
    fastest = min(rounds[0], key=lambda name: rounds[0][name])
    rivals = [seconds for found in rounds for name, seconds in found.items() if name != fastest]
    return not rivals or max(found[fastest] for found in rounds) * CLEARLY < min(rivals)


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
    """The least of a few calls."""
    call()  # the first one fills caches that another graph has just emptied
    found: list[float] = []
    while not found or sum(found) < REPEATED_SECONDS:
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return min(found)
