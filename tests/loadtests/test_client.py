import asyncio
import errno
import json
import ssl
import threading
from dataclasses import replace
from functools import partial

import pytest
from aiohttp import web

from loadtests import address
from loadtests.client import Client, detail_of, kind_of
from loadtests.dialects import openai_completions as completions
from loadtests.dialects.exchange import Call
from loadtests.dialects.token_stream import TokenStream
from loadtests.errors import ConnectFailed, InvalidOption
from loadtests.monitor import Text
from loadtests.pacing import now
from loadtests.sample import Sample

COMPLETIONS = {"dialect": "openai-completions", "model": "m", "prompts": ["p"]}
INFER = {"dialect": "oip-infer", "model": "m", "inputs": [{"name": "x", "shape": [1]}]}
TOKEN = b'data: {"choices": [{"text": "a"}]}\n\n'


async def never(request):
    await asyncio.Event().wait()


async def drop(request):
    request.transport.close()
    return web.Response()


async def reset(request):
    request.transport.abort()
    return web.Response()


async def fail(request):
    return web.Response(status=500, text="out of memory")


async def redirect(request):
    raise web.HTTPFound("/elsewhere")


async def lie_about_the_length(request):
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b"ten bytes.")
    request.transport.close()
    return response


async def speak_no_http(request):
    request.transport.write(b"hello\r\n\r\n")
    request.transport.close()
    return web.Response()


async def speak_html(request):
    return web.Response(text="<html>", content_type="text/html")


def stream(*chunks, then):
    async def handler(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        await then(request)
        return response

    return handler


async def leave_politely(request):
    pass


async def trickle(request):
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(TOKEN)
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("handler", "request_", "kind"),
    [
        (never, {"dialect": "http"}, "timeout"),
        (trickle, COMPLETIONS, "timeout"),
        (drop, {"dialect": "http"}, "disconnected"),
        (reset, {"dialect": "http"}, "disconnected"),
        (fail, {"dialect": "http"}, "http_500"),
        (redirect, {"dialect": "http"}, "http_302"),
        (lie_about_the_length, {"dialect": "http"}, "truncated"),
        (stream(TOKEN, then=drop), COMPLETIONS, "truncated"),
        (stream(TOKEN, then=reset), COMPLETIONS, "truncated"),
        (stream(TOKEN, then=leave_politely), COMPLETIONS, "truncated"),
        (stream(TOKEN, then=never), COMPLETIONS, "timeout"),
        (stream(b'data: {"error": "oom"}\n\n', then=leave_politely), COMPLETIONS, "error_in_stream"),
        (speak_no_http, {"dialect": "http"}, "bad_http"),
        (speak_html, INFER, "bad_body"),
    ],
)
def test_a_misbehaving_server_is_reported_by_kind_and_never_hangs(
    serve, scenario, record, handler, request_, kind
):
    timeout = 0.4 if kind == "timeout" else 60
    recording = record(scenario(duration=0.1, timeout=timeout, mix=[request_]), serve(handler).url)
    assert {sample.error for sample in recording.table.whole} == {kind}
    assert len(recording.table.whole) == recording.sent == 4
    assert all(sample.detail for sample in recording.table.whole)
    assert all(sample.latency_ms >= sample.service_ms > 0 for sample in recording.table.whole)


def test_a_port_that_nobody_listens_on_is_a_connect_error(serve, scenario, record):
    server = serve(fail)
    server.close()
    assert {sample.error for sample in record(scenario(), server.url).table.whole} == {"connect"}


def test_nothing_is_tried_twice(serve, scenario, record):
    """A request that a kept connection drops is idempotent here, and still counts as failed."""
    seen, dropped = set(), []

    async def answer_once_per_connection(request):
        if request.transport not in seen:
            seen.add(request.transport)
            return web.Response()
        dropped.append(request)
        return await drop(request)

    server = serve(answer_once_per_connection)
    recording = record(scenario(), server.url)
    assert server.requests == recording.sent
    assert sum(sample.error == "disconnected" for sample in recording.table.whole) == len(dropped) > 0


def test_a_key_that_no_header_can_hold_is_refused_and_white_space_around_it_is_nothing(monkeypatch):
    monkeypatch.setenv("MODELPRESS_API_KEY", "secret\n")
    call = Call("GET", "/", None, Text)
    assert b"Bearer secret\r\n" in Client(address.parse("http://a")).prepare(call, 0).wire
    for key in ("schlüssel", "two\nlines"):
        monkeypatch.setenv("MODELPRESS_API_KEY", key)
        with pytest.raises(InvalidOption, match="MODELPRESS_API_KEY: a key is one line of ASCII") as caught:
            Client(address.parse("http://a"))
        assert key not in str(caught.value)


def test_the_key_goes_out_with_every_request_and_stays_out_of_the_samples(
    serve, scenario, record, monkeypatch
):
    async def check(request):
        return web.Response(status=200 if request.headers.get("Authorization") == "Bearer secret" else 401)

    server = serve(check)
    assert {sample.error for sample in record(scenario(), server.url).table.whole} == {"http_401"}
    monkeypatch.setenv("MODELPRESS_API_KEY", "secret")
    samples = record(scenario(), server.url).table.whole
    assert {sample.error for sample in samples} == {None}
    assert "secret" not in repr(samples)


def test_the_body_that_was_planned_is_the_body_that_arrives(serve, scenario, record):
    bodies = []

    async def echo(request):
        bodies.append(await request.json())
        return web.json_response({"outputs": [{"name": "y"}]})

    record(scenario(mix=[INFER | {"variants": 1}]), serve(echo).url)
    assert len({json.dumps(body) for body in bodies}) == 1
    assert bodies[0]["inputs"][0]["name"] == "x"


def test_a_calls_own_headers_go_out_with_it(serve, scenario, record):
    lengths = []

    async def check(request):
        lengths.append((len(await request.read()), int(request.headers["Inference-Header-Content-Length"])))
        return web.json_response({"outputs": [{"name": "y"}]})

    recording = record(scenario(mix=[INFER | {"binary": True, "variants": 1}]), serve(check).url)
    assert recording.failed == 0
    assert {whole - head for whole, head in lengths} == {4}


EMPTY_TOKEN = b'data: {"choices": [{"text": ""}]}\n\n'
NINE_TOKENS = b'data: {"choices": [], "usage": {"completion_tokens": 9}}\n\ndata: [DONE]\n\n'


def test_token_times_follow_the_servers_schedule(serve, scenario, record):
    """Five tokens, at 100, 150, 200, 250 and 300 ms by the server's own clock; usage says they were nine."""

    async def generate(request):
        started = asyncio.get_running_loop().time()
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(EMPTY_TOKEN)
        for number in range(5):
            await asyncio.sleep(started + 0.1 + number * 0.05 - asyncio.get_running_loop().time())
            await response.write(TOKEN)
        await response.write(NINE_TOKENS)
        return response

    keys = {"arrivals": {"kind": "constant", "rate": 10}, "duration": 0.3, "mix": [COMPLETIONS]}
    samples = record(scenario(**keys), serve(generate).url).table.whole
    assert [(sample.tokens, len(sample.gaps_ms)) for sample in samples] == [(9, 4)] * 3
    # Each can only be later than that, by what the machine has else to do.
    for sample in samples:
        assert sample.ttft_ms >= 99
        assert sample.ttft_ms + sum(sample.gaps_ms) >= 299
        assert sample.latency_ms >= 299


def test_a_tokens_time_is_when_it_came(serve):
    """A token is written only when the one before it has been read: its time lies between, on one clock."""
    written, read = [], threading.Semaphore(0)

    class Telling(TokenStream):
        """Tells the server that it has read."""

        def feed(self, chunk, arrived):
            super().feed(chunk, arrived)
            read.release()

    async def generate(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in (EMPTY_TOKEN, *[TOKEN] * 5, NINE_TOKENS):
            written.append(now())
            await response.write(chunk)
            await asyncio.to_thread(read.acquire)
        return response

    async def ask(url):
        (call,) = completions.calls(completions.CompletionsRequest.model_validate(COMPLETIONS))
        async with Client(address.parse(url)) as client:
            told = replace(call, new_reader=partial(Telling, completions.chosen_text))
            return await client.ask(client.prepare(told, 0), timeout=60)

    sample = asyncio.run(ask(serve(generate).url))
    assert (sample.error, sample.tokens, len(sample.token_times)) == (None, 9, 5)
    for before, time, after in zip(written[1:], sample.token_times, written[2:], strict=False):
        assert before <= time <= after
    assert sample.ended >= written[-1]


def failed_to_connect(cause):
    error = ConnectFailed("no address")
    error.__cause__ = cause
    return error


def test_what_the_machine_that_sends_runs_out_of_is_not_the_servers_failure():
    assert kind_of(failed_to_connect(OSError(errno.EMFILE, "too many open files")), status=0) == "generator"
    assert kind_of(failed_to_connect(OSError(errno.ECONNREFUSED, "refused")), status=0) == "connect"
    assert kind_of(ZeroDivisionError(), status=200) == "generator"


def test_a_failure_is_described_on_one_line():
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "a\nb")
    assert detail_of(failed_to_connect(refused)) == "Connection refused"
    untrusted = ssl.SSLCertVerificationError(1, "certificate verify failed")
    assert "certificate verify failed" in detail_of(failed_to_connect(untrusted))
    assert detail_of(ValueError("two\n lines")) == "two lines"
    assert detail_of(TimeoutError()) == "TimeoutError"


def test_a_sample_derives_its_measures_from_the_planned_time():
    sample = Sample(request=0, planned=10.0, sent=10.25, ended=11.0, tokens=5, token_times=(10.5, 10.7))
    assert (sample.latency_ms, sample.service_ms, sample.lag_ms) == (1000.0, 750.0, 250.0)
    assert (sample.ttft_ms, sample.tpot_ms, sample.gaps_ms) == (500.0, 125.0, [200.0])


def test_a_whole_answer_has_no_token_times():
    sample = Sample(request=0, planned=0.0, sent=0.0, ended=1.0, tokens=5)
    assert (sample.ttft_ms, sample.tpot_ms, sample.gaps_ms) == (None, None, [])
