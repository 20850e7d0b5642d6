"""Judges a run: is it valid at all, and did it meet its objectives?

A run is invalid when its own generator, rather than the server, may have made the figures. An objective is
met if no more samples lie beyond the limit than its percentile allows; it is proven only if so few do that
the upper bound at 99 % confidence meets it too, which needs samples. Both count, and so can be said of a
percentile that has too few samples to be given.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from loadtests.objectives import Limit, Objectives, limits
from loadtests.samples import Floats, Samples
from loadtests.statistics import bounding_rank, nearest_rank, percentile
from loadtests.summary import Summary, measured

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
    """One objective. `value` is None where there were too few samples for it; with none at all it is not met.

    `beyond` of the `samples` lie above the limit, in milliseconds; of the share of errors, they are requests.
    """

    objective: str
    limit: float
    value: float | None
    samples: int
    beyond: int
    met: bool
    proven: bool


def outcome(invalid: Sequence[str], judgements: Sequence[Judgement]) -> Outcome:
    if invalid:
        return "invalid"
    return "pass" if all(judgement.met for judgement in judgements) else "fail"


def why_invalid(summary: Summary, by_request: Sequence[Samples], generator: Generator) -> Iterator[str]:
    """Each reason in a line; none for a valid run. Lag is held against its own kind of request.

    However few samples there are: that a p99 cannot be given does not excuse the generator.
    """
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
        lag, allowed = _slowest(part.lag_ms), max(LATE_MS, LAG_SHARE * _slowest(measured(part, "latency")))
        if lag > allowed:
            yield f"the generator sent late: 1 % of sends by {lag:.1f} ms or more, allowed are {allowed:.1f}"
            return


def judge(objectives: Objectives, planned: Samples, at_once: int = 1) -> list[Judgement]:
    """Every objective that is set, the allowed share of errors first, on the requests of the window."""
    failed, count = int((planned.error >= 0).sum()), len(planned)
    rate, allowed = failed / max(count, 1), objectives.error_rate
    met = rate <= allowed
    errors = Judgement("error_rate", allowed, round(rate, 6), count, failed, met=met, proven=met)
    values = {limit: measured(planned, limit.measure, at_once) for limit in limits(objectives)}
    return [errors, *(_judge_limit(limit, found) for limit, found in values.items())]


def _judge_limit(limit: Limit, values: Floats) -> Judgement:
    count, beyond = len(values), int((values > limit.limit_ms).sum())
    return Judgement(
        limit.name,
        limit.limit_ms,
        percentile(np.sort(values), limit.percent).value,
        count,
        beyond,
        met=count > 0 and beyond <= count - nearest_rank(count, limit.percent),
        proven=beyond < bounding_rank(count, limit.percent),
    )


def _slowest(values: Floats) -> float:
    """What the slowest 1 % took at the least."""
    return float(np.sort(values)[nearest_rank(len(values), 99) - 1]) if len(values) else 0.0
