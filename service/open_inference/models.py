"""Health, and what there is to ask: server and model metadata."""

from importlib import metadata
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from runtime.manifest import Manifest, TensorSpec
from service.catalog import Catalog
from service.open_inference.generate import TEXT_INPUT, TEXT_OUTPUT
from service.tensors import DATATYPES

EXTENSIONS = ("binary_tensor_data", "model_repository")


async def server(request: Request) -> JSONResponse:
    """`GET /v2`."""
    return JSONResponse({"name": "modelpress", "version": _version(), "extensions": EXTENSIONS})


async def live(request: Request) -> JSONResponse:
    """`GET /v2/health/live`."""
    return JSONResponse({"live": True})


async def ready(request: Request) -> JSONResponse:
    """`GET /v2/health/ready`."""
    is_ready = request.app.state.catalog.ready
    return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)


async def model(request: Request) -> JSONResponse:
    """`GET /v2/models/{model}[/versions/{version}]`."""
    catalog: Catalog = request.app.state.catalog
    manifest = catalog.find(**request.path_params).manifest
    inputs, outputs = _tensors(manifest)
    return JSONResponse(
        {
            "name": manifest.tag,
            "versions": [each.version for each in catalog.entries[manifest.tag].offered],
            "platform": "onnxruntime_onnx",
            "inputs": inputs,
            "outputs": outputs,
        }
    )


async def model_ready(request: Request) -> JSONResponse:
    """`GET /v2/models/{model}[/versions/{version}]/ready`."""
    catalog = request.app.state.catalog
    manifest = catalog.find(**request.path_params).manifest
    return JSONResponse({"name": manifest.tag, "ready": catalog.ready}, 200 if catalog.ready else 503)


def _tensors(manifest: Manifest) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs and outputs. A text model's graph is the scheduler's: clients see texts."""
    if manifest.processing.kind == "generation":
        return [_bytes(TEXT_INPUT)], [_bytes(TEXT_OUTPUT)]
    signature = manifest.signature
    return [_described(spec) for spec in signature.inputs], [_described(spec) for spec in signature.outputs]


def _bytes(name: str) -> dict[str, Any]:
    return {"name": name, "datatype": "BYTES", "shape": [-1]}


def _described(spec: TensorSpec) -> dict[str, Any]:
    shape = [axis if isinstance(axis, int) else -1 for axis in spec.shape]
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": shape}


def _version() -> str:
    try:
        return metadata.version("modelpress")
    except metadata.PackageNotFoundError:  # in a Bento the packages are plain folders
        return "unpackaged"
