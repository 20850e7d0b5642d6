"""What a run promises: upper limits on percentiles and on the share of failed requests.

A limit on a percentile is also a limit on each request, for goodput: of several limits on one measure, the
loosest. An objective says nothing of how sure one can be that it is met; `verdict.py` adds that.
"""

import re
from dataclasses import dataclass
from typing import Literal, cast

from pydantic import Field, PositiveFloat

from loadtests.config import Config

Measure = Literal["latency", "ttft", "tpot", "itl", "query"]


class Objectives(Config):
    """All optional, in milliseconds; without a prefix the limit is on end-to-end latency.

    `itl` is on single gaps between tokens, `query` on the last answer of MultiStream's several.
    """

    p50_ms: PositiveFloat | None = None
    p90_ms: PositiveFloat | None = None
    p95_ms: PositiveFloat | None = None
    p99_ms: PositiveFloat | None = None
    p99_9_ms: PositiveFloat | None = None
    ttft_p50_ms: PositiveFloat | None = None
    ttft_p90_ms: PositiveFloat | None = None
    ttft_p95_ms: PositiveFloat | None = None
    ttft_p99_ms: PositiveFloat | None = None
    ttft_p99_9_ms: PositiveFloat | None = None
    tpot_p50_ms: PositiveFloat | None = None
    tpot_p90_ms: PositiveFloat | None = None
    tpot_p95_ms: PositiveFloat | None = None
    tpot_p99_ms: PositiveFloat | None = None
    tpot_p99_9_ms: PositiveFloat | None = None
    itl_p50_ms: PositiveFloat | None = None
    itl_p90_ms: PositiveFloat | None = None
    itl_p95_ms: PositiveFloat | None = None
    itl_p99_ms: PositiveFloat | None = None
    itl_p99_9_ms: PositiveFloat | None = None
    query_p50_ms: PositiveFloat | None = None
    query_p90_ms: PositiveFloat | None = None
    query_p99_ms: PositiveFloat | None = None
    error_rate: float = Field(default=0.0, ge=0, le=1)


@dataclass(frozen=True, slots=True)
class Limit:
    """`percent` % of the samples of `measure` must lie at or below `limit_ms`."""

    name: str
    measure: Measure
    percent: float
    limit_ms: float


def limits(objectives: Objectives) -> list[Limit]:
    """The limits on percentiles that are set."""
    chosen = objectives.model_dump(exclude={"error_rate"}, exclude_none=True)
    return [_parse(name, limit) for name, limit in chosen.items()]


def limits_per_request(objectives: Objectives) -> dict[Measure, float]:
    """In milliseconds, what one request may take to count as good. Gaps and queries are not one request's."""
    loosest: dict[Measure, float] = {}
    for limit in limits(objectives):
        if limit.measure in ("itl", "query"):
            continue
        loosest[limit.measure] = max(limit.limit_ms, loosest.get(limit.measure, 0.0))
    return loosest


def _parse(name: str, limit_ms: float) -> Limit:
    """`ttft_p99_9_ms` is the 99.9th percentile of the time to first token."""
    match = re.fullmatch(r"(?:(ttft|tpot|itl|query)_)?p(\d+(?:_\d+)?)_ms", name)
    assert match, name
    measure = cast(Measure, match[1] or "latency")
    return Limit(name, measure, float(match[2].replace("_", ".")), limit_ms)
