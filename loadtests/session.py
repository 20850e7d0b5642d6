"""A run: draw the plan, probe the server, send everything on time, wait for every answer.

Open loop: a request goes out at its planned time whether or not the ones before it have been answered. Each
has its own deadline, so a run ends at most one timeout after its last request, whatever the server does.
Cancelling the run (Ctrl-C does) ends the sending and keeps what was measured.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import aiohttp

from loadtests.client import Sample, connect, send
from loadtests.pacing import Pacer, now
from loadtests.plan import Arrival, draw
from loadtests.probe import probe
from loadtests.scenario import Scenario

# Between the end of the preparations and the start of the plan.
HEAD_START_S = 0.05


@dataclass(slots=True)
class Recording:
    """A run as it was observed; it may be read while the run goes on. Clock times in seconds.

    `cpu_share` is the part of its one core that the generator's loop used while it was sending.
    """

    planned: int
    started_at: datetime = field(default_factory=partial(datetime.now, UTC))
    start: float = 0.0
    sent: int = 0
    failed: int = 0
    samples: list[Sample] = field(default_factory=list)
    interrupted_at: float | None = None
    cpu_share: float = 0.0


Watch = Callable[[Recording], AbstractContextManager[object]]


def run(scenario: Scenario, url: str, watch: Watch = nullcontext) -> Recording:
    """Measure from synchronous code. Ctrl-C ends the sending and gives what was recorded until then."""
    with asyncio.Runner(loop_factory=_fastest_loop()) as runner:
        return runner.run(measure(scenario, url, watch))


async def measure(scenario: Scenario, url: str, watch: Watch = nullcontext) -> Recording:
    """The whole run. `watch` is entered with the recording for as long as requests are sent or awaited.

    Raises InvalidScenario, InvalidOption or ProbeFailed before anything is measured.
    """
    plan = draw(scenario, url)
    recording = Recording(planned=len(plan))
    async with connect() as session:
        await probe(session, plan, scenario)
        with watch(recording):
            await drive(session, plan, scenario.timeout, recording)
    return recording


async def drive(
    session: aiohttp.ClientSession, plan: Sequence[Arrival], timeout: float, recording: Recording
) -> None:
    """Send the plan and collect the samples; every request has ended when this returns."""
    in_flight: set[asyncio.Task[Sample]] = set()

    def launch(index: int) -> None:
        if recording.interrupted_at is None:
            arrival = plan[index]
            planned = recording.start + arrival.offset
            task = asyncio.create_task(send(session, arrival, planned, timeout))
            in_flight.add(task)
            task.add_done_callback(collect)
            recording.sent += 1

    def collect(task: asyncio.Task[Sample]) -> None:
        in_flight.discard(task)
        if not task.cancelled():
            sample = task.result()
            recording.samples.append(sample)
            recording.failed += sample.error is not None

    began, cpu_before = now(), time.thread_time()
    recording.start = began + HEAD_START_S
    pacer = Pacer(recording.start, [arrival.offset for arrival in plan], launch)
    try:
        await pacer.finished.wait()
        recording.cpu_share = (time.thread_time() - cpu_before) / (now() - began)
        await _ended(in_flight)
    except asyncio.CancelledError:
        recording.interrupted_at = now()
        _stay_alive()
    finally:
        pacer.stop()
    for task in in_flight:
        task.cancel()
    await _ended(in_flight)


async def _ended(tasks: set[asyncio.Task[Sample]]) -> None:
    if tasks:
        await asyncio.wait(tasks)


def _stay_alive() -> None:
    """The cancellation has been dealt with: what was measured is still to be returned."""
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()


def _fastest_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
