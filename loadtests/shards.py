"""Several generators, one plan: each sends its share of one drawn schedule, and raw samples are merged.

Every shard draws the whole plan from the seed and sends each n-th request of it, so the load is the one that
a single generator would have sent, without a gap that comes twice. Locally they are processes that this
module starts. On several machines an engine that runs jobs (Kubernetes, Ray) starts the same command with
`--shard i/n --start-at TIME`, and `merge` puts the results together.
"""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from loadtests import progress, standing
from loadtests.documents import read_run
from loadtests.errors import InvalidOption, InvalidResult, LoadTestError
from loadtests.plan import Shard
from loadtests.result import Counts, Course, Result, assemble
from loadtests.samples import concatenate
from loadtests.scenario import Scenario
from loadtests.server import reconcile

# To import, draw the plan and probe, on a machine that is busy starting several of them.
START_UP_S = 3.0

# How soon it is seen that a generator has ended.
LOOK_EVERY_S = 0.05


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
    """Measure with `count` processes of this machine. Raises LoadTestError with what one of them said."""
    with tempfile.TemporaryDirectory(prefix="loadtest-") as folder:
        path = Path(folder) / "scenario.json"
        path.write_text(scenario.model_dump_json(exclude_unset=True), encoding="utf-8")
        start = time.time() + START_UP_S if start_at is None else start_at
        outs = [Path(folder) / f"{index}.json" for index in range(count)]
        generators = [_start(path, url, f"{index}/{count}", start, out) for index, out in enumerate(outs)]
        with progress.showing(lambda: standing.read([_told(out) for out in outs]), scenario.span):
            interrupted = _wait(generators)
            failed = list(filter(_failed, generators))
            # Of a run that failed nothing is kept. A program in the background may be deaf to Ctrl-C.
            _end(generators, signal.SIGTERM if failed else signal.SIGINT)
        if failed:
            raise LoadTestError(
                _first_error([process.stderr.read() for process, _ in failed if process.stderr])
            )
        if interrupted and not all(out.exists() for out in outs):
            raise KeyboardInterrupt
        return merge([read_run(out) for out in outs])


def merge(results: Sequence[Result]) -> Result:
    """One result of all shards of a run. Raises InvalidResult where they are not all shards of one.

    The machine is the first generator's, wherever this is called.
    """
    ordered = sorted(results, key=lambda result: result.shard)
    first = ordered[0]
    if [result.shard for result in ordered] != [(index, len(ordered)) for index in range(len(ordered))]:
        have = ", ".join(f"{index}/{count}" for index, count in (result.shard for result in ordered))
        raise InvalidResult(f"these are not all shards of one run: {have}")
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


def _wait(generators: Sequence[Generator]) -> bool:
    """Until all have ended, or one has without a result, or a Ctrl-C, which is True."""
    try:
        while any(map(_goes_on, generators)) and not any(map(_failed, generators)):
            time.sleep(LOOK_EVERY_S)
    except KeyboardInterrupt:
        return True
    return False


def _end(generators: Sequence[Generator], how: signal.Signals) -> None:
    """Those that still go on. At Ctrl-C each writes what it has measured, where there is anything."""
    for process, _ in filter(_goes_on, generators):
        process.send_signal(how)
    for process, _ in generators:
        process.wait()


def _goes_on(generator: Generator) -> bool:
    return generator.process.poll() is None


def _failed(generator: Generator) -> bool:
    return not _goes_on(generator) and not generator.out.exists()


def _first_error(complaints: Sequence[str]) -> str:
    lines = [line for text in complaints for line in text.splitlines() if line.startswith("error: ")]
    return lines[0].removeprefix("error: ") if lines else "a generator ended without a result"
