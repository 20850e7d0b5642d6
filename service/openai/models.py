"""`/v1/models`: what is served, in OpenAI's shape."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from runtime.manifest import Manifest


async def list_models(request: Request) -> JSONResponse:
    """`GET /v1/models`."""
    listed = [_model(manifest) for manifest in request.app.state.catalog.manifests]
    return JSONResponse({"object": "list", "data": listed})


async def find_model(request: Request) -> JSONResponse:
    """`GET /v1/models/{model}`."""
    found = request.app.state.catalog.find(request.path_params["model"])
    request.state.model = found.manifest.tag
    return JSONResponse(_model(found.manifest))


def _model(manifest: Manifest) -> dict[str, Any]:
    return {
        "id": manifest.tag,
        "object": "model",
        "created": 0,
        "owned_by": "modelpress",
        "task": manifest.task,
    }
