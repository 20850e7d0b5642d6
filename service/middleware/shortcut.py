"""The way to our own routes past BentoML's router: its routes, context and CORS are for its own endpoints.

It goes past Starlette's own error handling as well: `catch_all.py` answers for whatever is raised.
"""

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

OURS = ("/v1/", "/v2", "/predict/", "/metrics", "/admin/", "/jobs", "/docs.json", "/openapi.json")


class ShortcutMiddleware:
    """Sends a request for one of `OURS` straight to `target`'s router."""

    def __init__(self, app: ASGIApp, target: Starlette) -> None:
        self.app = app
        self.target = target

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(OURS):
            return await self.app(scope, receive, send)
        scope["app"] = self.target
        await self.target.router(scope, receive, send)
