"""The model repository extension: what there is, and loading and unloading it while the server runs.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md. The
repository is BentoML's model store; a client cannot send a model's files.
"""

import asyncio
from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from runtime.errors import BundleError, BundleNotFound
from service import store
from service.body import parse
from service.errors import InvalidRequest, UnknownModel


class IndexRequest(BaseModel):
    """`ready`: only what can be asked now."""

    model_config = ConfigDict(strict=True)

    ready: bool = False


class ChangeRequest(BaseModel):
    """Parameters of a load or unload; unknown ones are ignored, as the protocol wants it."""

    model_config = ConfigDict(strict=True)

    parameters: dict[str, Any] = {}


async def index(request: Request) -> JSONResponse:
    """`POST /v2/repository/index`."""
    catalog, body = request.app.state.catalog, await request.body()
    asked = parse(body, IndexRequest) if body else IndexRequest()
    offered = [manifest for entry in catalog.entries.values() for manifest in entry.offered]
    listed = [_described(each.tag, each.version, "READY", "") for each in offered]
    if not asked.ready:
        listed += [
            _described(tag, each.version, "UNAVAILABLE", "unloaded") for tag, each in catalog.unloaded.items()
        ]
        known = {each["name"] for each in listed}
        tags = [tag.partition(":") for tag in await asyncio.to_thread(store.newest_tags)]
        listed += [_described(tag, v, "UNAVAILABLE", "unloaded") for tag, _, v in tags if tag not in known]
    return JSONResponse(listed)


async def load(request: Request) -> Response:
    """`POST /v2/repository/models/{name}/load`: from the store, or again from where it was loaded."""
    name, body = request.path_params["name"], await request.body()
    parameters = parse(body, ChangeRequest).parameters if body else {}
    if sent := [key for key in parameters if key == "config" or key.startswith("file:")]:
        raise InvalidRequest(f"parameter '{sent[0]}': models come from the server's own store", sent[0])
    try:
        await request.app.state.journal.load(name)
    except BundleNotFound as error:
        raise UnknownModel(str(error)) from None
    except BundleError as error:
        raise InvalidRequest(str(error), "name") from None
    return JSONResponse({})


async def unload(request: Request) -> Response:
    """`POST /v2/repository/models/{name}/unload`."""
    body = await request.body()
    if body:
        parse(body, ChangeRequest)
    await request.app.state.journal.unload(request.path_params["name"])
    return JSONResponse({})


def _described(name: str, version: str, state: str, reason: str) -> dict[str, str]:
    return {"name": name, "version": version, "state": state, "reason": reason}
