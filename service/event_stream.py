"""Server-sent events as a response, whose source is closed whatever becomes of the client.

Starlette's streaming response leaves its generator to the garbage collector when the client goes while a
chunk is being sent; an abandoned generation would keep its slot until then.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class EventStream:
    """An ASGI response of JSON texts, one event each.

    `first` has been drawn from `events` already: closing a generator that never ran would do nothing.
    """

    def __init__(self, first: bytes, events: AsyncGenerator[bytes, None]) -> None:
        self._first, self._events = first, events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events):
            response = StreamingResponse(
                self._frames(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
            )
            await response(scope, receive, send)

    async def _frames(self) -> AsyncGenerator[bytes, None]:
        yield _frame(self._first)
        async for event in self._events:
            yield _frame(event)
        yield _frame(b"[DONE]")


def _frame(data: bytes) -> bytes:
    return b"data: %b\n\n" % data
