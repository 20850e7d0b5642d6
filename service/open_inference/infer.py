"""The Open Inference Protocol, version 2: health, metadata and `infer`, in JSON or with binary tensors.

Spec: https://github.com/kserve/open-inference-protocol, and Triton's binary tensor extension. Unknown keys
are ignored, as the protocol wants it.
"""

import json
from importlib import metadata
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from runtime.manifest import Manifest, TensorSpec
from runtime.processing import Array
from runtime.suggest import nearest
from service.batcher import Batcher
from service.body import parse
from service.errors import InvalidRequest
from service.tensors import DATATYPES, InputTensor, Parameters, decode, encode

HEADER_LENGTH = "Inference-Header-Content-Length"


class RequestedOutput(BaseModel):
    """An output that the client asks for, by name."""

    model_config = ConfigDict(strict=True)

    name: str
    parameters: Parameters = Parameters()


class InferRequest(BaseModel):
    """The JSON of `infer`."""

    model_config = ConfigDict(strict=True)

    id: str | None = None
    inputs: list[InputTensor] = Field(min_length=1)
    outputs: list[RequestedOutput] = []
    parameters: Parameters = Parameters()


async def infer(request: Request) -> Response:
    """`POST /v2/models/{model}[/versions/{version}]/infer`."""
    catalog, body = request.app.state.catalog, await request.body()
    model: Batcher = catalog.tensor(**request.path_params)
    length, size = request.headers.get(HEADER_LENGTH), len(body)
    asked, inputs = await catalog.pool.parse(_parsed, size, body, length)
    outputs = await model.run(inputs)
    size = sum(tensor.nbytes for tensor in outputs.values())
    response: Response = await catalog.pool.parse(_answer, size, model.manifest, asked, outputs)
    return response


async def server(request: Request) -> JSONResponse:
    """`GET /v2`."""
    extensions = ["binary_tensor_data"]
    return JSONResponse({"name": "modelpress", "version": _version(), "extensions": extensions})


async def live(request: Request) -> JSONResponse:
    """`GET /v2/health/live`."""
    return JSONResponse({"live": True})


async def ready(request: Request) -> JSONResponse:
    """`GET /v2/health/ready`."""
    is_ready = request.app.state.catalog.ready
    return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)


async def model(request: Request) -> JSONResponse:
    """`GET /v2/models/{model}[/versions/{version}]`."""
    manifest = request.app.state.catalog.find(**request.path_params).manifest
    request.state.model = manifest.tag
    return JSONResponse(
        {
            "name": manifest.tag,
            "versions": [manifest.version],
            "platform": "onnxruntime_onnx",
            "inputs": [_metadata(spec) for spec in manifest.signature.inputs],
            "outputs": [_metadata(spec) for spec in manifest.signature.outputs],
        }
    )


async def model_ready(request: Request) -> JSONResponse:
    """`GET /v2/models/{model}[/versions/{version}]/ready`."""
    catalog = request.app.state.catalog
    manifest = catalog.find(**request.path_params).manifest
    request.state.model = manifest.tag
    return JSONResponse({"name": manifest.tag, "ready": catalog.ready}, 200 if catalog.ready else 503)


def _parsed(body: bytes, header_length: str | None) -> tuple[InferRequest, dict[str, Array]]:
    header, binary = _split(body, header_length)
    asked = parse(header, InferRequest)
    return asked, _inputs(asked, memoryview(binary))


def _answer(manifest: Manifest, asked: InferRequest, outputs: dict[str, Array]) -> Response:
    tensors = [encode(name, outputs[name], binary=as_binary) for name, as_binary in _wanted(asked, outputs)]
    answer = {
        "model_name": manifest.tag,
        "model_version": manifest.version,
        **({"id": asked.id} if asked.id is not None else {}),
        "outputs": [described for described, _ in tensors],
    }
    return _response(json.dumps(answer).encode(), b"".join(raw for _, raw in tensors))


def _split(body: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    """The JSON, and the tensors' bytes that follow it."""
    if header_length is None:
        return body, b""
    if not header_length.isdecimal() or int(header_length) > len(body):
        raise InvalidRequest(f"{HEADER_LENGTH}: {header_length} is no length within the body", HEADER_LENGTH)
    return body[: int(header_length)], body[int(header_length) :]


def _inputs(asked: InferRequest, binary: memoryview) -> dict[str, Array]:
    arrays = {}
    for tensor in asked.inputs:
        if tensor.name in arrays:
            raise InvalidRequest(f"input '{tensor.name}' is given twice", tensor.name)
        arrays[tensor.name] = decode(tensor, binary)
        binary = binary[tensor.parameters.binary_data_size or 0 :]
    return arrays


def _wanted(asked: InferRequest, outputs: dict[str, Array]) -> list[tuple[str, bool]]:
    """Names of the outputs to send, in order, and whether as binary."""
    default = asked.parameters.binary_data_output
    for output in asked.outputs:
        if output.name not in outputs:
            raise InvalidRequest(f"no output '{output.name}': {nearest(output.name, outputs)}", output.name)
    if not asked.outputs:
        return [(name, default) for name in outputs]
    return [(output.name, _or(output.parameters.binary_data, default)) for output in asked.outputs]


def _or(given: bool | None, default: bool) -> bool:
    return default if given is None else given


def _response(header: bytes, binary: bytes) -> Response:
    if not binary:
        return Response(header, media_type="application/json")
    headers = {HEADER_LENGTH: str(len(header))}
    return Response(header + binary, media_type="application/octet-stream", headers=headers)


def _metadata(spec: TensorSpec) -> dict[str, Any]:
    shape = [axis if isinstance(axis, int) else -1 for axis in spec.shape]
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": shape}


def _version() -> str:
    try:
        return metadata.version("modelpress")
    except metadata.PackageNotFoundError:  # in a Bento the packages are plain folders
        return "unpackaged"


routes = [
    Route("/health/live", live),
    Route("/health/ready", ready),
    Route("/models/{name}", model),
    Route("/models/{name}/ready", model_ready),
    Route("/models/{name}/infer", infer, methods=["POST"]),
    Route("/models/{name}/versions/{version}", model),
    Route("/models/{name}/versions/{version}/ready", model_ready),
    Route("/models/{name}/versions/{version}/infer", infer, methods=["POST"]),
]
