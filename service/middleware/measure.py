"""Counts and times requests by model, route template and status, the abandoned ones included.

A handler that has found its model writes the name to `request.state.model`; a name that no model bears
never becomes a label.
"""

from time import perf_counter

from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import metrics
from service.problem import CLIENT_LEFT


class MeasureMiddleware:
    """Observes every HTTP request once, when it is over."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started, status, finished = perf_counter(), CLIENT_LEFT, False

        async def watch(message: Message) -> None:
            nonlocal status, finished
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            finished = message["type"] == "http.response.body" and not message.get("more_body", False)

        with metrics.REQUESTS_IN_FLIGHT.track_inprogress():
            try:
                await self.app(scope, receive, watch)
            finally:
                labels = (
                    scope["state"].get("model", "-"),
                    _template(scope),
                    status if finished else CLIENT_LEFT,
                )
                metrics.REQUEST_SECONDS.labels(*labels).observe(perf_counter() - started)


def _template(scope: Scope) -> str:
    """The matched route as it is written, such as `/predict/{model}`."""
    route = scope.get("route")
    if not isinstance(route, Route):
        return "unmatched"
    return str(scope.get("root_path", "")) + route.path_format
