"""`/v1/models`: what is served, in OpenAI's shape; adapters too, each with its parent, as vLLM lists them."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from runtime.manifest import Manifest
from service.adapters import choose, is_model, owners
from service.engine import Engine
from service.served import Served


async def list_models(request: Request) -> JSONResponse:
    """`GET /v1/models`."""
    models = [entry.current for entry in request.app.state.catalog.entries.values()]
    listed = [_model(model.manifest, name) for model in models for name in (None, *_adapters(model))]
    return JSONResponse({"object": "list", "data": listed})


async def find_model(request: Request) -> JSONResponse:
    """`GET /v1/models/{model}`."""
    catalog, name = request.app.state.catalog, request.path_params["model"]
    found: Served
    if is_model(catalog, name) or not owners(catalog, name):
        found, adapter = catalog.find(name), None
    else:
        found, adapter = choose(catalog, name)
    return JSONResponse(_model(found.manifest, adapter))


def _adapters(model: Served) -> tuple[str, ...]:
    return model.model.adapters.names if isinstance(model, Engine) else ()


def _model(manifest: Manifest, adapter: str | None) -> dict[str, Any]:
    return {
        "id": adapter or manifest.tag,
        "object": "model",
        "created": 0,
        "owned_by": "modelpress",
        "task": manifest.task,
        "parent": manifest.tag if adapter else None,
    }
