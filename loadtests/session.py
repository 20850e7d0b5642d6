"""A run: draw the plan, probe the server, send everything on time, wait for every answer.

Cancelling the run (Ctrl-C does) ends the sending and keeps what was measured.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from loadtests import address, interruption
from loadtests.client import Client
from loadtests.driver import Driver
from loadtests.errors import ConnectFailed, InvalidOption, ProbeFailed
from loadtests.monitor import watching
from loadtests.pacing import now
from loadtests.plan import WHOLE, Plan, Shard, draw
from loadtests.probe import probe
from loadtests.recording import Recording, Table
from loadtests.scenario import Scenario

# Between the end of the preparations and the start of the plan.
HEAD_START_S = 0.05

# A start further from now than this is a mistake.
FURTHEST_START_S = 86_400.0

# A closed loop does not know how much it will send; its table grows from here.
CLOSED_CAPACITY = 4096

Watch = Callable[[Recording], AbstractContextManager[object]]


def run(
    scenario: Scenario, url: str, watch: Watch = nullcontext, shard: Shard = WHOLE, at: float | None = None
) -> Recording:
    """Measure from synchronous code. Ctrl-C ends the sending and gives what was recorded until then.

    So does any signal that is heeded (`interruption`). Raises KeyboardInterrupt where there is nothing yet.
    """

    async def stoppable() -> Recording:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        with interruption.calling(lambda: loop.call_soon_threadsafe(task.cancel)):
            return await measure(scenario, url, watch, shard, at)

    with asyncio.Runner(loop_factory=_fastest_loop()) as runner:
        try:
            return runner.run(stoppable())
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


async def measure(
    scenario: Scenario, url: str, watch: Watch = nullcontext, shard: Shard = WHOLE, at: float | None = None
) -> Recording:
    """The whole run, or one generator's shard of it. It starts `at` a Unix time, or as soon as it can.

    `watch` is entered with the recording for as long as requests are sent or awaited. Raises InvalidScenario,
    InvalidOption or ProbeFailed before anything is measured.
    """
    _check_start(at)
    client = Client(address.parse(url), scenario.headers, scenario.key_header)
    plan = draw(scenario, client, shard)
    recording = Recording(plan.requests, Table(plan.requests or CLOSED_CAPACITY))
    try:
        async with client:
            await probe(client, plan, scenario)
            # The first generator watches for all: the server's own figures are about all of them.
            look = shard.index == 0
            async with watching(client, scenario.metrics, recording.observed, look):
                with watch(recording):
                    await conduct(client, plan, scenario.timeout, recording, at)
    except ConnectFailed as error:
        raise ProbeFailed(f"cannot reach {client.address}: {error}") from error
    except asyncio.CancelledError:
        if recording.ended_at is None:
            raise
        _stay_alive()
    return recording


async def conduct(
    client: Client, plan: Plan, timeout: float, recording: Recording, at: float | None = None
) -> None:
    """Drive the plan; every request has ended when this returns."""
    driver = Driver(client, plan, timeout, recording)
    # A start that has passed is not moved: what is late then is sent late, and counted.
    recording.start = now() + (HEAD_START_S if at is None else at - time.time())
    try:
        await driver.drive()
    except asyncio.CancelledError:
        recording.interrupted_at = now()
        _stay_alive()
    finally:
        driver.stop()


def _check_start(at: float | None) -> None:
    """Raises InvalidOption for what is hardly meant, such as milliseconds."""
    if at is not None and not abs(at - time.time()) <= FURTHEST_START_S:
        raise InvalidOption(f"--start-at {at:g}: not within a day; in a minute is {time.time() + 60:.0f}")


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
