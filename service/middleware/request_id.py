"""Opens a request's context, and writes on every answer what the client needs to talk about it.

The one layer that sees every message of the answer: it notes in the context how far that is.

The request id is the client's `X-Request-ID` if it is a sane one, else a new one. `X-Model-Variant` says
which model and version answered, which an alias, a canary or a fallback may have chosen.
"""

import random
import re
from functools import lru_cache

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import context
from service.context import RequestContext
from service.middleware.headers import header

# An id is no secret; asking the system for one would let go of the interpreter for each request.
_random = random.Random()
# Printable and short: the id is written to logs and to a response header.
_SANE = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestIdMiddleware:
    """Puts the id into the request's context and state and into the response's headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = header(scope, b"x-request-id")
        request_id = given if given and _SANE.fullmatch(given) else f"{_random.getrandbits(128):032x}"
        request = RequestContext(request_id)
        context.enter(request)
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_headers(request)]
                request.status = message["status"]
                await send(message)
            else:
                await send(message)
                request.finished = not message.get("more_body", False)

        await self.app(scope, receive, send_with_id)


def _headers(request: RequestContext) -> list[tuple[bytes, bytes]]:
    headers = [(b"x-request-id", request.id.encode())]
    if manifest := request.manifest:
        headers.append((b"x-model-variant", _variant(manifest.tag, manifest.version)))
    return headers


@lru_cache(maxsize=256)
def _variant(tag: str, version: str) -> bytes:
    return f"{tag}:{version}".encode()
