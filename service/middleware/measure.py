"""Counts and times requests by model, route template and status, the abandoned ones included, and logs them.

The catalog writes the model that a handler found to the request's context; a name that no model bears never
becomes a label.
"""

from collections.abc import Sequence
from functools import lru_cache
from time import perf_counter
from typing import Any

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from service import access_log, context, metrics
from service.access_log import Over
from service.context import RequestContext
from service.later import Later
from service.problem import CLIENT_LEFT


class MeasureMiddleware:
    """Observes every HTTP request once, when it is over."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._over = Later(_note)

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
            status = request.status if request.status and request.finished else CLIENT_LEFT
            self._over.add(Over(scope, request, status, perf_counter() - started))


def _note(over: Sequence[Over]) -> None:
    for each in over:
        model = each.request.manifest.tag if each.request.manifest else "-"
        _series(model, template(each.scope), each.status).observe(each.seconds)
    access_log.write(over)


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
