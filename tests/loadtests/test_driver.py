"""The loops against real servers: who asks when, what follows what, and who leaves."""

import asyncio
import json
from itertools import pairwise

from aiohttp import web

from loadtests import plan
from loadtests.pacing import now
from loadtests.result import build
from loadtests.sample import Manner

CHAT = {"dialect": "openai-chat", "model": "m", "prompts": ["one", "two", "three"], "stream": False}


def closed(**keys):
    return {"kind": "closed", "users": 1} | keys


async def answer(request):
    await asyncio.sleep(0.01)
    return web.Response()


def test_users_wait_for_their_answers(serve, scenario, record):
    busy = most = 0

    async def count(request):
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.01)
        busy -= 1
        return web.Response()

    recording = record(scenario(arrivals=closed(users=3), duration=1), serve(count).url)
    assert most == 3
    # Each has asked again, and nobody more often than answers of 10 ms let them.
    assert 6 <= recording.sent <= 303
    assert recording.sent == recording.ended


def test_a_number_of_requests_ends_a_closed_loop(serve, scenario, record):
    arrivals = closed(users=4, requests=30)
    recording = record(scenario(arrivals=arrivals, duration=None), serve(answer).url)
    assert recording.sent == recording.ended == 30
    assert recording.failed == 0


def test_users_think_before_they_ask_again(serve, scenario, record):
    arrivals = closed(think=0.05, requests=4)
    samples = record(scenario(arrivals=arrivals, duration=None), serve(answer).url).table.whole
    for before, after in pairwise(samples):
        assert after.planned - before.ended >= 0.045
        assert after.lag_ms >= 0


def test_a_dead_server_is_not_asked_as_fast_as_it_fails(serve, scenario, record):
    server = serve(answer)
    server.close()
    recording = record(scenario(arrivals=closed(), duration=0.35), server.url)
    assert recording.failed == recording.sent <= 5


def test_a_query_of_multi_stream_is_eight_requests_at_once(serve, scenario, record):
    arrivals = {"kind": "multi-stream"}
    chosen = scenario(arrivals=arrivals, duration=0.2, objectives={"query_p99_ms": 5000})
    recording = record(chosen, serve(answer).url)
    planned = [sample.planned for sample in recording.table.whole]
    assert all(planned.count(moment) == 8 for moment in planned)
    result = build(chosen, "http://127.0.0.1:1", recording)
    assert result.summary.query_ms.samples == len(set(planned))
    assert result.objectives[1].met


def test_offline_takes_what_there_is_with_so_many_in_flight(serve, scenario, record):
    offline = scenario(arrivals={"kind": "offline", "requests": 50, "in_flight": 8}, duration=None)
    server = serve(answer)
    result = build(offline, server.url, record(offline, server.url))
    assert (result.counts.sent, result.counts.measured) == (50, 50)
    assert result.summary.throughput_rps > 0


def test_a_conversation_holds_what_the_server_said_before(serve, scenario, record):
    bodies = []

    async def say(request):
        body = await request.json()
        bodies.append(body)
        said = f'"{len(body["messages"])}"\n'
        return web.json_response({"choices": [{"message": {"content": said}}]})

    mix = [CHAT | {"turns": 3, "think": 0.01, "prompts": ["one"], "system": "short"}]
    recording = record(scenario(arrivals=closed(requests=1), duration=None, mix=mix), serve(say).url)
    assert [sample.error for sample in recording.table.whole] == [None] * 3
    assert [len(body["messages"]) for body in bodies] == [2, 4, 6]
    last = [(message["role"], message["content"]) for message in bodies[2]["messages"]]
    assert last == [
        ("system", "short"),
        ("user", "one"),
        ("assistant", '"2"\n'),
        ("user", "one"),
        ("assistant", '"4"\n'),
        ("user", "one"),
    ]


def test_a_conversation_whose_turn_fails_is_not_continued(serve, scenario, record):
    async def fail(request):
        return web.Response(status=500)

    chosen = scenario(arrivals={"kind": "constant", "rate": 20}, mix=[CHAT | {"turns": 3}])
    recording = record(chosen, serve(fail).url)
    assert (recording.sent, recording.skipped) == (5, 10)


def test_clients_that_leave_are_gone_for_the_server_too(serve, scenario, record):
    came, left = [], []

    async def wait(request):
        came.append(request)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            left.append(request)
            raise
        return web.Response()

    mix = [{"dialect": "http", "cancel": {"share": 1, "after": 0.05}}]
    server = serve(wait)
    recording = record(scenario(mix=mix, timeout=30), server.url)
    assert {sample.manner for sample in recording.table.whole} == {Manner.CANCEL}
    assert {sample.error for sample in recording.table.whole} == {None}
    assert all(45 <= sample.service_ms < 30_000 for sample in recording.table.whole)
    # A server that is late may not have begun with somebody who is gone already.
    server.wait_until(lambda: len(left) == len(came) > 0)


def test_a_slow_reader_takes_as_long_as_its_rate_says(serve, scenario, record):
    async def much(request):
        return web.Response(body=b"x" * 200_000)

    slow = {"share": 1, "bytes_per_s": 500_000}
    arrivals = closed(requests=1)
    mix = [{"dialect": "http", "slow": slow}]
    recording = record(scenario(arrivals=arrivals, duration=None, mix=mix), serve(much).url)
    (sample,) = recording.table.whole
    assert sample.error is None
    assert sample.manner is Manner.SLOW
    assert sample.service_ms > 200


def test_a_slow_reader_is_as_slow_where_many_chunks_come_at_once(serve, scenario, record):
    async def stream(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(500):
            await response.write(b"x" * 400)
        return response

    mix = [{"dialect": "http", "slow": {"share": 1, "bytes_per_s": 500_000}}]
    recording = record(scenario(arrivals=closed(requests=1), duration=None, mix=mix), serve(stream).url)
    (sample,) = recording.table.whole
    assert sample.error is None
    assert sample.service_ms > 200


def test_the_latencies_of_a_server_with_one_worker_are_those_of_its_queue(serve, scenario, record):
    """A fixed service time: each request waits for those that were drawn before it (Lindley's recursion)."""
    service, free, answered = 0.02, 0.0, []

    async def one_at_a_time(request):
        nonlocal free
        free = max(free, now()) + service
        await asyncio.sleep(free - now())
        answered.append(now())
        return web.Response()

    chosen = scenario(arrivals={"kind": "poisson", "rate": 30}, duration=4, seed=5)
    samples = sorted(record(chosen, serve(one_at_a_time).url).table.whole, key=lambda sample: sample.planned)
    expected, ends = [], 0.0
    for sample in samples:
        ends = max(ends, sample.planned) + service
        expected.append(1e3 * (ends - sample.planned))
    # Nothing can be faster than the queue; a busy machine makes some slower, and what waits behind them.
    above = [sample.latency_ms - value for sample, value in zip(samples, expected, strict=True)]
    assert min(above) > -1.5
    # So how long they took at the most is held against when the server was done with as many.
    ends = sorted(sample.planned + sample.latency_ms / 1e3 for sample in samples)
    later = sorted(end - done for end, done in zip(ends, sorted(answered), strict=True))
    assert later[0] >= 0
    assert later[len(later) // 4] < 0.1


def test_bodies_of_later_turns_are_valid_json_whatever_was_said(serve, scenario, record):
    async def say(request):
        json.loads(await request.text())
        return web.json_response({"choices": [{"message": {"content": 'a "quote", \\ and \u2028 a line'}}]})

    chosen = scenario(arrivals=closed(requests=2), duration=None, mix=[CHAT | {"turns": 2}])
    assert {sample.error for sample in record(chosen, serve(say).url).table.whole} == {None}


def test_users_begin_again_with_the_first_request_after_the_last(serve, scenario, record, monkeypatch):
    monkeypatch.setattr(plan, "CLOSED_REQUESTS", 4)
    recording = record(scenario(arrivals=closed(users=2), duration=1.5), serve(answer).url)
    assert recording.sent > 8
    assert {sample.row for sample in recording.table.whole} == {0, 1, 2, 3}
