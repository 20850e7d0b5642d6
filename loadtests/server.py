"""What the server said and took, out of what `monitor.py` saw of it, beside what the clients counted.

Counters of a server that we did not write have any name: those of the common ones are known here, and only
they are compared. Everything else that changed is listed as it is.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from loadtests.monitor import Observed, Usage
from loadtests.sample import Manner
from loadtests.samples import Samples

# Requests that were answered, by whichever server this is.
REQUESTS = (
    "modelpress_request_duration_seconds_count",
    "vllm:request_success_total",
    "sglang:num_requests_total",
    "tgi_request_count_total",
    "tgi_request_count",
    "nv_inference_request_success_total",
    "nv_inference_request_success",
    "bentoml_service_request_total",
    "http_requests_total",
)
TOKENS = (
    "modelpress_generated_tokens_total",
    "vllm:generation_tokens_total",
    "sglang:generation_tokens_total",
    "tgi_request_generated_tokens_sum",
)

# Label values of requests that are not ours to count: the scrapes themselves, probes, clients that left.
ASIDE = ("metrics", "livez", "readyz", "healthz", "health", "499")

# Gauges with the most movement; a page of a hundred constant lines tells nothing.
MOST_GAUGES = 12

# CPU time comes in ticks of 10 ms; over less than this it is mostly rounding.
SHORTEST_S = 0.5

Values = dict[str, float]


@dataclass(frozen=True, slots=True)
class Reconciled:
    """One count of the clients' beside the server's. Failed requests may or may not be in the server's."""

    what: str
    metric: str
    clients: int
    server: int
    agree: bool


@dataclass(frozen=True, slots=True)
class Moment:
    """A figure at a time, in milliseconds after the start of the plan."""

    at_ms: float
    value: float


@dataclass(frozen=True, slots=True)
class Server:
    """`changes`: by how much counters grew from before to after. `cpu_cores`: used on average.

    Processes and memory are None where the server is on another machine.
    """

    scrapes: int
    reconciled: list[Reconciled]
    changes: Values
    gauges: dict[str, list[Moment]]
    processes: int | None
    cpu_cores: float | None
    memory_bytes: int | None
    cpu: list[Moment]


def describe(observed: Observed, start: float, samples: Samples, unfinished: int) -> Server:
    """Everything that can be said. `unfinished` requests may or may not have been counted by the server."""
    families = [(at, found) for at, text in observed.scrapes if (found := _parse(text)) is not None]
    counters = [
        _values(found, ("counter", "histogram", "summary"), ("_total", "_count", "_sum"))
        for _, found in families
    ]
    changes = _changes(counters[0], counters[-1]) if len(counters) > 1 else {}
    gauges = [(at, _values(found, ("gauge",), ("",))) for at, found in families]
    return Server(
        scrapes=len(families),
        reconciled=list(reconcile(changes, samples, unfinished)),
        changes={name: value for name, value in changes.items() if value},
        gauges=_moving(gauges, start),
        processes=observed.usage[-1].processes if observed.usage else None,
        cpu_cores=_cores(observed.usage[0], observed.usage[-1]) if len(observed.usage) > 1 else None,
        memory_bytes=max((usage.memory_bytes for usage in observed.usage), default=None),
        cpu=[
            Moment(round((after.at - start) * 1e3, 1), _cores(before, after))
            for before, after in pairwise(observed.usage)
            if after.at - before.at > SHORTEST_S
        ],
    )


def reconcile(changes: Values, samples: Samples, unfinished: int) -> Iterator[Reconciled]:
    """The server's counts beside those of all clients, for what both count."""
    unsure = int((samples.error >= 0).sum() + (samples.manner == Manner.CANCEL).sum()) + unfinished
    answered = int(samples.answered.sum())
    if name := _first(REQUESTS, changes):
        counted = round(_sum(name, changes))
        yield Reconciled("requests", name, answered, counted, answered <= counted <= answered + unsure)
    if (name := _first(TOKENS, changes)) and (samples.tokens >= 0).any():
        tokens = int(samples.tokens[samples.answered & (samples.tokens >= 0)].sum())
        counted = round(_sum(name, changes))
        agree = counted == tokens or (unsure > 0 and counted >= tokens)
        yield Reconciled("tokens", name, tokens, counted, agree)


def _first(names: Iterable[str], changes: Values) -> str | None:
    return next((name for name in names if any(_is(name, series) for series in changes)), None)


def _sum(name: str, changes: Values) -> float:
    return sum(
        value
        for series, value in changes.items()
        if _is(name, series) and not any(f'"{aside}"' in series or f'/{aside}"' in series for aside in ASIDE)
    )


def _is(name: str, series: str) -> bool:
    return series == name or series.startswith(name + "{")


def _parse(text: str) -> list[Metric] | None:
    """None for what is no exposition: what a server says of itself must not cost the run."""
    try:
        return list(text_string_to_metric_families(text))
    except Exception:  # the parser raises whatever the text makes it stumble over
        return None


def _values(families: Iterable[Metric], types: Sequence[str], endings: Sequence[str]) -> Values:
    """Series of these types by `name{label="value",…}`; without NaN, which a gauge with no value yet has."""
    return {
        _series(sample.name, sample.labels): sample.value
        for family in families
        if family.type in types
        for sample in family.samples
        if any(sample.name.endswith(ending) for ending in endings) and math.isfinite(sample.value)
    }


def _series(name: str, labels: dict[str, str]) -> str:
    inside = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return f"{name}{{{inside}}}" if inside else name


def _changes(before: Values, after: Values) -> Values:
    """A counter that is new began at 0."""
    return {name: round(value - before.get(name, 0.0), 6) for name, value in after.items()}


def _moving(scrapes: Sequence[tuple[float, Values]], start: float) -> dict[str, list[Moment]]:
    """The gauges that changed during the run, those first that changed most often."""
    series: dict[str, list[Moment]] = {}
    for at, values in scrapes:
        for name, value in values.items():
            series.setdefault(name, []).append(Moment(round((at - start) * 1e3, 1), value))
    distinct = {name: len({moment.value for moment in moments}) for name, moments in series.items()}
    moving = sorted((name for name in series if distinct[name] > 1), key=lambda name: -distinct[name])
    return {name: series[name] for name in moving[:MOST_GAUGES]}


def _cores(before: Usage, after: Usage) -> float:
    return round((after.cpu_s - before.cpu_s) / max(after.at - before.at, 1e-9), 3)
