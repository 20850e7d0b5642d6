import asyncio
import time
from contextlib import contextmanager

import pytest
from aiohttp import web

from loadtests.errors import InvalidOption
from loadtests.pacing import now
from loadtests.result import build
from loadtests.session import measure, run


async def answer(request):
    return web.Response()


def test_a_stall_of_the_server_shows_in_the_tail(serve, scenario):
    """Coordinated omission: a closed loop would have sent one request into this second and shown it slow."""

    async def stall_once(request):
        if server.requests == 31:
            time.sleep(1)
        return web.Response()

    server = serve(stall_once)
    stalled = scenario(arrivals={"kind": "constant", "rate": 100}, duration=1.5)
    result = build(stalled, server.url, run(stalled, server.url))
    latency = result.summary.latency_ms
    assert latency.samples == 150
    assert latency.percentiles["p95"].value > 800  # so that a p99, which needs 662 samples, is above it
    samples = list(zip(result.samples.latency_ms, result.samples.lag_ms, strict=True))
    assert sum(latency > 400 for latency, _ in samples) >= 50
    # They were sent while the server stood still: whoever waits for an answer first sends none.
    assert sum(latency - lag > 100 for latency, lag in samples) >= 20


def test_a_stall_of_the_generator_is_counted_and_makes_the_run_invalid(serve, scenario):
    @contextmanager
    def block_the_loop(recording):
        asyncio.get_running_loop().call_later(0.2, time.sleep, 0.3)
        yield

    server = serve(answer)
    blocked = scenario(arrivals={"kind": "constant", "rate": 100}, duration=0.6)
    result = build(blocked, server.url, run(blocked, server.url, watch=block_the_loop))
    assert result.outcome == "invalid"
    assert any("sent late" in reason for reason in result.invalid)
    assert result.generator.late >= 20
    assert result.counts.sent == result.counts.measured == 60
    planned = result.samples.planned_ms
    assert planned == pytest.approx([10 * number for number in range(60)], abs=0.002)


def test_waiting_for_the_start_does_not_dilute_the_share_of_the_core(serve, scenario):
    def spin():
        end = time.thread_time() + 0.1
        while time.thread_time() < end:
            pass

    @contextmanager
    def busy(recording):
        loop = asyncio.get_running_loop()
        # The start is known by the loop's next turn.
        loop.call_soon(lambda: loop.call_later(recording.start + 0.01 - now(), spin))
        yield

    start = time.time() + 1
    recording = asyncio.run(measure(scenario(duration=1), serve(answer).url, busy, at=start))
    assert recording.cpu_share * (recording.ended_at - recording.start) > 0.09


@pytest.mark.parametrize("at", [0.0, 1.79e12, float("nan"), float("inf")])
def test_a_start_that_is_no_time_of_these_days_is_refused(scenario, at):
    with pytest.raises(InvalidOption, match="not within a day; in a minute is"):
        run(scenario(), "http://127.0.0.1:9", at=at)


def test_cancelling_keeps_what_was_measured(serve, scenario):
    async def cancel_after(requests):
        work = asyncio.create_task(measure(long, server.url))
        await asyncio.to_thread(server.wait_for, requests)
        work.cancel()
        return await work

    async def never_after_the_fifth(request):
        if server.requests > 5:
            await asyncio.Event().wait()
        return web.Response()

    server, long = serve(never_after_the_fifth), scenario(duration=60)
    result = build(long, server.url, asyncio.run(cancel_after(8)))
    assert result.outcome == "invalid"
    assert "the run was interrupted" in result.invalid
    assert result.counts.measured == 4
    assert result.counts.unfinished == result.counts.sent - 4 >= 3
    assert result.counts.planned == 2400


def test_cancelling_during_the_probe_is_a_cancellation(serve, scenario):
    async def never(request):
        await asyncio.Event().wait()

    async def cancel():
        work = asyncio.create_task(measure(scenario(), server.url))
        await asyncio.to_thread(server.wait_for, 1)
        work.cancel()
        await work

    server = serve(never)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())


def test_a_run_ends_one_timeout_after_its_last_request_at_the_latest(serve, scenario, record):
    async def never(request):
        await asyncio.Event().wait()

    recording = record(scenario(duration=0.2, timeout=0.5), serve(never).url)
    assert {sample.error for sample in recording.table.whole} == {"timeout"}
    assert recording.sent == recording.ended == 8
