"""The document of a run: what was asked, of what, by which machine, what came of it, and every raw sample.

The percentiles can be computed again from the samples, which include the warm-up; nothing in it needs this
package to be read. One unit: milliseconds, rounded to the microsecond before anything is computed from
them.
"""

import math
import platform
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from importlib import metadata
from typing import Literal

import psutil
from pydantic import BaseModel, ConfigDict

from loadtests import schedule, server, steady
from loadtests.columns import Columns
from loadtests.files import RECORDED
from loadtests.objectives import limits_per_request
from loadtests.recording import Recording
from loadtests.samples import Samples
from loadtests.scenario import Scenario
from loadtests.server import Server
from loadtests.steady import Steady
from loadtests.summary import Summary, Window, planned_in, summarise
from loadtests.verdict import LATE_MS, Generator, Judgement, Outcome, judge, outcome, why_invalid

PACKAGES = ("modelpress", "httptools", "numpy", "uvloop")


class Document(BaseModel):
    """A frozen part of the result."""

    model_config = ConfigDict(frozen=True)


class Machine(Document):
    """Where the generator ran; the server may be elsewhere."""

    platform: str
    processor: str
    cpu_count: int
    memory_bytes: int


class Counts(Document):
    """`planned` and `sent` include the warm-up; `unfinished` requests were given up at an interruption.

    `skipped` are turns of conversations that had failed before or went on for too long.
    """

    planned: int
    sent: int
    measured: int
    unfinished: int
    skipped: int


class Course(Document):
    """What the samples do not tell of how the run went. Milliseconds after the start of the plan."""

    started_at: datetime
    ended_ms: float | None
    interrupted_ms: float | None
    cpu_shares: list[float]


class Result(Document):
    """A run and its verdict. `by_request` follows the order of the mix. `shard`: which of how many."""

    schema_version: Literal[1] = 1
    outcome: Outcome
    invalid: list[str]
    objectives: list[Judgement]
    summary: Summary
    by_request: list[Summary]
    counts: Counts
    generator: Generator
    steady: Steady | None
    window: Window
    server: Server
    url: str
    course: Course
    shard: tuple[int, int]
    scenario: Scenario
    machine: Machine
    versions: dict[str, str]
    samples: Columns


def build(scenario: Scenario, url: str, recording: Recording, shard: tuple[int, int] = (0, 1)) -> Result:
    """Judge the recording and put everything together."""
    start = recording.start
    samples = recording.table.samples(start)
    unfinished = recording.sent - recording.ended
    course = Course(
        started_at=recording.started_at,
        ended_ms=_after(start, recording.ended_at),
        interrupted_ms=_after(start, recording.interrupted_at),
        cpu_shares=[round(recording.cpu_share, 3)],
    )
    counts = Counts(
        planned=recording.planned or recording.sent,
        sent=recording.sent,
        measured=0,
        unfinished=unfinished,
        skipped=recording.skipped,
    )
    seen = server.describe(recording.observed, start, samples, unfinished)
    return assemble(scenario, url, samples, course, counts, seen, shard)


def assemble(
    scenario: Scenario,
    url: str,
    samples: Samples,
    course: Course,
    counts: Counts,
    seen: Server,
    shard: tuple[int, int] = (0, 1),
) -> Result:
    """The document of these samples, whether one generator or several took them."""
    settled = find_steady(scenario, samples)
    window = measured_window(scenario, samples, course, settled)
    limits = limits_per_request(scenario.objectives)
    at_once = schedule.at_once(scenario.arrivals)
    summary = summarise(samples, window, limits, at_once)
    parts = [samples.take(samples.request == number) for number in range(len(scenario.mix))]
    generator = describe_generator(samples, window, course)
    judgements = judge(scenario.objectives, planned_in(window, samples), at_once)
    invalid = list(why_invalid(summary, [planned_in(window, part) for part in parts], generator))
    if shard[1] > 1:
        invalid.append(f"shard {shard[0]} of {shard[1]}: merge it with the others")
    document = dict(
        outcome=outcome(invalid, judgements),
        invalid=invalid,
        objectives=judgements,
        summary=summary,
        by_request=[summarise(part, window, limits) for part in parts],
        counts=counts.model_copy(update={"measured": summary.requests}),
        generator=generator,
        steady=settled,
        window=window,
        server=seen,
        url=url,
        course=course,
        shard=shard,
        scenario=scenario,
        machine=this_machine(),
        versions={"python": platform.python_version()} | installed(PACKAGES),
        samples=Columns.of(samples),
    )
    return Result.model_validate(document, context=RECORDED)


def find_steady(scenario: Scenario, samples: Samples) -> Steady | None:
    """Where latencies settled after the warm-up. A load that changes on purpose has no steady state."""
    if schedule.changes(scenario.arrivals):
        return None
    found = samples.take(samples.good & (samples.planned_ms >= scenario.fixed_warmup * 1e3))
    return steady.find(found.planned_ms, found.latency_ms)


def measured_window(scenario: Scenario, samples: Samples, course: Course, settled: Steady | None) -> Window:
    """What follows the warm-up, cut short by an interruption, or by the last answer where that is the end."""
    start, end = scenario.fixed_warmup * 1e3, scenario.span * 1e3
    wanted = schedule.limit(scenario.arrivals)
    if end == math.inf or (wanted is not None and len(samples) >= wanted):
        end = min(end, float(samples.ended_ms.max(initial=0.0)) + 0.001)
    if course.interrupted_ms is not None:
        end = min(end, course.interrupted_ms)
    if scenario.warmup == "auto" and settled is not None:
        start = end / 2 if settled.from_ms is None else settled.from_ms
    return Window(start, max(start, end))


def describe_generator(samples: Samples, window: Window, course: Course) -> Generator:
    """The achieved rate stretches the window to the last send that was planned in it."""
    planned = planned_in(window, samples)
    last_sent = float((planned.planned_ms + planned.lag_ms).max(initial=window.end))
    stretched = Window(window.start, last_sent)
    return Generator(
        offered_rps=window.per_second(len(planned)),
        achieved_rps=stretched.per_second(len(planned)),
        late=int((planned.lag_ms > LATE_MS).sum()),
        cpu_share=max(course.cpu_shares),
        interrupted=course.interrupted_ms is not None,
        count=len(course.cpu_shares),
    )


def this_machine() -> Machine:
    return Machine(
        platform=platform.platform(),
        processor=platform.processor() or platform.machine(),
        cpu_count=psutil.cpu_count(),
        memory_bytes=psutil.virtual_memory().total,
    )


def installed(packages: Sequence[str]) -> dict[str, str]:
    """Their versions; those that are not installed are left out."""
    versions = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _after(start: float, moment: float | None) -> float | None:
    return None if moment is None else round((moment - start) * 1e3, 3)
