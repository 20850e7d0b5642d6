"""modelpress from its Python loop: requests go through the scheduler, as when served.

Precisions: fp32, int8, int4 (the output head in 8 bits), int4-head4 (in 4, too), auto, which has a graph for
each size of a call, auto-head4, and with -kv8 keys and values in 8 bits. It runs in the project's own
environment.
"""

import shutil
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from protocol import GROUP_SIZE, PROMPT_TOKENS, prompt, serve, timed

from compress.artifact import GraphArtifact
from compress.step import Calibration, methods, validate
from runtime.decoder import INPUT_IDS, Decoder
from runtime.manifest import DecoderGraph, Signature
from runtime.pacing import measured_chunk
from runtime.phases import open_phases
from runtime.prefix_cache import PrefixCache
from runtime.processing import Array
from runtime.sampling import SamplingParams
from runtime.scheduler import Request, Scheduler

INT4: dict[str, Any] = {"scheme": "int4", "group_size": GROUP_SIZE}
INT4_HEAD4 = {**INT4, "head_bits": 4}
INT8 = {"scheme": "int8-dynamic"}
KV8 = {"method": "kv-cache", "dtype": "int8", "samples": 8}
# What a precision is made from, and how.
STEPS: dict[str, tuple[str, dict[str, Any]]] = {
    "int8": ("fp32", {"method": "quantize", **INT8}),
    "int4": ("fp32", {"method": "quantize", **INT4}),
    "int4-head4": ("fp32", {"method": "quantize", **INT4_HEAD4}),
    "auto": ("fp32", {"method": "phases", "graphs": [INT4, INT8]}),
    "auto-head4": ("fp32", {"method": "phases", "graphs": [INT4_HEAD4, INT8]}),
    "int4-head4-kv8": ("int4-head4", KV8),
    "auto-head4-kv8": ("auto-head4", KV8),
}
# Room for the longest workload; a slot reserves it all.
CAPACITY, SLOTS = 1152, 32
# Steps of the loop, and as many of the graph alone, before the other's turn.
STRETCH = 4


class Modelpress:
    def __init__(self, folder: Path, precision: str, threads: int) -> None:
        artifact = _shipped(folder, precision)
        assert isinstance(artifact.graph, DecoderGraph)
        self.graph = artifact.graph.model_copy(update={"context_length": CAPACITY})
        self.weights = artifact.size_bytes
        phases = open_phases(artifact.folder.joinpath, self.graph, threads=threads)
        self.decoder = Decoder(phases, self.graph, SLOTS)
        self.prefill_chunk = measured_chunk(self.decoder)

    def prefill(self, tokens: int) -> float:
        scheduler = self._scheduler([prompt(tokens)], 1)
        return timed(lambda: _finish(scheduler))

    def decode(self, batch: int, steps: int) -> float:
        scheduler = self._begun(batch)
        seconds = timed(lambda: [scheduler.step() for _ in range(steps)])
        _cancel(scheduler, batch)
        return seconds

    def loop_share(self, batch: int, steps: int) -> float:
        """The loop's rate over that of its graph alone, on the same sequences: the median of turns."""
        scheduler, tokens, shares = self._begun(batch), np.full(batch, 5), []
        for _ in range(steps // STRETCH):
            lengths = self.decoder.lengths[:batch].copy()
            graph = timed(lambda: [self.decoder.decode(tokens) for _ in range(STRETCH)])
            self.decoder.lengths[:batch] = lengths
            shares.append(graph / timed(lambda: [scheduler.step() for _ in range(STRETCH)]))
        _cancel(scheduler, batch)
        return statistics.median(shares)

    def beside(self, tokens: int, others: int) -> float:
        """Time to a prompt's first token while a long one is being read, over its time on an idle engine."""
        _finish(self._scheduler([prompt(tokens)], 1))
        scheduler = self._scheduler([prompt(tokens)], 1)
        idle = timed(lambda: _finish(scheduler))
        scheduler = self._scheduler([prompt(others)], 1)
        scheduler.step()
        # It comes in the middle of a chunk, on average.
        underway = timed(scheduler.step) / 2
        params = SamplingParams(max_tokens=1, temperature=0)
        scheduler.add(Request("short", prompt(tokens), params))
        busy = underway + timed(lambda: _until(scheduler, "short"))
        _finish(scheduler)
        return busy / idle

    def shared_prefix(self, tokens: int) -> float:
        """Time to the first token of a prompt whose beginning has been read for another, over that one's."""
        scheduler = Scheduler(
            self.decoder, prefix_cache=PrefixCache(1 << 30), prefill_chunk=self.prefill_chunk
        )
        seconds = []
        for row in range(2):
            own = prompt(16, row + 1)
            params = SamplingParams(max_tokens=1, temperature=0)
            scheduler.add(Request(str(row), prompt(tokens) + own, params))
            seconds.append(timed(lambda: _finish(scheduler)))
        return seconds[1] / seconds[0]

    def overhead_mb(self) -> float:
        """Resident memory beyond the weights' files and the whole KV cache, in MB."""
        for buffer in self.decoder.cache.buffers:
            buffer.fill(0)  # until it is written, it is not resident
        kv = sum(buffer.nbytes for buffer in self.decoder.cache.buffers)
        return (psutil.Process().memory_info().rss - kv - self.weights) / 1e6

    def _begun(self, batch: int) -> Scheduler:
        """Past the first token of every sequence."""
        scheduler = self._scheduler([prompt(PROMPT_TOKENS, row) for row in range(batch)], CAPACITY)
        begun: set[str] = set()
        while len(begun) < batch:
            begun |= {event.request_id for event in scheduler.step()}
        return scheduler

    def _scheduler(self, rows: list[list[int]], new_tokens: int) -> Scheduler:
        scheduler = Scheduler(self.decoder, prefill_chunk=self.prefill_chunk)
        for row, tokens in enumerate(rows):
            scheduler.add(Request(str(row), tokens, SamplingParams(max_tokens=new_tokens, temperature=0)))
        return scheduler


def _until(scheduler: Scheduler, request: str) -> None:
    while not any(event.request_id == request for event in scheduler.step()):
        pass


def _cancel(scheduler: Scheduler, batch: int) -> None:
    for row in range(batch):
        scheduler.cancel(str(row))


def _finish(scheduler: Scheduler) -> None:
    while scheduler.has_work:
        scheduler.step()


def _shipped(folder: Path, precision: str) -> GraphArtifact:
    """The graph as it is published: nothing more is done to it."""
    artifact = _artifact(folder, precision)

    def finish(target: Path) -> GraphArtifact:
        from compress.embedding import take_out  # not imported where memory is measured

        return take_out(artifact, target) or artifact

    return _made(artifact.folder.with_name(f"{artifact.folder.name}-shipped"), finish)


def _artifact(folder: Path, precision: str) -> GraphArtifact:
    """The graph of the model at `folder`."""
    # A folder made in other groups stays what it is.
    group = f"-g{GROUP_SIZE}" if precision.startswith(("int4", "auto")) else ""
    target = folder / f"modelpress-{precision}{group}"
    if precision == "fp32":
        return _made(target, lambda target: _export(folder, target))
    return _made(target, lambda target: _convert(folder, target, precision))


def _made(target: Path, make: Callable[[Path], GraphArtifact]) -> GraphArtifact:
    """What `make` writes into the folder `target`, once."""
    if (target / "graph.json").is_file():
        return GraphArtifact.load(target)
    shutil.rmtree(target, ignore_errors=True)  # what was cut off
    target.mkdir()
    artifact = make(target)
    artifact.save()
    return artifact


def _export(folder: Path, target: Path) -> GraphArtifact:
    from transformers import AutoModelForCausalLM

    from compress.export.decoder import export_decoder

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    graph = export_decoder(model, target / "decoder.onnx")
    return GraphArtifact(target, graph, Signature(inputs=(), outputs=()))


def _convert(folder: Path, target: Path, precision: str) -> GraphArtifact:
    before, settings = STEPS[precision]
    step = validate(settings)
    artifact, _ = methods()[step.method].run(step, _artifact(folder, before), target, Calibration(_windows))
    return artifact


def _windows(samples: int) -> Iterator[dict[str, Array]]:
    """Of random weights, any tokens show the range of keys and values."""
    return iter([{INPUT_IDS: np.array([prompt(PROMPT_TOKENS, row) for row in range(samples)])}])


serve(Modelpress)
