"""A result as an OpenMetrics file, for dashboards: node_exporter's textfile collector, or a push gateway.

curl --data-binary @result.prom http://gateway:9091/metrics/job/loadtest
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest

from loadtests.result import Result
from loadtests.summary import Summary

OUTCOMES = {"pass": 1.0, "fail": 0.0, "invalid": -1.0}
MEASURES = ("latency", "service", "lag", "ttft", "tpot", "itl", "query")


class Exporter:
    """Gives the registry what it collects."""

    def __init__(self, result: Result) -> None:
        self._result = result

    def collect(self) -> Iterator[Metric]:
        yield from families(self._result)


def text(result: Result) -> str:
    """The whole file."""
    registry = CollectorRegistry()
    registry.register(Exporter(result))
    written: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]
    return written.decode()


def families(result: Result) -> Iterator[Metric]:
    """Seconds and requests a second, as Prometheus wants units; the mix's entries by the label `request`."""
    parts = {"": result.summary}
    if len(result.by_request) > 1:
        targets = [f"{entry.dialect} {entry.target}" for entry in result.scenario.mix]
        parts |= dict(zip(targets, result.by_request, strict=True))
    rates = {
        "offered_rps": ("Requests a second that were planned.", result.generator.offered_rps),
        "outcome": ("1 pass, 0 fail, -1 invalid.", OUTCOMES[result.outcome]),
        "generator_cpu_share": ("Of its one core.", result.generator.cpu_share),
    }
    for name, (about, value) in rates.items():
        yield GaugeMetricFamily(f"loadtest_{name}", about, value=value)
    yield from _summaries(parts)
    for measure in MEASURES:
        yield _percentiles(measure, parts)


def _summaries(parts: dict[str, Summary]) -> Iterator[Metric]:
    fields = {
        "requests": "Measured requests.",
        "failed": "Measured requests that failed.",
        "throughput_rps": "Good answers a second.",
        "goodput_rps": "Answers a second within every objective.",
        "tokens_per_s": "Generated tokens a second.",
    }
    for field, about in fields.items():
        family = GaugeMetricFamily(f"loadtest_{field}", about, labels=["request"])
        for request, summary in parts.items():
            value = getattr(summary, field)
            if value is not None:
                family.add_metric([request], value)
        yield family


def _percentiles(measure: str, parts: dict[str, Summary]) -> Metric:
    family = GaugeMetricFamily(
        f"loadtest_{measure}_seconds", "By percentile.", labels=["request", "quantile"], unit="seconds"
    )
    for request, summary in parts.items():
        distribution = getattr(summary, f"{measure}_ms")
        for name, found in distribution.percentiles.items() if distribution else ():
            if found.value is not None:
                family.add_metric([request, f"{float(name[1:]) / 100:g}"], found.value / 1e3)
    return family
