"""JSON out, by orjson: numpy arrays as they are, and every NaN or infinity as null, which is all JSON has."""

from typing import Any

import orjson
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send


def dumps(value: Any) -> bytes:
    """`value` as JSON; C-contiguous numpy arrays of numbers may stand anywhere in it."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


class JsonResponse(JSONResponse):
    """A response whose content is `dumps(content)`."""

    def render(self, content: Any) -> bytes:
        return dumps(content)


class WrittenJson:
    """An ASGI response of status 200 whose JSON is written already, with no other headers than it needs."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"%d" % len(self._body)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self._body})
