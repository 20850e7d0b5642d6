"""Judges a run: is it valid at all, and did it meet its objectives?

A run is invalid when its own generator, rather than the server, may have made the figures. An objective is
met by the empirical percentile; it is proven only if the upper bound at 99 % confidence meets it too, which
needs samples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from loadtests.objectives import Limit, Objectives, limits
from loadtests.statistics import Distribution, label
from loadtests.summary import Summary

Outcome = Literal["pass", "fail", "invalid"]

# A send is late after two of the interpreter's thread switch intervals (`sys.getswitchinterval`, 5 ms):
# what a generator with nothing else to do may still owe to itself.
LATE_MS = 10.0

# Lag is part of every latency. Below a tenth of the p99 it cannot change what the figure says.
LAG_SHARE = 0.1

# Less than this of the offered rate was a different load from the one that was asked for.
ACHIEVED_SHARE = 0.95

# A loop this busy answers its own events late, also those that say that a response has come.
CPU_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class Generator:
    """What the generator was asked to do, and how it fared. `late` sends were over 10 ms behind plan.

    `count` generators shared the plan; `cpu_share` is the busiest's. A closed loop offers what it achieves.
    """

    offered_rps: float
    achieved_rps: float
    late: int
    cpu_share: float
    interrupted: bool
    count: int = 1


@dataclass(frozen=True, slots=True)
class Judgement:
    """One objective. `value` is None when there was nothing to measure: then it is not met."""

    objective: str
    limit: float
    value: float | None
    met: bool
    proven: bool


def outcome(invalid: Sequence[str], judgements: Sequence[Judgement]) -> Outcome:
    if invalid:
        return "invalid"
    return "pass" if all(judgement.met for judgement in judgements) else "fail"


def why_invalid(summary: Summary, by_request: Sequence[Summary], generator: Generator) -> Iterator[str]:
    """Each reason in a line; none for a valid run. Lag is held against its own kind of request."""
    if generator.interrupted:
        yield "the run was interrupted"
    if not summary.requests:
        yield "no request was measured"
    if "generator" in summary.errors:
        errors = summary.errors["generator"]
        yield f"{errors.count} requests failed on the generator's side: {errors.first}"
    if generator.achieved_rps < ACHIEVED_SHARE * generator.offered_rps:
        yield f"the generator sent {generator.achieved_rps:.1f}/s of {generator.offered_rps:.1f}/s planned"
    if generator.cpu_share > CPU_SHARE:
        yield f"the generator used {generator.cpu_share:.0%} of its one core"
    for part in by_request:
        lag, allowed = _p99(part.lag_ms), max(LATE_MS, LAG_SHARE * _p99(part.latency_ms))
        if lag > allowed:
            yield f"the generator sent late: lag p99 {lag:.1f} ms, more than {allowed:.1f} ms"
            return


def judge(objectives: Objectives, summary: Summary) -> list[Judgement]:
    """Every objective that is set, the allowed share of errors first."""
    rate, allowed = summary.error_rate, objectives.error_rate
    errors = Judgement("error_rate", allowed, round(rate, 6), met=rate <= allowed, proven=rate <= allowed)
    return [errors, *(_judge_limit(limit, summary) for limit in limits(objectives))]


def _judge_limit(limit: Limit, summary: Summary) -> Judgement:
    distribution = summary.distribution(limit.measure)
    if distribution is None:
        return Judgement(limit.name, limit.limit_ms, None, met=False, proven=False)
    measured = distribution.percentiles[label(limit.percent)]
    return Judgement(
        limit.name,
        limit.limit_ms,
        measured.value,
        met=measured.value <= limit.limit_ms,
        proven=measured.upper_bound is not None and measured.upper_bound <= limit.limit_ms,
    )


def _p99(distribution: Distribution | None) -> float:
    return distribution.percentiles["p99"].value if distribution else 0.0
