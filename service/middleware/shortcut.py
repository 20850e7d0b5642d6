"""The way to our own routes past BentoML's router: its routes, context and CORS are for its own endpoints."""

from starlette.types import ASGIApp, Receive, Scope, Send

OURS = ("/v1/", "/v2", "/predict/", "/metrics", "/admin/", "/jobs", "/docs.json", "/openapi.json")


class ShortcutMiddleware:
    """Sends a request for one of `OURS` straight to `target`."""

    def __init__(self, app: ASGIApp, target: ASGIApp) -> None:
        self.app = app
        self.target = target

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ours = scope["type"] == "http" and scope["path"].startswith(OURS)
        await (self.target if ours else self.app)(scope, receive, send)
