"""The mounted ASGI app: all routes that are not BentoML's own, and what is loaded while it runs.

Each dialect has a file of its own; this one only puts them side by side.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from runtime.errors import ModelpressError
from service import admin, metrics, natural, open_inference, openai
from service.catalog import Catalog
from service.jobs.jobs import Jobs
from service.jobs.routes import routes as jobs_routes
from service.journal import Journal
from service.openapi.page import page
from service.problem import problem_response


def create_app(load: Callable[[], Catalog], jobs: Jobs | None = None) -> Starlette:
    """The app; `load` is called when it starts, and `app.state.catalog` is there until it stops.

    `app.state.load` may be replaced before the start. Without `jobs`, nobody can compress. `app.state.native`
    gives the description of endpoints that are served beside the app.
    """
    routes = [
        Mount("/v2", routes=open_inference.routes),
        Mount("/v1", routes=openai.routes),
        Route("/predict/{model}", natural.predict, methods=["POST"]),
        Route("/metrics", measurements),
        Route("/v2", open_inference.server),
        # What vLLM calls it, and those who test servers like it look for.
        Route("/health", open_inference.ready),
        Mount("/admin", routes=admin.routes),
        *jobs_routes,
        Route("/", page),
        Route("/docs.json", description),
        Route("/openapi.json", description),
    ]
    handled = (ModelpressError, HTTPException, ClientDisconnect, Exception)
    app = Starlette(routes=routes, exception_handlers=dict.fromkeys(handled, on_error), lifespan=lifespan)
    app.state.load, app.state.jobs, app.state.native = load, jobs, dict
    return app


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Load the models, start their engines, and stop them at the end."""
    async with app.state.load() as catalog, Journal(catalog, catalog.settings.shared).followed() as journal:
        app.state.catalog, app.state.journal = catalog, journal
        yield


async def measurements(request: Request) -> Response:
    """`GET /metrics`."""
    return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


async def description(request: Request) -> Response:
    """`GET /openapi.json`, and `/docs.json`, as BentoML calls its own: every route, BentoML's included."""
    # It describes this module's handlers, too.
    from service.openapi.document import document

    return JSONResponse(document(request.app.routes, request.app.state.native()))


async def on_error(request: Request, error: Exception) -> Response:
    """Any error of a handler, as its dialect would say it."""
    return problem_response(request.scope, error)
