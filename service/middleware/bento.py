"""What BentoML refuses in plain text, said as this service says it: a path or a method that nobody answers.

It stands around BentoML's own endpoints only; ours never come here (`shortcut.py`).
"""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problem import problem_response

_STATUSES = (404, 405)
_PLAIN = b"text/plain"


class RefusalMiddleware:
    """Answers in the error's usual shape where the app says 404 or 405 in plain text."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        refused: Message | None = None

        async def send_unless_refused(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and _is_plain_refusal(message):
                refused = message
            if refused is None:
                await send(message)

        await self.app(scope, receive, send_unless_refused)
        if refused:
            allowed = dict(refused["headers"]).get(b"allow")
            headers = {"Allow": allowed.decode()} if allowed else None
            error = HTTPException(refused["status"], headers=headers)
            await problem_response(scope, error)(scope, receive, send)


def _is_plain_refusal(message: Message) -> bool:
    headers = dict(message.get("headers", ()))
    return message["status"] in _STATUSES and headers.get(b"content-type", b"").startswith(_PLAIN)
