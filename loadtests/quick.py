"""A first honest answer about an address, in half a minute: what it speaks, how fast it is, alone and loaded.

The load is half of what one client after the other gets through: enough to see queueing, and not so much that
an unknown server falls over. An objective is not assumed, so the verdict is only on errors.
"""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from loadtests import address
from loadtests.client import Client
from loadtests.dialects import Request
from loadtests.discover import discover
from loadtests.errors import LoadTestError, ProbeFailed
from loadtests.point import cut_short
from loadtests.result import Result
from loadtests.scenario import Scenario

# Parts of the whole time: one client alone, and the load after it. What is left is for finding out.
ALONE, LOADED = 0.2, 0.7

# Of what one client alone gets through.
LOAD = 0.5

MIN_RATE, MAX_RATE = 0.2, 1000.0


class Answer(NamedTuple):
    """The latest run that could be, and why there is none after it where there should be."""

    result: Result
    cut: str = ""


def find(url: str, model: str | None) -> Request:
    """What to ask the server. Raises ProbeFailed."""

    async def ask() -> Request:
        client = Client(address.parse(url, "URL"))
        try:
            return await discover(client, model)
        finally:
            await client.pool.close()

    return asyncio.run(ask())


def measure(
    request: Request, seconds: float, run: Callable[[Scenario], Result], say: Callable[[str], None]
) -> Answer:
    """Alone first, then at the rate that follows from it. Raises ProbeFailed where nothing is answered.

    What was measured alone is the answer where the load cannot be.
    """
    entry = request.model_dump(exclude_unset=True)
    alone = run(_scenario(entry, {"kind": "single-stream"}, seconds * ALONE, 0.0))
    latency = alone.summary.latency_ms
    if alone.course.interrupted_ms is not None:
        return Answer(alone)
    if latency is None:
        raise ProbeFailed("no request was answered well by the server, one client alone")
    rate = min(max(LOAD * 1e3 / latency.mean, MIN_RATE), MAX_RATE)
    say(f"one client alone: {latency.mean:.2f} ms a request on average, {alone.summary.throughput_rps:.1f}/s")
    say(f"open loop at {rate:.1f}/s, half of that:")
    loaded = _scenario(entry, {"kind": "poisson", "rate": rate}, seconds * LOADED, seconds * 0.05)
    try:
        return Answer(run(loaded))
    except (KeyboardInterrupt, LoadTestError) as end:
        return Answer(alone, cut_short(end, f"the load of {rate:.1f}/s; the figures are of one client alone"))


def _scenario(entry: dict[str, Any], arrivals: dict[str, Any], duration: float, warmup: float) -> Scenario:
    document = {"arrivals": arrivals, "duration": duration, "warmup": warmup, "mix": [entry]}
    return Scenario.model_validate(document)
