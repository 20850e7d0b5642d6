"""Server-sent events as a response, whose source is closed whatever becomes of the client.

Starlette's streaming response leaves its generator to the garbage collector when the client goes while a
chunk is being sent; an abandoned generation would keep its slot until then.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.types import Receive, Scope, Send

from service.disconnect import while_connected

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx would keep events back until it has some pages of them.
    (b"x-accel-buffering", b"no"),
]


class EventStream:
    """An ASGI response of JSON texts, one event each.

    `first` has been drawn from `events` already: closing a generator that never ran would do nothing.
    """

    def __init__(self, first: bytes, events: AsyncGenerator[bytes, None]) -> None:
        self._first, self._events = first, events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it. Raises ClientDisconnect where the client hangs up before the end."""
        async with aclosing(self._events):
            await while_connected(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send(_event(self._first))
        async for event in self._events:
            await send(_event(event))
        await send({"type": "http.response.body", "body": _frame(b"[DONE]")})


def _event(data: bytes) -> dict[str, object]:
    return {"type": "http.response.body", "body": _frame(data), "more_body": True}


def _frame(data: bytes) -> bytes:
    return b"data: %b\n\n" % data
