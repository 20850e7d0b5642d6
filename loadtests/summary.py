"""Samples in a few numbers. Pure: the same samples, window and limits give the same summary.

A request belongs to the window in which it was *planned*; its latency counts there whenever it ended.
Throughput counts the good answers that *arrived* in the window, whichever request they belong to: a server
that falls behind shows its own pace and not the generator's. Failed requests have no place in a percentile;
they are counted by kind, and an `error_rate` says how many are allowed. The bounds on ITL are optimistic:
gaps within a stream are not independent.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtests.client import Sample
from loadtests.objectives import Measure
from loadtests.statistics import Distribution, describe


@dataclass(frozen=True, slots=True)
class Window:
    """The measured part of a run, in clock seconds, its end excluded."""

    start: float
    end: float

    def holds(self, moment: float) -> bool:
        return self.start <= moment < self.end

    def per_second(self, amount: float) -> float:
        seconds = self.end - self.start
        return round(amount / seconds, 3) if seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Errors:
    """The errors of one kind, and what the first of them said."""

    count: int
    first: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The requests planned in a window. Distributions in milliseconds; None where there is no sample."""

    requests: int
    failed: int
    errors: dict[str, Errors]
    throughput_rps: float
    goodput_rps: float
    tokens_per_s: float | None
    latency_ms: Distribution | None
    service_ms: Distribution | None
    lag_ms: Distribution | None
    ttft_ms: Distribution | None
    tpot_ms: Distribution | None
    itl_ms: Distribution | None

    @property
    def error_rate(self) -> float:
        return self.failed / self.requests if self.requests else 0.0

    def distribution(self, measure: Measure) -> Distribution | None:
        return {"latency": self.latency_ms, "ttft": self.ttft_ms, "tpot": self.tpot_ms}[measure]


def summarise(samples: Sequence[Sample], window: Window, limits: Mapping[Measure, float]) -> Summary:
    """`limits` are what one request may take, in milliseconds, to count towards goodput."""
    planned = [sample for sample in samples if window.holds(sample.planned)]
    good = [sample for sample in planned if sample.error is None]
    arrived = [sample for sample in samples if sample.error is None and window.holds(sample.ended)]
    counted = [sample.tokens for sample in arrived if sample.tokens is not None]
    return Summary(
        requests=len(planned),
        failed=len(planned) - len(good),
        errors=count_errors(planned),
        throughput_rps=window.per_second(len(arrived)),
        goodput_rps=window.per_second(sum(within(sample, limits) for sample in arrived)),
        tokens_per_s=window.per_second(sum(counted)) if counted else None,
        latency_ms=describe([sample.latency_ms for sample in good]),
        service_ms=describe([sample.service_ms for sample in good]),
        lag_ms=describe([sample.lag_ms for sample in planned]),
        ttft_ms=describe([ttft for sample in good if (ttft := sample.ttft_ms) is not None]),
        tpot_ms=describe([tpot for sample in good if (tpot := sample.tpot_ms) is not None]),
        itl_ms=describe([gap for sample in good for gap in sample.gaps_ms]),
    )


def within(sample: Sample, limits: Mapping[Measure, float]) -> bool:
    """Whether one good answer met every limit. A measure that it does not have cannot be missed."""
    taken: dict[Measure, float | None] = {
        "latency": sample.latency_ms,
        "ttft": sample.ttft_ms,
        "tpot": sample.tpot_ms,
    }
    return all((taken[measure] or 0.0) <= limit for measure, limit in limits.items())


def count_errors(samples: Sequence[Sample]) -> dict[str, Errors]:
    """The most frequent kind first."""
    counts = Counter(sample.error for sample in samples if sample.error)
    first = {sample.error: sample.detail for sample in reversed(samples)}
    return {kind: Errors(count, first[kind]) for kind, count in counts.most_common()}
