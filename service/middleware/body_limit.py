"""Refuses a body that is larger than the server will hold in memory: 413, before or while it is read.

A compressed one is refused, too, with 415: it would be read as the JSON that it is not. Starlette's own limit
answers in plain text; this one answers in the dialect's error shape.
"""

from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BodyTooLarge, EncodedBody
from service.middleware.headers import declared, header
from service.problem import problem_response

COMPRESSIONS = frozenset({"gzip", "x-gzip", "deflate", "compress", "br", "zstd"})


class BodyLimitMiddleware:
    """Bounds what one request may send, by the declared length and by the bytes that come."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        encoding = header(scope, b"content-encoding")
        if encoding and not COMPRESSIONS.isdisjoint(encoding.lower().replace(",", " ").split()):
            encoded = EncodedBody(f"the body comes as '{encoding}'; send it uncompressed")
            return await problem_response(scope, encoded)(scope, receive, send)
        error = BodyTooLarge(f"the request's body is over {self.limit:,} bytes; send it in parts")
        length = declared(scope)
        if length is not None:
            # The server reads no more than was declared, so there is nothing to count.
            refused = problem_response(scope, error) if length > self.limit else self.app
            return await refused(scope, receive, send)
        size = 0

        async def bounded_receive() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.limit:
                raise error
            return message

        async def bounded_send(message: Message) -> None:
            # Whatever the app makes of the error, the answer below is the one that is sent.
            if size <= self.limit:
                await send(message)

        with suppress(BodyTooLarge):
            await self.app(scope, bounded_receive, bounded_send)
        if size > self.limit:
            await problem_response(scope, error)(scope, receive, send)
