"""The way to our own endpoints past BentoML's router and Starlette's.

BentoML's routes, context and CORS are for its own endpoints. Starlette tries each route for each request and
wraps an endpoint in error handling of its own; here an endpoint is found once for a path and called as it is:
`catch_all.py` answers for whatever is raised. What no endpoint answers is Starlette's to refuse.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from inspect import iscoroutinefunction

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

OURS = ("/v1/", "/v2", "/predict/", "/metrics", "/admin/", "/jobs", "/docs.json", "/openapi.json")
# Paths that are remembered: a few for each model. A longer one is a stranger's, and is looked up each time.
REMEMBERED, LONGEST_PATH = 1024, 200

Endpoint = Callable[[Request], Awaitable[ASGIApp]]


class ShortcutMiddleware:
    """Sends a request for one of `OURS` straight to `target`'s endpoint."""

    def __init__(self, app: ASGIApp, target: Starlette) -> None:
        self.app = app
        self.target = target
        self._find = lru_cache(REMEMBERED)(self._look_up)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(OURS):
            return await self.app(scope, receive, send)
        scope["app"] = self.target
        find = self._find if len(scope["path"]) <= LONGEST_PATH else self._look_up
        try:
            endpoint, found = find(scope["method"], scope["path"], scope.get("root_path", ""))
        except LookupError:
            return await self.target.router(scope, receive, send)
        scope.update(found)
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    def _look_up(self, method: str, path: str, root_path: str) -> tuple[Endpoint, Scope]:
        """What answers, and what its route adds to the scope. Raises LookupError, which is not remembered."""
        scope = {"type": "http", "method": method, "path": path, "root_path": root_path}
        return _search(self.target.routes, scope)


def _search(routes: Sequence[BaseRoute], scope: Scope) -> tuple[Endpoint, Scope]:
    """As Starlette's router: the first route that takes the path and the method."""
    for route in routes:
        match, found = route.matches(scope)
        if match is not Match.FULL:
            continue
        if isinstance(route, Mount):
            endpoint, further = _search(route.routes, {**scope, **found})
            return endpoint, {**found, **further}
        if isinstance(route, Route) and iscoroutinefunction(route.endpoint):
            return route.endpoint, {**found, "route": route}
        break
    raise LookupError
