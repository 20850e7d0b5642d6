"""Server-sent events as ASGI messages, and what becomes of their source."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from service.event_stream import DONE, EventStream

closed: list[bool] = []


async def events() -> AsyncGenerator[Sequence[bytes], None]:
    closed.clear()
    try:
        yield [b"0"]
        yield [b"1"]
        yield [b"2", DONE]
    finally:
        closed.append(True)


async def never() -> dict[str, str]:
    await asyncio.Event().wait()
    raise AssertionError


async def stream(source: AsyncGenerator[Sequence[bytes], None], receive: Any, send: Any) -> None:
    await EventStream(await anext(source), source)({}, receive, send)


def test_each_text_is_an_event_and_what_ends_the_stream_leaves_with_its_last_one():
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(stream(events(), never, send))
    assert sent[0]["status"] == 200
    assert (b"content-type", b"text/event-stream; charset=utf-8") in sent[0]["headers"]
    assert (b"x-accel-buffering", b"no") in sent[0]["headers"]
    body = b"".join(message["body"] for message in sent[1:])
    assert body == b"data: 0\n\ndata: 1\n\ndata: 2\n\ndata: [DONE]\n\n"
    assert [message.get("more_body", False) for message in sent[1:]] == [True, True, False]
    assert closed == [True]


def test_a_client_that_goes_while_an_event_is_sent_closes_the_source():
    async def main() -> None:
        full = asyncio.Event()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                full.set()
                await never()

        async def gone() -> dict[str, str]:
            await full.wait()
            return {"type": "http.disconnect"}

        with pytest.raises(ClientDisconnect):
            await stream(events(), gone, send)
        assert closed == [True]

    asyncio.run(main())


def test_an_error_on_the_way_closes_the_source():
    async def send(message: Any) -> None:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        asyncio.run(stream(events(), never, send))
    assert closed == [True]
