"""`/v1/models`: what is served, in OpenAI's shape; adapters too, each with its parent, as vLLM lists them.

An alias is listed by its own name, because clients let people choose from here; its parent is its first
target.
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from runtime.manifest import Manifest
from service.adapters import choose, is_model, owners
from service.engine import Engine
from service.served import Served


async def list_models(request: Request) -> JSONResponse:
    """`GET /v1/models`."""
    catalog = request.app.state.catalog
    models = [entry.current for entry in catalog.entries.values()]
    listed = [_model(model.manifest, name) for model in models for name in (None, *_adapters(model))]
    aliases = [(catalog.first_of(alias), name) for name, alias in catalog.aliases.items()]
    listed += [_model(model.manifest, name) for model, name in aliases if model]
    return JSONResponse({"object": "list", "data": listed})


async def find_model(request: Request) -> JSONResponse:
    """`GET /v1/models/{model}`."""
    catalog, name = request.app.state.catalog, request.path_params["model"]
    found: Served
    if (alias := catalog.aliases.get(name)) and (first := catalog.first_of(alias)):
        found, adapter = first, name
    elif is_model(catalog, name) or not owners(catalog, name):
        found, adapter = catalog.find(name), None
    else:
        found, adapter = choose(catalog, name)
    return JSONResponse(_model(found.manifest, adapter))


def _adapters(model: Served) -> tuple[str, ...]:
    return model.model.adapters.names if isinstance(model, Engine) else ()


def _model(manifest: Manifest, name: str | None) -> dict[str, Any]:
    """`name`: of an adapter or an alias; None for the model itself."""
    return {
        "id": name or manifest.tag,
        "object": "model",
        "created": 0,
        "owned_by": "modelpress",
        "task": manifest.task,
        "parent": manifest.tag if name else None,
    }
