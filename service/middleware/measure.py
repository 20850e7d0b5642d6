"""Counts and times requests by model, route template and status, the abandoned ones included, and logs them.

The catalog writes the model that a handler found to the request's context; a name that no model bears never
becomes a label.
"""

from functools import lru_cache
from time import perf_counter
from typing import Any

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from service import access_log, context, metrics
from service.context import RequestContext
from service.problem import CLIENT_LEFT


class MeasureMiddleware:
    """Observes every HTTP request once, when it is over."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request = context.current() or RequestContext("-")
        started = perf_counter()
        metrics.REQUESTS_IN_FLIGHT.inc()
        try:
            await self.app(scope, receive, send)
        finally:
            metrics.REQUESTS_IN_FLIGHT.dec()
            _note(scope, request, perf_counter() - started)


def _note(scope: Scope, request: RequestContext, seconds: float) -> None:
    status = request.status if request.status and request.finished else CLIENT_LEFT
    model = request.manifest.tag if request.manifest else "-"
    _series(model, template(scope), status).observe(seconds)
    access_log.write(scope, request, status, seconds)


# Bounded like the labels are; looking a series up takes longer than adding to it.
@lru_cache(maxsize=4096)
def _series(model: str, route: str, status: int) -> Any:
    return metrics.REQUEST_SECONDS.labels(model, route, status)


def template(scope: Scope) -> str:
    """The matched route as it is written, such as `/predict/{model}`."""
    route = scope.get("route")
    if not isinstance(route, Route):
        return "unmatched"
    return str(scope.get("root_path", "")) + route.path_format
