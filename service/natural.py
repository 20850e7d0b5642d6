"""What a person has, and an answer in the task's words: a sentence, an image, some numbers.

`POST /predict/{model}` takes JSON with one of `text`, `image` (base64), `pixels`, `tensor`, or an image
file as the body. It never fetches anything that a request points at.
"""

import base64
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse

from runtime.errors import InputError
from runtime.manifest import ImageProcessing, TextProcessing
from runtime.tensor import TensorModel
from service.batcher import Batcher
from service.body import Body, parse
from service.errors import InvalidRequest


class Question(Body):
    """One of these, as the model's processing wants it. A list is a batch.

    `pixels` is one image, rows of grey values or of RGB triples from 0 to 255; `tensor` is one example.
    """

    text: str | list[str] | None = None
    image: str | list[str] | None = Field(default=None, description="base64 of a PNG or JPEG file")
    pixels: list[Any] | None = None
    tensor: list[Any] | None = None


async def predict(request: Request) -> JSONResponse:
    """`POST /predict/{model}`."""
    catalog, body = request.app.state.catalog, await request.body()
    model: Batcher = catalog.tensor(request.path_params["model"])
    content_type = request.headers.get("content-type", "")
    items = await catalog.pool.parse(_parsed, len(body), model.model, body, content_type)
    predictions = await model.predict(items)
    return JSONResponse(
        {"model": model.manifest.tag, "version": model.manifest.version, "predictions": predictions}
    )


async def ask(model: Batcher, question: Question) -> list[dict[str, Any]]:
    """One answer for each item of the question. Raises InputError for a question of the wrong kind."""
    return await model.predict(_items(model.model, question))


def _parsed(model: TensorModel, body: bytes, content_type: str) -> list[Any]:
    # Clients send files under all sorts of types; JSON announces itself.
    if content_type.startswith("application/json") or body.lstrip()[:1] in (b"{", b""):
        return _items(model, parse(body, Question))
    if not isinstance(model.manifest.processing, ImageProcessing):
        raise _wrong_kind(model)
    return [body]


def _items(model: TensorModel, question: Question) -> list[Any]:
    given = [name for name, value in question if value is not None]
    wanted = _fields(model)
    if len(given) != 1 or given[0] not in wanted:
        raise _wrong_kind(model)
    value = getattr(question, given[0])
    if given[0] in ("pixels", "tensor"):
        return [_picture(value) if given[0] == "pixels" else _example(model, value)]
    values = [value] if isinstance(value, str) else value
    return [_decode(image) for image in values] if given[0] == "image" else values


def _fields(model: TensorModel) -> tuple[str, ...]:
    processing = model.manifest.processing
    if isinstance(processing, ImageProcessing):
        return ("image", "pixels")
    return ("text",) if isinstance(processing, TextProcessing) else ("tensor",)


def _wrong_kind(model: TensorModel) -> InputError:
    fields = " or ".join(f'{{"{name}": ...}}' for name in _fields(model))
    return InvalidRequest(f"{model.manifest.tag} wants {fields}, and nothing else beside it")


def _decode(image: str) -> bytes:
    try:
        return base64.b64decode(image, validate=True)
    except ValueError as error:
        raise InvalidRequest(f"image: not base64 ({error})", "image") from None


def _picture(rows: list[Any]) -> Image.Image:
    pixels = _array(rows, "pixels")
    if pixels.dtype.kind not in "iu" or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise InvalidRequest("pixels: send rows of integers, or of RGB triples of integers", "pixels")
    if not pixels.size or pixels.min() < 0 or pixels.max() > 255:
        raise InvalidRequest("pixels: send at least one, each from 0 to 255", "pixels")
    return Image.fromarray(pixels.astype(np.uint8))


def _example(model: TensorModel, values: list[Any]) -> np.ndarray[Any, Any]:
    array = _array(values, "tensor")
    if array.dtype.kind not in "fiub":
        raise InvalidRequest("tensor: send numbers", "tensor")
    return array.astype(model.manifest.signature.inputs[0].dtype)


def _array(values: list[Any], param: str) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(values)
    except ValueError:
        raise InvalidRequest(f"{param}: the rows differ in length; send rows of one length", param) from None
