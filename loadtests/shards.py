"""Several generators, one plan: each sends its share of one drawn schedule, and raw samples are merged.

Every shard draws the whole plan from the seed and sends each n-th request of it, so the load is the one that
a single generator would have sent, without a gap that comes twice. Locally they are processes that this
module starts. On several machines an engine that runs jobs (Kubernetes, Ray) starts the same command with
`--shard i/n --start-at TIME`, and `merge` puts the results together.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from loadtests import interruption, progress, standing
from loadtests.documents import read_run
from loadtests.errors import InvalidOption, InvalidResult, LoadTestError
from loadtests.plan import Shard
from loadtests.result import Counts, Course, Result, assemble
from loadtests.samples import concatenate
from loadtests.scenario import Scenario
from loadtests.server import reconcile

# To import, draw the plan and probe, on a machine that is busy starting several of them.
START_UP_S = 3.0

# A generator is one core. So many to each are a mistake, and would take the memory before they send anything.
MOST_PER_CORE = 16

# How soon it is seen that a generator has ended.
LOOK_EVERY_S = 0.05


# For a generator to write what it has: some seconds for millions of samples.
END_WITHIN_S = 60.0


class Generator(NamedTuple):
    """A process that sends one shard, and where it writes its result."""

    process: subprocess.Popen[str]
    out: Path


def parse(text: str) -> Shard:
    """`0/4` is the first of four. Raises InvalidOption."""
    try:
        index, count = map(int, text.split("/"))
    except ValueError:
        index, count = -1, 0
    if not 0 <= index < count:
        raise InvalidOption(f"--shard {text}: the first of four is 0/4, the last 3/4")
    return Shard(index, count)


def run(scenario: Scenario, url: str, count: int, start_at: float | None = None) -> Result:
    """Measure with `count` processes of this machine, none of which is there any more afterwards.

    An interruption ends all of them, and so does the end of one without a result; what the others have
    measured by then is merged, and the result says so. Raises InvalidOption for many more than there are
    cores, LoadTestError with what one of them said.
    """
    if count > (most := MOST_PER_CORE * (os.cpu_count() or 1)):
        raise InvalidOption(f"--processes {count}: each takes one core; here, more than {most} are too many")
    with tempfile.TemporaryDirectory(prefix="loadtest-") as folder:
        path = Path(folder) / "scenario.json"
        path.write_text(scenario.model_dump_json(exclude_unset=True), encoding="utf-8")
        start = time.time() + START_UP_S if start_at is None else start_at
        outs = [Path(folder) / f"{index}.json" for index in range(count)]
        generators: list[Generator] = []
        interruptions: list[bool] = []
        try:
            with interruption.calling(lambda: interruptions.append(True)):
                for index, out in enumerate(outs):
                    if not interruptions:
                        generators.append(_start(path, url, f"{index}/{count}", start, out))
                with progress.showing(lambda: standing.read([_told(out) for out in outs]), scenario.span):
                    _wait(generators, interruptions)
                    first = list(filter(_failed, generators))
                    _end(generators)
        finally:
            _kill(generators)
        return _gather(generators, bool(interruptions), first)


def merge(results: Sequence[Result]) -> Result:
    """One result of all shards of a run. Raises InvalidResult where they are not all shards of one.

    The machine is the first generator's, wherever this is called.
    """
    ordered = sorted(results, key=lambda result: result.shard)
    if [result.shard for result in ordered] != [(index, len(ordered)) for index in range(len(ordered))]:
        have = ", ".join(f"{index}/{count}" for index, count in (result.shard for result in ordered))
        raise InvalidResult(f"these are not all shards of one run: {have}")
    return _together(ordered)


def _together(ordered: Sequence[Result]) -> Result:
    first = ordered[0]
    if any(result.scenario != first.scenario for result in ordered):
        raise InvalidResult("the results are of different scenarios")
    samples = concatenate([result.samples.samples() for result in ordered])
    counts = Counts(
        **{name: sum(getattr(result.counts, name) for result in ordered) for name in Counts.model_fields}
    )
    seen = replace(first.server, reconciled=list(reconcile(first.server.changes, samples, counts.unfinished)))
    try:
        merged = assemble(first.scenario, first.url, samples, _course(ordered), counts, seen)
    except OSError as error:
        raise InvalidResult(f"the length of the run is its trace's, merge where that is: {error}") from error
    return merged.model_copy(update={"machine": first.machine, "versions": first.versions})


def _course(results: Sequence[Result]) -> Course:
    courses = [result.course for result in results]
    interruptions = [course.interrupted_ms for course in courses if course.interrupted_ms is not None]
    return Course(
        started_at=min(course.started_at for course in courses),
        ended_ms=max((course.ended_ms for course in courses if course.ended_ms is not None), default=None),
        interrupted_ms=min(interruptions, default=None),
        cpu_shares=[share for course in courses for share in course.cpu_shares],
    )


def _start(path: Path, url: str, shard: str, start: float, out: Path) -> Generator:
    options = ["--url", url, "--shard", shard, "--start-at", repr(start), "--out", str(out), "--quiet"]
    if progress.shown():
        options += ["--tell", str(_told(out))]
    process = subprocess.Popen(
        [sys.executable, "-m", "loadtests", "run", str(path), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a Ctrl-C reaches them once, through us
    )
    return Generator(process, out)


def _told(out: Path) -> Path:
    """Where the generator that writes its result to `out` tells how it stands."""
    return out.with_suffix(".standing")


def _wait(generators: Sequence[Generator], interruptions: Sequence[bool]) -> None:
    """Until all have ended, or one has without a result, or there is an interruption."""
    while any(map(_goes_on, generators)) and not any(map(_failed, generators)) and not interruptions:
        time.sleep(LOOK_EVERY_S)


def _end(generators: Sequence[Generator]) -> None:
    """Have those that still go on write what they have measured, and wait for them.

    Not by SIGINT: a program in the background may be deaf to it.
    """
    going_on = list(filter(_goes_on, generators))
    for process, _ in going_on:
        process.terminate()
    latest = time.monotonic() + END_WITHIN_S
    for process, _ in going_on:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, latest - time.monotonic()))


def _kill(generators: Sequence[Generator]) -> None:
    for process, _ in generators:
        process.kill()
        process.wait()


def _gather(generators: Sequence[Generator], interrupted: bool, first: Sequence[Generator]) -> Result:
    """One result of what they left. Raises LoadTestError, or KeyboardInterrupt, where that is nothing.

    `first` have failed of themselves: the reason is theirs, whatever those say that were ended for it.
    """
    complaints = [process.stderr.read() if process.stderr else "" for process, _ in generators]
    lost = [index for index, generator in enumerate(generators) if _failed(generator)]
    lost.sort(key=lambda index: generators[index] not in first)
    left = [read_run(out) for _, out in generators if out.exists()]
    something = any(result.counts.sent for result in left)
    if interrupted and not something:
        raise KeyboardInterrupt
    if not lost:
        return merge(left)
    said = _first_error([complaints[index] for index in lost])
    # A complaint comes before anything is sent, and is about the run: what others sent by then is nothing.
    if not something or (said and not interrupted):
        raise LoadTestError(said or _how_ended(generators[lost[0]]))
    merged = _together(left)
    reasons = [
        f"generator {index} of {len(generators)} is lost with its part of the samples: "
        f"{_first_error([complaints[index]]) or _how_ended(generators[index])}"
        for index in lost
    ]
    return merged.model_copy(update={"outcome": "invalid", "invalid": [*merged.invalid, *reasons]})


def _goes_on(generator: Generator) -> bool:
    return generator.process.poll() is None


def _failed(generator: Generator) -> bool:
    return not _goes_on(generator) and not generator.out.exists()


def _first_error(complaints: Sequence[str]) -> str:
    lines = [line for text in complaints for line in text.splitlines() if line.startswith("error: ")]
    return lines[0].removeprefix("error: ") if lines else ""


def _how_ended(generator: Generator) -> str:
    code = generator.process.returncode
    how = f"signal {-code} ended it" if code < 0 else f"exit code {code}"
    return f"a generator ended without a result ({how})"
