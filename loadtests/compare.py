"""Whether one deployment is faster than another, or whether that cannot be told.

Runs go in pairs, one on each side, with the same draw, and the side that goes first alternates: what drifts
on the machine drifts for both. A pair is one observation, because requests of one run share its luck. The
interval of a ratio is a bootstrap-t interval of the mean of its logarithms over the pairs (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, 12.5), which for few observations keeps its promise where
the percentile interval is too narrow. The confidence is shared among the ratios (Bonferroni), so that all of
them together are wrong in 5 of 100 comparisons. A run without one good answer stands for half of one, as
in Anscombe's correction of counts before a logarithm (Biometrika 43, 1956): left out, a server that answers
nothing in time would be no worse than any other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from loadtests.errors import InvalidOption, LoadTestError
from loadtests.result import Machine, Result
from loadtests.scenario import Scenario, changed
from loadtests.summary import Summary, Window

RESAMPLES = 20_000

# Of all ratios of a comparison together.
ERROR = 0.05

# The bootstrap's tail goes to infinity where most runs agree and one does not. Beyond this factor from the
# ratio an interval tells nothing more, and cannot be drawn.
WIDEST = 1e6

# Fewer pairs than this can all fall on one side by chance too often.
FEWEST_PAIRS = 6

NOTHING = "nothing to compare: no percentile that every run has the samples for, and no goodput"

Verdict = Literal["better", "worse", "cannot tell"]

MEASURES: dict[str, Callable[[Summary], float | None]] = {
    "latency p50": lambda summary: _percentile(summary, "latency_ms", "p50"),
    "latency p95": lambda summary: _percentile(summary, "latency_ms", "p95"),
    "latency p99": lambda summary: _percentile(summary, "latency_ms", "p99"),
    "TTFT p50": lambda summary: _percentile(summary, "ttft_ms", "p50"),
    "TPOT p50": lambda summary: _percentile(summary, "tpot_ms", "p50"),
    "goodput": lambda summary: summary.goodput_rps,
}
HIGHER_IS_BETTER = {"goodput"}


@dataclass(frozen=True, slots=True)
class Ratio:
    """The second side's figure over the first's: the mean over the pairs, and its interval."""

    measure: str
    first: float
    second: float
    ratio: float
    low: float
    high: float
    verdict: Verdict


class Side(BaseModel):
    """One of the two deployments, with the summary of each of its runs."""

    model_config = ConfigDict(frozen=True)

    name: str
    url: str
    runs: list[Summary]


class Comparison(BaseModel):
    """`verdict` is on the second side: worse if any ratio is, better if one is and none is worse."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    verdict: Verdict
    ratios: list[Ratio]
    first: Side
    second: Side
    invalid: list[str]
    scenario: Scenario
    machine: Machine
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Target:
    """What one side asks: a server, and perhaps a model instead of the scenario's."""

    name: str
    url: str
    scenario: Scenario


def compare(
    targets: tuple[Target, Target], pairs: int, measure: Callable[[Scenario, str], Result]
) -> Comparison:
    """Run `pairs` pairs, or those before the first that could not be. Raises InvalidOption for too few."""
    if pairs < FEWEST_PAIRS:
        raise InvalidOption(f"--pairs {pairs}: fewer than {FEWEST_PAIRS} can all fall on one side by chance")
    runs: tuple[list[Result], list[Result]] = ([], [])
    cut = ""
    for pair in range(pairs):
        after = f"{pair} of {pairs} pairs"
        try:
            results = _measure_pair(targets, pair, measure)
        except KeyboardInterrupt:
            cut = f"interrupted after {after}"
            break
        except LoadTestError as error:
            if pair < 2:
                raise
            cut = f"ended after {after}: {error}"
            break
        if any(result.course.interrupted_ms is not None for result in results):
            cut = f"interrupted after {after}"
            break
        for side, result in zip(runs, results, strict=True):
            side.append(result)
    if len(runs[0]) < 2:
        raise InvalidOption("interrupted before two pairs were measured: nothing can be told")
    first, second = ([result.summary for result in side] for side in runs)
    latest = runs[0][-1]
    ratios = judge(first, second, half_an_answer(latest.window))
    return Comparison(
        verdict=overall(ratios),
        ratios=ratios,
        first=Side(name=targets[0].name, url=targets[0].url, runs=first),
        second=Side(name=targets[1].name, url=targets[1].url, runs=second),
        invalid=[
            *filter(None, [cut, "" if ratios else NOTHING]),
            *sorted({reason for side in runs for result in side for reason in result.invalid}),
        ],
        scenario=latest.scenario,
        machine=latest.machine,
        versions=latest.versions,
    )


def _measure_pair(
    targets: tuple[Target, Target], pair: int, measure: Callable[[Scenario, str], Result]
) -> tuple[Result, Result]:
    """One run on each side with the same draw, the second side first in every other pair."""
    first, second = targets if pair % 2 == 0 else targets[::-1]
    results = [
        measure(changed(target.scenario, {"seed": target.scenario.seed + pair}), target.url)
        for target in (first, second)
    ]
    return (results[0], results[1]) if pair % 2 == 0 else (results[1], results[0])


def half_an_answer(window: Window) -> float:
    """What stands for a goodput of 0: half an answer in the window, or half of the last digit of a rate."""
    return max(window.per_second(1), 1e-3) / 2


def judge(first: Sequence[Summary], second: Sequence[Summary], least_goodput: float) -> list[Ratio]:
    """A ratio for each measure that every run has enough samples for; of the tail, the furthest one."""
    found: dict[str, NDArray[np.float64]] = {}
    for name, figure in MEASURES.items():
        figures = [[figure(summary) for summary in side] for side in (first, second)]
        if all(value is not None for side in figures for value in side):
            found[name] = np.array(figures, dtype=np.float64)
    if "latency p99" in found:
        del found["latency p95"]
    if found["goodput"].any():
        found["goodput"] = np.maximum(found["goodput"], least_goodput)
    else:
        del found["goodput"]
    return [ratio(name, figures[0], figures[1], ERROR / len(found)) for name, figures in found.items()]


def ratio(name: str, first: NDArray[np.float64], second: NDArray[np.float64], error: float) -> Ratio:
    """One figure of each run of both sides, pair by pair."""
    logs = np.log(second / first)
    mean, widest = logs.mean(), np.log(WIDEST)
    low, high = np.exp(np.clip(interval(logs, error), mean - widest, mean + widest))
    return Ratio(
        measure=name,
        first=float(np.exp(np.log(first).mean())),
        second=float(np.exp(np.log(second).mean())),
        ratio=float(np.exp(mean)),
        low=float(low),
        high=float(high),
        verdict=verdict(float(low), float(high), name in HIGHER_IS_BETTER),
    )


def interval(values: NDArray[np.float64], error: float) -> tuple[float, float]:
    """The bootstrap-t interval of their mean, wrong with a chance of `error`."""
    count, mean = len(values), float(values.mean())
    scale = float(values.std(ddof=1)) / count**0.5
    if scale < 1e-12:
        return mean, mean
    drawn = values[np.random.default_rng(0).integers(0, count, (RESAMPLES, count))]
    scales = drawn.std(axis=1, ddof=1) / count**0.5
    usable = scales > 1e-12
    studentized = (drawn.mean(axis=1)[usable] - mean) / scales[usable]
    low, high = np.quantile(studentized, [error / 2, 1 - error / 2])
    return mean - float(high) * scale, mean - float(low) * scale


def verdict(low: float, high: float, higher_is_better: bool) -> Verdict:
    if low <= 1 <= high:
        return "cannot tell"
    return "better" if (low > 1) == higher_is_better else "worse"


def overall(ratios: Sequence[Ratio]) -> Verdict:
    verdicts = {found.verdict for found in ratios}
    return "worse" if "worse" in verdicts else "better" if "better" in verdicts else "cannot tell"


def _percentile(summary: Summary, measure: str, name: str) -> float | None:
    distribution = getattr(summary, measure)
    return distribution.percentiles[name].value if distribution else None
