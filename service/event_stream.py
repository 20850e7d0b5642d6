"""Server-sent events as a response, whose source is closed whatever becomes of the client.

Starlette's streaming response leaves its generator to the garbage collector when the client goes while a
chunk is being sent; an abandoned generation would keep its slot until then.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from starlette.types import Receive, Scope, Send

from service.disconnect import while_connected

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx would keep events back until it has some pages of them.
    (b"x-accel-buffering", b"no"),
]
# The last event of a stream.
DONE = b"[DONE]"


class EventStream:
    """An ASGI response of JSON texts, one event each. Those of a list are one write; the last one is `DONE`.

    `first` has been drawn from `events` already: closing a generator that never ran would do nothing.
    """

    def __init__(self, first: Sequence[bytes], events: AsyncGenerator[Sequence[bytes], None]) -> None:
        self._first, self._events = first, events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it. Raises ClientDisconnect where the client hangs up before the end."""
        async with aclosing(self._events):
            await while_connected(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send(_body(self._first))
        async for events in self._events:
            await send(_body(events))


def _body(events: Sequence[bytes]) -> dict[str, object]:
    text = b"".join(b"data: %b\n\n" % event for event in events)
    return {"type": "http.response.body", "body": text, "more_body": events[-1] is not DONE}
