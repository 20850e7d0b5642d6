"""`/admin`: what is served, and changing it while it is. Small on purpose; a key needs the scope `admin`.

Names are those of the model store: no path from a request is ever opened. Every worker makes the same change.
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from runtime.errors import BundleError
from service.alias import Alias
from service.body import Body, parse
from service.catalog import Catalog, Entry
from service.errors import InvalidRequest
from service.served import Served


class LoadBody(Body):
    """`version`: of the bundle in the store (default: the newest). `take_over` false: only beside."""

    version: str | None = None
    take_over: bool = True


async def models(request: Request) -> JSONResponse:
    """`GET /admin/models`: every version that is loaded, and how it fares."""
    catalog: Catalog = request.app.state.catalog
    return JSONResponse(
        {
            "models": {tag: _described(entry) for tag, entry in catalog.entries.items()},
            "aliases": {name: alias.model_dump() for name, alias in catalog.aliases.items()},
        }
    )


async def load(request: Request) -> JSONResponse:
    """`POST /admin/models/{name}/load`."""
    name, raw = request.path_params["name"], await request.body()
    asked = parse(raw, LoadBody) if raw else LoadBody()
    reference = f"{name}:{asked.version}" if asked.version else name
    try:
        loaded = await request.app.state.journal.load(reference, take_over=asked.take_over)
    except BundleError as error:
        raise InvalidRequest(str(error), "name") from None
    tag, _, version = loaded.partition(":")
    return JSONResponse({"model": tag, "version": version})


async def unload(request: Request) -> JSONResponse:
    """`POST /admin/models/{name}/unload`."""
    name = request.path_params["name"]
    await request.app.state.journal.unload(name)
    return JSONResponse({"model": name})


async def put_alias(request: Request) -> JSONResponse:
    """`PUT /admin/aliases/{name}`: what a name stands for from now on."""
    alias = parse(await request.body(), Alias)
    await request.app.state.journal.set_alias(request.path_params["name"], alias)
    return JSONResponse(alias.model_dump())


async def delete_alias(request: Request) -> JSONResponse:
    """`DELETE /admin/aliases/{name}`."""
    name = request.path_params["name"]
    await request.app.state.journal.drop_alias(name)
    return JSONResponse({"alias": name})


def _described(entry: Entry) -> list[dict[str, Any]]:
    return [{"current": model is entry.current, **_state(model)} for model in entry.models]


def _state(model: Served) -> dict[str, Any]:
    return {
        "version": model.manifest.version,
        "broken": model.health.broken,
        "answers": model.health.successes,
        "pressure": round(model.pressure, 3),
        "backlog_seconds": round(model.backlog, 3),
    }


routes = [
    Route("/models", models),
    Route("/models/{name}/load", load, methods=["POST"]),
    Route("/models/{name}/unload", unload, methods=["POST"]),
    Route("/aliases/{name}", put_alias, methods=["PUT"]),
    Route("/aliases/{name}", delete_alias, methods=["DELETE"]),
]
