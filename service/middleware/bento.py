"""What BentoML says in its own way, said as this service says it.

A path or a method that nobody answers gets our error and no plain text, and a client that left within its
body gets nothing, where BentoML would count a 500. It stands around BentoML's own endpoints only; ours never
come here (`shortcut.py`).
"""

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problem import problem_response

_REFUSALS = (404, 405)
_PLAIN = b"text/plain"


class BentoMiddleware:
    """Answers where the app refuses in plain text. Raises ClientDisconnect where nobody reads any more."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        left, begun = False, False
        refused: Message | None = None

        async def noted_receive() -> Message:
            nonlocal left
            message = await receive()
            left = left or (message["type"] == "http.disconnect" and not begun)
            return message

        async def noted_send(message: Message) -> None:
            nonlocal begun, refused
            if message["type"] == "http.response.start":
                begun = True
                refused = message if _is_plain_refusal(message) else None
            if not left and refused is None:
                await send(message)

        await self.app(scope, noted_receive, noted_send)
        if left:
            raise ClientDisconnect
        if refused:
            allowed = dict(refused["headers"]).get(b"allow")
            headers = {"Allow": allowed.decode()} if allowed else None
            error = HTTPException(refused["status"], headers=headers)
            await problem_response(scope, error)(scope, receive, send)


def _is_plain_refusal(message: Message) -> bool:
    headers = dict(message.get("headers", ()))
    return message["status"] in _REFUSALS and headers.get(b"content-type", b"").startswith(_PLAIN)
