"""Prometheus metrics, and their exposition for one process or several.

Labels are bounded: `model` is a served model's name or `-`, `route` a route's template or `unmatched`, so
random paths and names make no series. BentoML's own metrics are switched off, because they label with the
raw path. A count of requests is the histogram's `_count`. Those of text models are called as vLLM calls
them, with `modelpress_` where it has `vllm:`, because a colon is for recording rules and `promtool` refuses
it.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from runtime.scheduler import Scheduler
from service.later import Later

# Else every series has a twin that tells when it began.
disable_created_metrics()  # type: ignore[no-untyped-call]

# From a small model's millisecond to a long completion.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    """A gauge that is summed over the workers that live."""
    return Gauge(f"modelpress_{name}", text, labels, multiprocess_mode="livesum")


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"modelpress_{name}_total", text, labels)


def _seconds(name: str, text: str, *labels: str) -> Histogram:
    return Histogram(f"modelpress_{name}_seconds", text, labels, buckets=_SECONDS)


REQUEST_SECONDS = _seconds(
    "request_duration",
    "From the request's first byte to the answer's last; status 499 where the client left before.",
    "model",
    "route",
    "status",
)
REQUESTS_IN_FLIGHT = _gauge("requests_in_flight", "Requests being answered.")
REJECTIONS = _counter("rejections", "Requests refused or dropped before any work, by reason.", "reason")
CANCELLATIONS = _counter("cancellations", "Requests whose client left before the answer.", "model")
WORKERS = _gauge("workers", "Processes that answer requests.")

QUEUE_SECONDS = _seconds("queue", "From admission to the start of the batch.", "model")
BATCH_ROWS = Histogram("modelpress_batch_rows", "Rows in a batch.", ["model"], buckets=_ROWS)
BATCH_TOKENS = Histogram(
    "modelpress_batch_tokens", "Tokens in a batch, padding included.", ["model"], buckets=_TOKENS
)

PROMPT_TOKENS = _counter("prompt_tokens", "Tokens of admitted prompts.", "model")
GENERATION_TOKENS = _counter("generation_tokens", "Tokens generated.", "model")
TIME_TO_FIRST_TOKEN = _seconds(
    "time_to_first_token", "From admission to a prompt's first token, waiting included.", "model"
)
TIME_PER_OUTPUT_TOKEN = _seconds(
    "request_time_per_output_token", "A finished answer's mean time per token after the first.", "model"
)
REQUESTS_RUNNING = _gauge("num_requests_running", "Sequences that hold a KV slot.", "model")
REQUESTS_WAITING = _gauge("num_requests_waiting", "Prompts that wait for a KV slot.", "model")
KV_CACHE_USAGE = Gauge(
    "modelpress_kv_cache_usage_perc",
    "Share of the KV cache in use, from 0 to 1.",
    ["model"],
    multiprocess_mode="livemax",
)
PREFIX_QUERIES = _counter("prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", "model")
PREFIX_HITS = _counter("prefix_cache_hits", "Prompt tokens found in the prefix cache.", "model")
PREEMPTIONS = _counter("num_preemptions", "Sequences set back for want of KV memory.", "model")
DRAFT_TOKENS = _counter("spec_decode_num_draft_tokens", "Tokens proposed by speculation.", "model")
GRAPH_CALLS = _counter(
    "graph_calls", "Calls of a text model that a graph ran, by its file.", "model", "graph"
)
ACCEPTED_TOKENS = _counter("spec_decode_num_accepted_tokens", "Proposed tokens that were right.", "model")
ENGINE_RESTARTS = _counter("engine_restarts", "Models restarted because they stalled.", "model")

MODEL_LOAD_SECONDS = Gauge(
    "modelpress_model_load_seconds", "Time it took to load a model.", ["model"], multiprocess_mode="livemax"
)
MODEL_BYTES = Gauge(
    "modelpress_model_bytes", "Size of a model's files.", ["model"], multiprocess_mode="livemax"
)
ROLLBACKS = _counter("rollbacks", "Broken models taken out of service.", "model")
FALLBACKS = _counter("fallbacks", "Requests given to a cheaper variant.", "alias")
SHADOW_COMPARED = _counter("shadow_compared", "Answers compared with a shadow's.", "model", "shadow")
SHADOW_AGREED = _counter("shadow_agreed", "Answers that a shadow gave alike.", "model", "shadow")

RESIDENT_BYTES = _gauge("resident_memory_bytes", "Memory of all workers.")
TASKS = _gauge("tasks", "Tasks on the event loops: what grows while nobody asks is a leak.")
CPU_SECONDS = _counter("cpu_seconds", "Processor time of all workers.")


class _Batch(NamedTuple):
    rows: int
    tokens: int
    waits: Sequence[float]


class BatchSeries:
    """One model's batch histograms, looked up once."""

    def __init__(self, model: str) -> None:
        series = BATCH_ROWS.labels(model), BATCH_TOKENS.labels(model), QUEUE_SECONDS.labels(model)
        # While the batch runs. Before that, its thread would wait for the interpreter.
        self._batches = Later[_Batch](partial(_observe, *series), seconds=0.001)

    def begin(self, rows: int, tokens: int, waits: Sequence[float]) -> None:
        """A batch begins; `waits` are its requests' seconds in the queue."""
        self._batches.add(_Batch(rows, tokens, waits))


def _observe(rows: Histogram, tokens: Histogram, seconds: Histogram, batches: Sequence[_Batch]) -> None:
    for batch in batches:
        rows.observe(batch.rows)
        tokens.observe(batch.tokens)
        for wait in batch.waits:
            seconds.observe(wait)


class EngineSeries:
    """One text model's gauges and counters, from what its scheduler says of itself."""

    def __init__(self, model: str) -> None:
        self._running, self._waiting = REQUESTS_RUNNING.labels(model), REQUESTS_WAITING.labels(model)
        self._usage = KV_CACHE_USAGE.labels(model)
        counters = {
            "prefix_query_tokens": PREFIX_QUERIES,
            "prefix_hit_tokens": PREFIX_HITS,
            "preemptions": PREEMPTIONS,
            "draft_tokens": DRAFT_TOKENS,
            "accepted_tokens": ACCEPTED_TOKENS,
        }
        self._model, self._figures = model, tuple(counters)
        self._counters = {name: counter.labels(model) for name, counter in counters.items()}
        self._seen: dict[str, int] = {}

    def note(self, scheduler: Scheduler) -> None:
        """Bring the series up to date."""
        now = scheduler.statistics
        self._running.set(now.running)
        self._waiting.set(now.waiting)
        self._usage.set(now.kv_tokens_used / max(1, now.kv_tokens_capacity))
        for name in self._figures:
            self._bring(name, getattr(now, name))
        for file, calls in now.graph_calls.items():
            if file not in self._counters:
                self._counters[file] = GRAPH_CALLS.labels(self._model, file)
            self._bring(file, calls)

    def _bring(self, name: str, value: int) -> None:
        # A fresh scheduler counts from nought again.
        seen, self._seen[name] = self._seen.get(name, 0), value
        if value != seen:
            self._counters[name].inc(value - seen if value > seen else value)


def exposition() -> bytes:
    """Everything measured, in Prometheus' text format; over all workers where there are several."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None:
        return generate_latest()
    registry = CollectorRegistry()
    registry.register(_Workers(Path(folder)))
    return generate_latest(registry)


class _Workers(Collector):
    """What the workers' files hold, all together.

    The library's own collector gives up at an empty file, which is what a worker has while it starts, and for
    good where it is killed in that moment (github.com/prometheus/client_python/issues/1199).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        files = []
        for path in self._folder.glob("*.db"):
            # A dead worker's gauges are taken away at any time.
            with suppress(FileNotFoundError):
                if path.stat().st_size:
                    files.append(str(path))
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return merged
