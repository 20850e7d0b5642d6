"""One run among several at different loads: what sweeps and searches keep of it, without the raw samples."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from loadtests.errors import LoadTestError
from loadtests.result import Machine, Result
from loadtests.scenario import Scenario
from loadtests.server import Server
from loadtests.summary import Summary
from loadtests.verdict import Judgement, Outcome

Verdict = Literal["met", "missed", "undecided"]

# How a note begins where a series was cut short.
INTERRUPTED = "interrupted"

# A curve with fewer points has no bend.
FEWEST_POINTS = 3


class Point(BaseModel):
    """`load` is requests a second in an open loop, users in a closed one. `verdict` is on `runs` of them."""

    model_config = ConfigDict(frozen=True)

    load: float
    runs: int
    outcome: Outcome
    verdict: Verdict | None
    invalid: list[str]
    objectives: list[Judgement]
    offered_rps: float
    summary: Summary


class Series(BaseModel):
    """Several points of one scenario. `unit` is what `load` counts; `knee` is a place in the list.

    `interrupted`: cut short, as `note` says. What was measured before that is there.
    """

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    kind: Literal["sweep", "search"]
    unit: Literal["requests/s", "users"]
    points: list[Point]
    knee: int | None
    highest_pass: float | None = None
    lowest_fail: float | None = None
    interrupted: bool = False
    note: str = ""
    url: str
    scenario: Scenario
    machine: Machine
    versions: dict[str, str]
    server: Server


def point(result: Result, load: float, runs: int = 1, verdict: Verdict | None = None) -> Point:
    """What is kept of a run."""
    return Point(
        load=load,
        runs=runs,
        outcome=result.outcome,
        verdict=verdict,
        invalid=result.invalid,
        objectives=result.objectives,
        offered_rps=result.generator.offered_rps,
        summary=result.summary,
    )


def cut_short(end: BaseException, before: str) -> str:
    """Why there are no further points: Ctrl-C, or a run that could not be, as of a server that has died."""
    reason = f": {end}" if isinstance(end, LoadTestError) else ""
    return f"{INTERRUPTED} before {before}{reason}"


def knee(points: list[Point]) -> int | None:
    """Where throughput over latency is highest: Kleinrock's power, beyond which latency buys little.

    (L. Kleinrock, "Power and deterministic rules of thumb for probabilistic problems in computer
    communications", ICC 1979.) None for fewer than three points, and where it lies beyond the highest load.
    """
    power = [
        (found.summary.throughput_rps / found.summary.latency_ms.mean, place)
        for place, found in enumerate(points)
        if found.summary.latency_ms is not None and found.outcome != "invalid"
    ]
    if len(power) < FEWEST_POINTS or max(power) == power[-1]:
        return None
    return max(power)[1]
