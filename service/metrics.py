"""Prometheus metrics, and their exposition for one process or several.

Labels are bounded: `model` is a served model's name or `-`, `route` a route's template or `unmatched`, so
random paths and names make no series. BentoML's own metrics are switched off, because they label with the
raw path. A count of requests is the histogram's `_count`.
"""

import os

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

# Else every series has a twin that tells when it began.
disable_created_metrics()  # type: ignore[no-untyped-call]

# From a small model's millisecond to a long completion.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

REQUEST_SECONDS = Histogram(
    "modelpress_request_duration_seconds",
    "From the request's first byte to the answer's last; status 499 where the client left before.",
    ["model", "route", "status"],
    buckets=_SECONDS,
)
REQUESTS_IN_FLIGHT = Gauge(
    "modelpress_requests_in_flight", "Requests being answered.", multiprocess_mode="livesum"
)
PROMPT_TOKENS = Counter("modelpress_prompt_tokens_total", "Tokens of admitted prompts.", ["model"])
GENERATED_TOKENS = Counter("modelpress_generated_tokens_total", "Tokens generated.", ["model"])
TIME_TO_FIRST_TOKEN = Histogram(
    "modelpress_time_to_first_token_seconds",
    "From admission to a prompt's first token, waiting included.",
    ["model"],
    buckets=_SECONDS,
)
KV_SLOTS_USED = Gauge(
    "modelpress_kv_slots_used", "Sequences that hold a KV slot.", ["model"], multiprocess_mode="livesum"
)
REQUESTS_WAITING = Gauge(
    "modelpress_requests_waiting", "Prompts that wait for a KV slot.", ["model"], multiprocess_mode="livesum"
)
MODEL_LOAD_SECONDS = Gauge(
    "modelpress_model_load_seconds", "Time it took to load a model.", ["model"], multiprocess_mode="livemax"
)


def exposition() -> bytes:
    """Everything measured, in Prometheus' text format; over all workers where there are several."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
