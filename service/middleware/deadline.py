"""How long the client will wait: `X-Request-Timeout`, in seconds, or the server's default.

What cannot be answered, or for a text begun, in this time is refused at once or dropped from the queue; see
`batcher.py` and `engine.py`.
"""

import asyncio
from math import isfinite

from starlette.types import ASGIApp, Receive, Scope, Send

from service import context
from service.errors import InvalidRequest
from service.middleware.headers import header
from service.problem import problem_response

NAME = "X-Request-Timeout"


class DeadlineMiddleware:
    """Writes the deadline into the request's context. Nobody may wait longer than `default` seconds."""

    def __init__(self, app: ASGIApp, default: float) -> None:
        self.app = app
        self.default = default

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = context.current()
        if scope["type"] != "http" or request is None:
            return await self.app(scope, receive, send)
        try:
            timeout = min(self.default, _given(scope, self.default))
        except InvalidRequest as error:
            return await problem_response(scope, error)(scope, receive, send)
        request.deadline = asyncio.get_running_loop().time() + timeout
        await self.app(scope, receive, send)


def _given(scope: Scope, default: float) -> float:
    text = header(scope, b"x-request-timeout")
    if text is None:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not (isfinite(seconds) and seconds > 0):
        raise InvalidRequest(f"{NAME}: send the seconds that you will wait, such as 2.5", NAME)
    return seconds
