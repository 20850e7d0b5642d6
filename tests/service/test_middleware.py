"""The middleware alone, around small ASGI apps."""

import asyncio
import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import TooBusy
from service.middleware.body_limit import BodyLimitMiddleware
from service.middleware.catch_all import CatchAllMiddleware
from service.middleware.measure import MeasureMiddleware
from service.middleware.request_id import RequestIdMiddleware
from service.middleware.shortcut import LONGEST_PATH, ShortcutMiddleware


def wrapped(app: ASGIApp, limit: int = 10) -> ASGIApp:
    return RequestIdMiddleware(MeasureMiddleware(CatchAllMiddleware(BodyLimitMiddleware(app, limit))))


def ask(app: ASGIApp, method: str = "POST", path: str = "/v1/x", **request: object) -> httpx.Response:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **request)

    return asyncio.run(main())


def raising(error: Exception) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    return app


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(await Request(scope, receive).body())(scope, receive, send)


def test_what_nobody_caught_is_a_500_with_the_request_id_and_one_log_entry(caplog):
    with caplog.at_level(logging.ERROR):
        answer = ask(wrapped(raising(ZeroDivisionError("secret"))), headers={"X-Request-ID": "r1"})
    assert answer.status_code == 500
    assert "r1" in answer.json()["error"]["message"]
    assert "secret" not in answer.text
    (record,) = caplog.records
    assert "r1" in record.getMessage()


def test_being_busy_is_a_429_that_says_when_to_come_back():
    answer = ask(wrapped(raising(TooBusy("later"))))
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "1"
    assert answer.json()["error"] == {
        "message": "later",
        "type": "rate_limit_error",
        "param": None,
        "code": "too_busy",
    }


def test_a_client_that_left_is_no_error(caplog):
    with caplog.at_level(logging.ERROR), pytest.raises(AssertionError):
        ask(wrapped(raising(ClientDisconnect())))  # the transport misses an answer that nobody waits for
    assert not caplog.records


def test_who_waits_when_the_server_ends_is_told_so():
    sent: list[Message] = []

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    async def send(message: Message) -> None:
        sent.append(message)

    async def main() -> None:
        scope = {"type": "http", "method": "POST", "path": "/v1/x", "headers": []}
        task = asyncio.ensure_future(wrapped(waiting)(scope, asyncio.Event().wait, send))
        await asyncio.sleep(0)
        task.cancel()
        await task

    asyncio.run(main())
    assert sent[0]["status"] == 503
    assert b'"code":"draining"' in sent[1]["body"]


async def unknown_length(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize("content", [b"0123456789", unknown_length(b"01234", b"56789")])
def test_a_body_of_the_limit_passes(content):
    assert ask(wrapped(echo), content=content).text == "0123456789"


@pytest.mark.parametrize("content", [b"01234567890", unknown_length(b"012345", b"67890")])
def test_a_body_over_the_limit_is_a_413(content):
    answer = ask(wrapped(echo), content=content)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "gzip, identity", "identity,br"])
def test_a_compressed_body_is_a_415(encoding):
    answer = ask(wrapped(echo), content=b"x", headers={"Content-Encoding": encoding})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_encoding")
    assert ask(wrapped(echo), content=b"x", headers={"Content-Encoding": "identity"}).text == "x"


def test_an_app_that_hides_the_error_does_not_change_the_answer():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await echo(scope, receive, send)
        except Exception:
            await PlainTextResponse("mine", 500)(scope, receive, send)

    assert ask(wrapped(app), content=unknown_length(bytes(11))).status_code == 413


def test_an_abandoned_stream_is_counted():
    def count() -> float:
        labels = {"model": "-", "route": "unmatched", "status": "499"}
        return REGISTRY.get_sample_value("modelpress_request_duration_seconds_count", labels) or 0

    async def forever() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await StreamingResponse(forever())(scope, receive, send)

    async def main() -> None:
        left, sent = asyncio.Event(), 0

        async def receive() -> dict[str, object]:
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: object) -> None:
            nonlocal sent
            sent += 1
            if sent == 5:
                left.set()

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "asgi": {}}
        await asyncio.wait_for(wrapped(app)(scope, receive, send), 120)

    before = count()
    asyncio.run(main())
    assert count() == before + 1


def shortcut() -> ASGIApp:
    async def say(request: Request) -> Response:
        return PlainTextResponse(f"{request.path_params['name']} {request.url_for('say', name='y').path}")

    async def elsewhere(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("elsewhere", 418)(scope, receive, send)

    inner = [Route("/{name}/say", say, methods=["POST"], name="say")]
    target = Starlette(routes=[Mount("/v2", routes=inner), Mount("/v1", routes=inner)])
    return RequestIdMiddleware(CatchAllMiddleware(ShortcutMiddleware(elsewhere, target)))


@pytest.mark.parametrize("name", ["one", "two", "n" * LONGEST_PATH])
def test_the_shortcut_finds_the_endpoint_that_starlette_would(name):
    app = shortcut()
    for _ in range(2):
        answer = ask(app, path=f"/v2/{name}/say")
        assert (answer.status_code, answer.text) == (200, f"{name} /v2/y/say")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v2/a/say", 405), ("POST", "/v2/a", 404), ("POST", "/v2/a/say/", 307), ("POST", "/x", 418)],
)
def test_what_no_endpoint_takes_is_refused_as_starlette_does_it(method, path, status):
    app = shortcut()
    assert [ask(app, method=method, path=path).status_code for _ in range(2)] == [status] * 2
