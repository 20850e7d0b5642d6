"""Samples in a few numbers. Pure: the same samples, window and limits give the same summary.

A request belongs to the window in which it was *planned*; its latency counts there whenever it ended.
Throughput counts the good answers that *arrived* in the window, whichever request they belong to: a server
that falls behind shows its own pace and not the generator's. Failed requests have no place in a percentile;
they are counted by kind, and an `error_rate` says how many are allowed. Nor have clients that left or read
slowly on purpose. The bounds on ITL are optimistic: gaps within a stream are not independent.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from loadtests.objectives import Measure
from loadtests.sample import Manner
from loadtests.samples import Floats, Mask, Samples
from loadtests.statistics import Distribution, describe


@dataclass(frozen=True, slots=True)
class Window:
    """The measured part of a run, in milliseconds after the start of the plan, its end excluded."""

    start: float
    end: float

    def holds(self, moments: Floats) -> Mask:
        held: Mask = (self.start <= moments) & (moments < self.end)
        return held

    def per_second(self, amount: float) -> float:
        milliseconds = self.end - self.start
        return round(amount / milliseconds * 1e3, 3) if milliseconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Errors:
    """The errors of one kind, and what the first of them said."""

    count: int
    first: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The requests planned in a window. Distributions in milliseconds; None where there is no sample.

    `rows_per_s` counts inputs where requests carry several, `tokens_per_s` what was generated. `query_ms` is
    the last answer to the requests that were sent together.
    """

    requests: int
    failed: int
    cancelled: int
    slow: int
    errors: dict[str, Errors]
    throughput_rps: float
    goodput_rps: float
    rows_per_s: float
    tokens_per_s: float | None
    latency_ms: Distribution | None
    service_ms: Distribution | None
    lag_ms: Distribution | None
    ttft_ms: Distribution | None
    tpot_ms: Distribution | None
    itl_ms: Distribution | None
    query_ms: Distribution | None = None

    @property
    def error_rate(self) -> float:
        return self.failed / self.requests if self.requests else 0.0


def summarise(samples: Samples, window: Window, limits: Mapping[Measure, float], at_once: int = 1) -> Summary:
    """`limits` are what one request may take, in milliseconds, to count towards goodput."""
    planned = planned_in(window, samples)
    good = planned.take(planned.good)
    arrived = samples.take(samples.answered & window.holds(samples.ended_ms))
    counted = arrived.tokens[arrived.tokens >= 0]
    return Summary(
        requests=len(planned),
        failed=int((planned.error >= 0).sum()),
        cancelled=int((planned.manner == Manner.CANCEL).sum()),
        slow=int((planned.manner == Manner.SLOW).sum()),
        errors=count_errors(planned),
        throughput_rps=window.per_second(len(arrived)),
        goodput_rps=window.per_second(int(within(arrived, limits).sum())),
        rows_per_s=window.per_second(int(arrived.rows.sum())),
        tokens_per_s=window.per_second(int(counted.sum())) if len(counted) else None,
        latency_ms=describe(good.latency_ms),
        service_ms=describe(good.service_ms),
        lag_ms=describe(planned.lag_ms),
        ttft_ms=describe(present(good.ttft_ms)),
        tpot_ms=describe(present(good.tpot_ms)),
        itl_ms=describe(good.gaps_ms),
        query_ms=describe(queries(planned, at_once)) if at_once > 1 else None,
    )


def planned_in(window: Window, samples: Samples) -> Samples:
    return samples.take(window.holds(samples.planned_ms))


def measured(planned: Samples, measure: Measure, at_once: int = 1) -> Floats:
    """The samples of one measure in milliseconds, of good answers."""
    if measure == "query":
        return queries(planned, at_once)
    good = planned.take(planned.good)
    return good.gaps_ms if measure == "itl" else present(getattr(good, f"{measure}_ms"))


def within(samples: Samples, limits: Mapping[Measure, float]) -> Mask:
    """Which good answers met every limit. A measure that one does not have cannot be missed."""
    met: Mask = samples.manner == Manner.NORMAL
    for measure, limit in limits.items():
        met &= ~(getattr(samples, f"{measure}_ms") > limit)
    return met


def queries(samples: Samples, at_once: int) -> Floats:
    """The latency of each query of which every request was answered well: that of its last answer."""
    moments, query = np.unique(samples.planned_ms, return_inverse=True)
    last = np.zeros(len(moments))
    np.maximum.at(last, query, samples.latency_ms)
    complete = np.bincount(query, weights=samples.good, minlength=len(moments)) == at_once
    found: Floats = last[complete]
    return found


def present(values: Floats) -> Floats:
    return values[~np.isnan(values)]


def count_errors(samples: Samples) -> dict[str, Errors]:
    """The most frequent kind first."""
    counts = np.bincount(samples.error[samples.error >= 0], minlength=len(samples.kinds))
    kinds = sorted(range(len(samples.kinds)), key=lambda kind: -counts[kind])
    return {
        samples.kinds[kind]: Errors(int(counts[kind]), samples.details[kind])
        for kind in kinds
        if counts[kind]
    }
