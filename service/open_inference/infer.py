"""`infer`: tensors in, tensors out; a prompt in and its continuation out, where the model generates text.

A feed-forward model whose bundle tokenizes, or reads images, takes them as they are too: one BYTES tensor;
questions and their contexts are two, `question` and `context`.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from runtime.errors import InputError
from runtime.manifest import CaptionedProcessing, ImageProcessing, Manifest, TextProcessing, WordProcessing
from runtime.processing import Array
from runtime.spans import FIELDS
from runtime.suggest import nearest
from service.batcher import Batcher
from service.body import content, parse
from service.catalog import Catalog
from service.engine import Engine
from service.errors import InvalidRequest
from service.hang_up import unless_left
from service.json_response import WrittenJson, dumps
from service.middleware.headers import declared, header
from service.open_inference.generate import generate
from service.tensors import InputTensor, Parameters, decode, encode, texts

# Triton's other extensions, by the parameter of an output that asks for them.
UNSUPPORTED = ("shared_memory_region", "classification")
HEADER_LENGTH = "Inference-Header-Content-Length"
# What can be made of BYTES: texts, or images.
_READABLE = (CaptionedProcessing, ImageProcessing, TextProcessing, WordProcessing)
_HEADER_LENGTH = HEADER_LENGTH.lower().encode()


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
    outputs: tuple[RequestedOutput, ...] = Field(default=(), strict=False)
    parameters: Parameters = Parameters()


async def infer(request: Request) -> ASGIApp:
    """`POST /v2/models/{model}[/versions/{version}]/infer`."""
    catalog = request.app.state.catalog
    model = catalog.find(**request.path_params)
    model.expect(declared(request.scope) or 0)
    body = await content(request)
    length, size = header(request.scope, _HEADER_LENGTH), len(body)
    place = model if isinstance(model, Batcher) else catalog.pool
    asked, inputs = await place.parse(_parsed, size, body, length)
    if isinstance(model, Engine):
        outputs = await generate(request, model, inputs, asked.parameters.model_extra or {})
    else:
        inputs = await _tensors(catalog, model, inputs)
        outputs = await unless_left(request.receive, model, model.run(inputs, size))
    size = sum(tensor.nbytes for tensor in outputs.values())
    response: ASGIApp = await catalog.pool.parse(_answer, size, model.manifest, asked, outputs)
    return response


async def _tensors(catalog: Catalog, model: Batcher, inputs: dict[str, Array]) -> dict[str, Array]:
    """The inputs; or what the bundle's processing makes of texts, questions or images."""
    if not any(tensor.dtype.hasobject for tensor in inputs.values()):
        return inputs
    manifest, processing = model.manifest, model.manifest.processing
    if isinstance(processing, TextProcessing) and processing.pair:
        items: list[Any] = _pairs(manifest, inputs)
    elif len(inputs) != 1 or not isinstance(processing, _READABLE):
        raise InputError(f"{manifest.tag} takes BYTES as its only input, and only texts or images")
    else:
        (given,) = inputs.values()
        reads_text = isinstance(processing, TextProcessing | WordProcessing)
        items = texts(given) if reads_text else list(given.ravel())
    size = sum(len(value) for tensor in inputs.values() for value in tensor.ravel())
    return await catalog.pool.parse(model.model.encode, size, items)


def _pairs(manifest: Manifest, inputs: dict[str, Array]) -> list[dict[str, str]]:
    """Questions with their contexts. Raises InputError for other tensors, or unequal numbers."""
    alike = all(tensor.dtype.hasobject for tensor in inputs.values()) and inputs.keys() == set(FIELDS)
    if not alike or len({tensor.size for tensor in inputs.values()}) > 1:
        raise InputError(f"{manifest.tag} takes two BYTES tensors of one size, 'question' and 'context'")
    columns = [texts(inputs[name]) for name in FIELDS]
    return [dict(zip(FIELDS, pair, strict=True)) for pair in zip(*columns, strict=True)]


def _parsed(body: bytes, header_length: str | None) -> tuple[InferRequest, dict[str, Array]]:
    described, binary = _split(body, header_length)
    asked = parse(described, InferRequest)
    return asked, _inputs(asked, memoryview(binary))


def _answer(manifest: Manifest, asked: InferRequest, outputs: dict[str, Array]) -> ASGIApp:
    tensors = [encode(name, outputs[name], binary=as_binary) for name, as_binary in _wanted(asked, outputs)]
    answer = {
        "model_name": manifest.tag,
        "model_version": manifest.version,
        **({"id": asked.id} if asked.id is not None else {}),
        "outputs": [described for described, _ in tensors],
    }
    return _response(dumps(answer), b"".join(raw for _, raw in tensors))


def _split(body: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    """The JSON, and the tensors' bytes that follow it."""
    if header_length is None:
        return body, b""
    # A number without bounds is one that `int` refuses.
    length = int(header_length) if header_length.isdecimal() and len(header_length) < 20 else -1
    if not 0 <= length <= len(body):
        raise InvalidRequest(
            f"{HEADER_LENGTH}: {header_length[:20]} is no length within the body", HEADER_LENGTH
        )
    return body[:length], body[length:]


def _inputs(asked: InferRequest, binary: memoryview) -> dict[str, Array]:
    arrays = {}
    for tensor in asked.inputs:
        if tensor.name in arrays:
            raise InvalidRequest(f"input '{tensor.name}' is given twice", tensor.name)
        arrays[tensor.name] = decode(tensor, binary)
        # An array takes a tenth of Python's numbers, which would wait in the queue beside it.
        tensor.data = None
        binary = binary[tensor.parameters.binary_data_size or 0 :]
    if binary:
        raise InvalidRequest(f"the body has {len(binary)} bytes after its last tensor; send none", "inputs")
    return arrays


def _wanted(asked: InferRequest, outputs: dict[str, Array]) -> list[tuple[str, bool]]:
    """Names of the outputs to send, in order, and whether as binary."""
    default = asked.parameters.binary_data_output
    for output in asked.outputs:
        if output.name not in outputs:
            raise InvalidRequest(f"no output '{output.name}': {nearest(output.name, outputs)}", output.name)
        if sent := [name for name in UNSUPPORTED if name in (output.parameters.model_extra or ())]:
            raise InvalidRequest(
                f"output '{output.name}': '{sent[0]}' is not supported; leave it out", output.name
            )
    if not asked.outputs:
        return [(name, default) for name in outputs]
    return [(output.name, _or(output.parameters.binary_data, default)) for output in asked.outputs]


def _or(given: bool | None, default: bool) -> bool:
    return default if given is None else given


def _response(header: bytes, binary: bytes) -> ASGIApp:
    if not binary:
        return WrittenJson(header)
    headers = {HEADER_LENGTH: str(len(header))}
    return Response(header + binary, media_type="application/octet-stream", headers=headers)
