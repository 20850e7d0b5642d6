"""Counts every request in and out, and refuses new ones with 503 while the server is being stopped."""

from starlette.types import ASGIApp, Receive, Scope, Send

from service import metrics
from service.errors import Draining
from service.middleware.paths import PROBES
from service.problem import problem_response
from service.traffic import Traffic


class TrafficMiddleware:
    """Keeps `traffic` up to date. A probe is no traffic: it must not keep a stopping server alive."""

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self.app = app
        self.traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            return await self.app(scope, receive, send)
        try:
            number = self.traffic.enter()
        except Draining as error:
            metrics.REJECTIONS.labels("draining").inc()
            response = problem_response(scope, error)
            # The connection would otherwise carry the client's next request to this same server.
            response.headers["Connection"] = "close"
            return await response(scope, receive, send)
        try:
            await self.app(scope, receive, send)
        finally:
            self.traffic.leave(number)
