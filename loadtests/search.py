"""Finds the highest rate at which the objectives hold: doubles until one is missed, then bisects.

A rate passes only if that is proven: the share of samples beyond each limit must be too small to be a server
that misses it (MLPerf LoadGen's binomial test, `statistics.py`), and it fails only if the share is too large
for one that meets it. In between the run is repeated with another draw and the samples pooled; what is still
undecided after the last repeat counts as a fail, because "highest rate" is a promise. So does a server that
answers fewer requests than it is sent, however fast: its queue would grow in a longer run.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from loadtests.errors import InvalidOption, LoadTestError
from loadtests.objectives import Limit, limits
from loadtests.point import INTERRUPTED, Point, Series, Verdict, cut_short, knee, point
from loadtests.result import Result
from loadtests.scenario import Scenario, changed
from loadtests.schedule import at_once
from loadtests.statistics import bounding_rank, samples_needed, tail
from loadtests.summary import measured, planned_in
from loadtests.sweep import Measure, with_rate

# The chance of a wrong verdict on one limit, either way, as in LoadGen.
ERROR = 0.01

# A server that keeps up answers about as much as it is sent; the rest is what is in flight at the end.
KEEPS_UP = 0.95

# Runs at a low rate take longer than the scenario says, to have the samples for a verdict: this much at most.
STRETCH = 10
SPARE_SAMPLES = 3

MAX_RATES = 24


@dataclass(slots=True)
class Tally:
    """Samples of one measure, and how many of them lie beyond its limit."""

    samples: int = 0
    beyond: int = 0


def search(
    scenario: Scenario, measure: Measure, start: float, precision: float = 0.05, repeats: int = 3
) -> Series:
    """The highest rate that passes and the lowest that fails, a factor of `1 + precision` apart at the most.

    Raises InvalidOption for a scenario without a limit to search for.
    """
    if not limits(scenario.objectives):
        raise InvalidOption("the scenario has no objective on a latency to search the highest rate for")
    floor = lowest_rate(scenario, repeats)
    if start < floor:
        raise InvalidOption(
            f"--rate {start:g}: below {floor:.3g}/s runs take too long to judge; "
            "start higher or lengthen --duration"
        )
    points: list[Point] = []
    latest: list[Result] = []

    def passes(rate: float) -> bool:
        found, result = judge_rate(scenario, rate, measure, repeats)
        points.append(found)
        latest[:] = [result]
        return found.verdict == "met"

    highest, lowest, note = bisect(passes, start, precision, floor, lambda: why_stop(points[-1]))
    ordered = sorted(points, key=lambda found: found.load)
    last = latest[0]
    return Series(
        kind="search",
        unit="requests/s",
        points=ordered,
        knee=knee(ordered),
        interrupted=note.startswith(INTERRUPTED) or last.course.interrupted_ms is not None,
        highest_pass=highest,
        lowest_fail=lowest,
        note=note,
        url=last.url,
        scenario=scenario,
        machine=last.machine,
        versions=last.versions,
        server=last.server,
    )


def bisect(
    passes: Callable[[float], bool], start: float, precision: float, floor: float, stop: Callable[[], str]
) -> tuple[float | None, float | None, str]:
    """The highest rate that passes, the lowest that fails, and why it ended early if it did."""
    highest: float | None = None
    lowest: float | None = None
    rate = start
    for _ in range(MAX_RATES):
        try:
            passed = passes(rate)
        except (KeyboardInterrupt, LoadTestError) as end:
            if highest is None and lowest is None:
                raise
            return highest, lowest, cut_short(end, f"{rate:.4g}/s")
        if reason := stop():
            return (
                highest,
                lowest,
                f"ended at {rate:.4g}/s, which says nothing about the server: {reason}",
            )
        if passed:
            highest = rate
        else:
            lowest = rate
        if highest and lowest and lowest <= highest * (1 + precision):
            return highest, lowest, ""
        rate = next_rate(highest, lowest)
        if rate < floor:
            return None, lowest, f"no rate down to {lowest:.3g}/s meets the objectives"
    return highest, lowest, f"ended after {MAX_RATES} rates"


def why_stop(latest: Point) -> str:
    """Why no further rate can be judged: the generator's limit, or an interruption. Empty to go on."""
    return latest.invalid[0] if latest.outcome == "invalid" else ""


def next_rate(highest: float | None, lowest: float | None) -> float:
    if highest is None:
        assert lowest is not None
        return lowest / 2
    return highest * 2 if lowest is None else math.sqrt(highest * lowest)


def judge_rate(scenario: Scenario, rate: float, measure: Measure, repeats: int) -> tuple[Point, Result]:
    """Run at a rate until the verdict is clear, or `repeats` times."""
    wanted = limits(scenario.objectives)
    tallies = {limit.name: Tally() for limit in wanted}
    longer = long_enough(scenario, rate, repeats)
    for repeat in range(repeats):
        result = measure(changed(longer, {"seed": scenario.seed + repeat}))
        verdict: Verdict = "undecided"
        if result.outcome == "invalid":
            break
        for limit in wanted:
            count(limit, result, tallies[limit.name])
        verdict = combine([decide(limit, tallies[limit.name]) for limit in wanted], result)
        if verdict != "undecided":
            break
    return point(result, rate, repeat + 1, verdict), result


def long_enough(scenario: Scenario, rate: float, repeats: int) -> Scenario:
    """The scenario at this rate, in runs that together have the samples that the objectives need."""
    chosen = with_rate(scenario, rate)
    return changed(chosen, {"duration": max(chosen.measured_s, samples_per_run(scenario, repeats) / rate)})


def lowest_rate(scenario: Scenario, repeats: int) -> float:
    """Below this, runs would take much longer than the scenario says to have enough samples."""
    return samples_per_run(scenario, repeats) / (STRETCH * scenario.measured_s)


def samples_per_run(scenario: Scenario, repeats: int) -> float:
    """What the strictest of the objectives needs, shared among the repeats."""
    strictest = max(limit.percent for limit in limits(scenario.objectives))
    return SPARE_SAMPLES * samples_needed(strictest) / repeats


def count(limit: Limit, result: Result, tally: Tally) -> None:
    """Add one run's samples."""
    planned = planned_in(result.window, result.samples.samples())
    values = measured(planned, limit.measure, at_once(result.scenario.arrivals))
    tally.samples += len(values)
    tally.beyond += int((values > limit.limit_ms).sum())


def decide(limit: Limit, tally: Tally) -> Verdict:
    """Whether the limit is met at 99 % confidence, missed at 99 %, or neither can be said."""
    if tally.beyond < bounding_rank(tally.samples, limit.percent):
        return "met"
    if tail(tally.samples, 1 - limit.percent / 100, tally.beyond) <= ERROR:
        return "missed"
    return "undecided"


def combine(verdicts: list[Verdict], result: Result) -> Verdict:
    """One miss is a miss; so are errors beyond what is allowed, and falling behind."""
    summary = result.summary
    # Clients that leave wait for no answer: a server that keeps up with all others does keep up.
    waiting = 1 - summary.error_rate - summary.cancelled / max(summary.requests, 1)
    behind = summary.throughput_rps < KEEPS_UP * result.generator.offered_rps * waiting
    if "missed" in verdicts or summary.error_rate > result.scenario.objectives.error_rate or behind:
        return "missed"
    return "undecided" if "undecided" in verdicts else "met"
