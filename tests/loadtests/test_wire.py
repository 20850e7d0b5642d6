import asyncio

import pytest

from loadtests import address
from loadtests.client import Client
from loadtests.dialects.exchange import Call
from loadtests.monitor import Text

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def ask(server, times=1, between=0.0):
    """The samples of so many requests, one after the other."""

    async def go():
        async with Client(address.parse(server.url)) as client:
            ready = client.prepare(Call("GET", "/", None, Text), 0)
            samples = []
            for _ in range(times):
                samples.append(await client.ask(ready, timeout=5))
                await asyncio.sleep(between)
            return samples

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (OK, "ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "abcde"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end", "until the end"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, "ok"),
    ],
)
def test_every_way_to_frame_a_body_is_read(serve_raw, answer, text):
    (sample,) = ask(serve_raw(answer))
    assert (sample.error, sample.text) == (None, text)


@pytest.mark.parametrize(
    ("answer", "kind", "detail"),
    [
        (OK + b"and more", "bad_http", "more bytes came than the response said"),
        (OK + OK, "bad_http", "more bytes came"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "bad_http", "HttpParser"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nok", "truncated", "closed"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone", "http_404", "gone"),
        (None, "disconnected", "closed the connection"),
    ],
)
def test_what_is_no_whole_response_is_named(serve_raw, answer, kind, detail):
    (sample,) = ask(serve_raw(answer))
    assert sample.error == kind
    assert detail in sample.detail


def test_a_connection_is_kept_and_one_that_closes_is_not_used_again(serve_raw):
    server = serve_raw(OK)
    assert {sample.error for sample in ask(server, 5)} == {None}
    assert server.connections == 1
    closing = serve_raw(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert {sample.error for sample in ask(closing, 3)} == {None}
    assert closing.connections == 3


def test_a_connection_after_a_failure_is_a_new_one(serve_raw):
    server = serve_raw(OK, OK + b"surplus", OK)
    assert [sample.error for sample in ask(server, 3)] == [None, "bad_http", None]
    assert server.connections == 2


def test_the_request_is_plain_http(serve_raw):
    server = serve_raw(OK)
    ask(server)
    first, *headers = server.requests[0].decode().strip().split("\r\n")
    assert first == "GET / HTTP/1.1"
    assert f"Host: {server.url.removeprefix('http://')}" in headers
    assert not any(header.startswith("Content-Length") for header in headers)
