"""The document of a run: what was asked, of what, by which machine, what came of it, and every raw sample.

The percentiles can be computed again from the samples, which include the warm-up; nothing in it needs this
package to be read. One unit: milliseconds, rounded to the microsecond before anything is computed from
them.
"""

import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel, ConfigDict

from loadtests.client import Sample, milliseconds
from loadtests.errors import InvalidOption
from loadtests.objectives import limits_per_request
from loadtests.scenario import Scenario
from loadtests.session import Recording
from loadtests.summary import Summary, Window, summarise
from loadtests.verdict import LATE_MS, Generator, Judgement, Outcome, judge, outcome, why_invalid

PACKAGES = ("modelpress", "aiohttp", "numpy", "uvloop")


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
    """`planned` and `sent` include the warm-up; `unfinished` requests were given up at an interruption."""

    planned: int
    sent: int
    measured: int
    unfinished: int


class Samples(Document):
    """One column for each field and one row for each request that ended, in planned order.

    `planned_ms` counts from the start of the warm-up, `request` is the place in the mix.
    """

    request: list[int]
    planned_ms: list[float]
    lag_ms: list[float]
    latency_ms: list[float]
    error: list[str | None]
    tokens: list[int | None]
    ttft_ms: list[float | None]
    itl_ms: list[list[float]]


class Result(Document):
    """A run and its verdict. `by_request` follows the order of the mix."""

    schema_version: Literal[1] = 1
    outcome: Outcome
    invalid: list[str]
    objectives: list[Judgement]
    summary: Summary
    by_request: list[Summary]
    counts: Counts
    generator: Generator
    url: str
    started_at: datetime
    scenario: Scenario
    machine: Machine
    versions: dict[str, str]
    samples: Samples


def build(scenario: Scenario, url: str, recording: Recording) -> Result:
    """Judge the recording and put everything together."""
    samples = sorted(recording.samples, key=lambda sample: sample.planned)
    window = measured_window(scenario, recording)
    limits = limits_per_request(scenario.objectives)
    summary = summarise(samples, window, limits)
    generator = describe_generator(samples, window, recording)
    by_request = [
        summarise([sample for sample in samples if sample.request == number], window, limits)
        for number in range(len(scenario.mix))
    ]
    judgements = judge(scenario.objectives, summary)
    invalid = list(why_invalid(summary, by_request, generator))
    return Result(
        outcome=outcome(invalid, judgements),
        invalid=invalid,
        objectives=judgements,
        summary=summary,
        by_request=by_request,
        counts=count(summary, recording),
        generator=generator,
        url=url,
        started_at=recording.started_at,
        scenario=scenario,
        machine=this_machine(),
        versions={"python": platform.python_version()} | installed(PACKAGES),
        samples=columns(samples, recording.start),
    )


def measured_window(scenario: Scenario, recording: Recording) -> Window:
    """What follows the warm-up, cut short by an interruption."""
    start = recording.start + scenario.warmup
    end = start + scenario.duration
    if recording.interrupted_at is not None:
        end = max(start, min(end, recording.interrupted_at))
    return Window(start, end)


def describe_generator(samples: Sequence[Sample], window: Window, recording: Recording) -> Generator:
    """The achieved rate stretches the window to the last send that was planned in it."""
    planned = [sample for sample in samples if window.holds(sample.planned)]
    last_sent = max((sample.sent for sample in planned), default=window.end)
    stretched = Window(window.start, max(window.end, last_sent))
    return Generator(
        offered_rps=window.per_second(len(planned)),
        achieved_rps=stretched.per_second(len(planned)),
        late=sum(sample.lag_ms > LATE_MS for sample in planned),
        cpu_share=round(recording.cpu_share, 3),
        interrupted=recording.interrupted_at is not None,
    )


def count(summary: Summary, recording: Recording) -> Counts:
    return Counts(
        planned=recording.planned,
        sent=recording.sent,
        measured=summary.requests,
        unfinished=recording.sent - len(recording.samples),
    )


def columns(samples: Sequence[Sample], start: float) -> Samples:
    return Samples(
        request=[sample.request for sample in samples],
        planned_ms=[milliseconds(sample.planned - start) for sample in samples],
        lag_ms=[sample.lag_ms for sample in samples],
        latency_ms=[sample.latency_ms for sample in samples],
        error=[sample.error for sample in samples],
        tokens=[sample.tokens for sample in samples],
        ttft_ms=[sample.ttft_ms for sample in samples],
        itl_ms=[sample.gaps_ms for sample in samples],
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


def check_writable(path: Path) -> None:
    """Raises InvalidOption if a result could not be written there after the run."""
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise InvalidOption(f"--out {path}: not a file in a folder that can be written to")


def write(result: Result, path: Path) -> None:
    """All of it or nothing: under another name first, and then renamed. Raises InvalidOption."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(result.model_dump_json(indent=1), encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise InvalidOption(f"--out {path}: {error.strerror}") from error
