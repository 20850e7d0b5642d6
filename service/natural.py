"""What a person has, and an answer in the task's words: a sentence, an image, some numbers.

`POST /predict/{model}` takes an image file as the body, or a sentence as `text/plain`, a form with files, a
plain list or sentence as JSON, or JSON with one of `text`, `image` (base64), `pixels`, `graph`, `tensor`, or
with `question` and `context`; where the model compares images with captions, `text` may go beside an image. A
model that writes answers `text` with text, of at most `max_tokens` tokens (`written.py`). It never fetches
what a request points at. In a batch one bad item gets an error of its own and costs the others nothing.
"""

import base64
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field, JsonValue, TypeAdapter, ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.types import Receive

from runtime.captions import Captioned, check_captions
from runtime.errors import BatchTooLarge, InputError
from runtime.manifest import (
    CaptionedProcessing,
    DrawingProcessing,
    GenerationProcessing,
    GraphProcessing,
    ImageProcessing,
    TextProcessing,
    WordProcessing,
)
from runtime.model import TextModel
from runtime.spans import FIELDS
from runtime.tensor import TensorModel
from service.batcher import Batcher
from service.body import Body, complaint
from service.disconnect import while_connected
from service.engine import Engine
from service.errors import InvalidRequest
from service.hang_up import unless_left
from service.json_response import JsonResponse
from service.pool import Pool
from service.served import Served
from service.written import write

Model = TensorModel | TextModel

MAX_FILES = 1024
_JSON: TypeAdapter[Any] = TypeAdapter(JsonValue)


class Question(Body):
    """One of these, as the model's processing wants it. A list is a batch.

    `question` and `context` go together; one of either may be asked of many of the other.
    `pixels` is one image, rows of grey values or of RGB triples from 0 to 255; `tensor` is one example.
    `graph` is `{features: a row for each node, edges: [[source, target], ...]}`, nodes numbered from 0.
    Beside an image, `text` is the captions to choose from.
    """

    text: str | list[str] | None = None
    image: str | list[str] | None = Field(default=None, description="base64 of a PNG or JPEG file")
    pixels: list[Any] | None = None
    graph: dict[str, Any] | list[Any] | None = None
    tensor: list[Any] | None = None
    question: str | list[str] | None = None
    context: str | list[str] | None = None
    max_tokens: int | None = Field(default=None, description="of an answer, by a model that writes text")


@dataclass(frozen=True, slots=True)
class Items:
    """What a model is asked about. An error stands where an item could not be read; a list is a `batch`.

    `max_tokens` is how long a text may be that answers one.
    """

    values: list[Any]
    batch: bool = False
    max_tokens: int | None = None


async def predict(request: Request) -> JsonResponse:
    """`POST /predict/{model}`."""
    catalog = request.app.state.catalog
    model: Served = catalog.find(request.path_params["model"])
    # Its size tells nothing: a large image is one row, and so is a short word.
    model.expect()
    body = await request.body()
    content_type = request.headers.get("content-type", "")
    if content_type.startswith("multipart/form-data"):
        items = await _uploaded(request, model.model)
    else:
        items = await catalog.pool.parse(_parsed, len(body), model.model, body, content_type)
    predictions = await answer(catalog.pool, model, items, request.receive)
    manifest = model.manifest
    return JsonResponse({"model": manifest.tag, "version": manifest.version, "predictions": predictions})


async def ask(pool: Pool, model: Served, question: Question, receive: Receive) -> list[dict[str, Any]]:
    """One answer for each item of the question. Raises InputError for a question of the wrong kind."""
    return await answer(pool, model, _items(model.model, question), receive)


async def answer(pool: Pool, model: Served, items: Items, receive: Receive) -> list[dict[str, Any]]:
    """One answer for each item; in a batch, `{"error": ...}` for one that cannot be answered.

    What writes text stops when the client of `receive` hangs up, and what waits does not begin. Raises
    InputError for a single item that cannot be answered, or for a batch that is wrong as a whole.
    """
    if isinstance(model, Engine):
        return await while_connected(receive, _written(pool, model, items))
    return await unless_left(receive, model, _predicted(pool, model, items))


async def _predicted(pool: Pool, model: Batcher, items: Items) -> list[dict[str, Any]]:
    try:
        return await model.predict(_readable(items.values))
    except InputError as error:
        # Where all are too much together, no item is to be tried by itself.
        if not items.batch or isinstance(error, BatchTooLarge):
            raise
    errors = await pool.run(_errors, model.model, items.values)
    good = [value for index, value in enumerate(items.values) if index not in errors]
    answers = iter(await model.predict(good) if good or not errors else [])
    return [
        {"error": errors[index]} if index in errors else next(answers) for index in range(len(items.values))
    ]


async def _written(pool: Pool, engine: Engine, items: Items) -> list[dict[str, Any]]:
    if not items.values:
        raise InvalidRequest("the batch is empty; send at least one text", "text")
    answers = await write(pool, engine, items.values, items.max_tokens)
    if not items.batch:
        _readable(answers)
    return [{"error": str(each)} if isinstance(each, InputError) else each for each in answers]


def _readable(values: list[Any]) -> list[Any]:
    for value in values:
        if isinstance(value, InputError):
            raise value
    return values


def _errors(model: TensorModel, values: list[Any]) -> dict[int, str]:
    """What is wrong with each item that cannot be read by itself."""
    errors = {}
    for index, value in enumerate(values):
        try:
            model.check(model.encode(_readable([value])))
        except InputError as error:
            errors[index] = str(error)
    return errors


async def _uploaded(request: Request, model: Model) -> Items:
    """The files of a form, whatever they are called; or its fields `text`."""
    async with request.form(max_files=MAX_FILES) as form:
        fields = form.multi_items()
        files = [await field.read() for _, field in fields if isinstance(field, UploadFile)]
        texts = [field for name, field in fields if isinstance(field, str) and name == "text"]
    if len(files) + len(texts) != len(fields) or not fields:
        raise InvalidRequest("send files, or fields called 'text', and nothing else in the form")
    captions = texts if files and texts else None
    if ("image" if files else "text") not in _fields(model) or (captions and not _takes_captions(model)):
        raise _wrong_kind(model)
    items = Items(files or texts, batch=len(files or texts) > 1)
    return items if captions is None else _captioned(items, captions)


def _parsed(model: Model, body: bytes, content_type: str) -> Items:
    # Clients send files, and JSON, under all sorts of types; JSON announces itself.
    if content_type.startswith("application/json") or body.lstrip()[:1] in (b"{", b"[", b'"', b""):
        return _items(model, _question(model, body))
    if content_type.startswith("text/plain") and _fields(model) == ("text",):
        return Items([_sentence(body)])
    if "image" not in _fields(model):
        raise _wrong_kind(model)
    return Items([body])


def _sentence(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the text is not UTF-8 ({error}); send UTF-8", "text") from None


def _question(model: Model, body: bytes) -> Question:
    """The JSON as a question: a plain text or list is what the model wants."""
    try:
        content = _JSON.validate_json(body)
        if isinstance(content, dict) and "features" in content and _fields(model) == ("graph",):
            content = {"graph": content}
        if isinstance(content, str | list):
            of_texts = isinstance(content, str) or any(isinstance(item, str) for item in content)
            content = {_fields(model)[0 if of_texts else -1]: content}
        return Question.model_validate(content)
    except ValidationError as error:
        raise complaint(error, Question) from None


def _items(model: Model, question: Question) -> Items:
    if question.max_tokens is not None and isinstance(model, TextModel):
        alone = question.model_copy(update={"max_tokens": None})
        return replace(_items(model, alone), max_tokens=question.max_tokens)
    if question.text is not None and _takes_captions(model):
        alone = question.model_copy(update={"text": None})
        return _captioned(_items(model, alone), question.text)
    given = [name for name, value in question if value is not None]
    wanted = _fields(model)
    if wanted == FIELDS and tuple(given) == FIELDS:
        return _paired(question.question, question.context)
    if wanted == FIELDS or len(given) != 1 or given[0] not in wanted:
        raise _wrong_kind(model)
    value = getattr(question, given[0])
    if given[0] in ("pixels", "tensor"):
        return Items([_picture(value) if given[0] == "pixels" else _example(model, value)])
    values = value if isinstance(value, list) else [value]
    read = [_decode(image) for image in values] if given[0] == "image" else values
    return Items(read, batch=isinstance(value, list))


def _captioned(items: Items, captions: str | list[str]) -> Items:
    """Every image that could be read, beside the same captions."""
    checked = check_captions(captions)
    values = [value if isinstance(value, InputError) else Captioned(value, checked) for value in items.values]
    return Items(values, items.batch)


def _takes_captions(model: Model) -> bool:
    return isinstance(model.manifest.processing, CaptionedProcessing)


def _paired(question: str | list[str] | None, context: str | list[str] | None) -> Items:
    """Each question with its context; one that stands alone goes with all of the others."""
    given = (question, context)
    counts = {len(value) for value in given if isinstance(value, list)}
    if len(counts) > 1:
        raise InvalidRequest("send as many contexts as questions, or one for all", "context")
    count = counts.pop() if counts else 1
    columns = [value if isinstance(value, list) else [value] * count for value in given]
    items = [dict(zip(FIELDS, pair, strict=True)) for pair in zip(*columns, strict=True)]
    return Items(items, batch=any(isinstance(value, list) for value in given))


def _fields(model: Model) -> tuple[str, ...]:
    processing = model.manifest.processing
    if isinstance(processing, ImageProcessing | CaptionedProcessing):
        return ("image", "pixels")
    if isinstance(processing, GraphProcessing):
        return ("graph",)
    if isinstance(processing, TextProcessing) and processing.pair:
        return FIELDS
    reads = TextProcessing | DrawingProcessing | WordProcessing | GenerationProcessing
    return ("text",) if isinstance(processing, reads) else ("tensor",)


def _wrong_kind(model: Model) -> InputError:
    wanted = _fields(model)
    fields = " or ".join(f'{{"{name}": ...}}' for name in wanted)
    if wanted == FIELDS:
        fields = '{"question": ..., "context": ...}'
    return InvalidRequest(f"{model.manifest.tag} wants {fields}, and nothing else beside it")


def _decode(image: str) -> bytes | InputError:
    # As browsers make it of a file, and in lines, as `base64` and MIME do.
    data = image.partition(";base64,")[2] if image.startswith("data:") else image
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except ValueError as error:
        return InvalidRequest(f"image: not base64 ({error})", "image")


def _picture(rows: list[Any]) -> Image.Image:
    pixels = _array(rows, "pixels")
    if pixels.dtype.kind not in "iu" or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise InvalidRequest("pixels: send rows of integers, or of RGB triples of integers", "pixels")
    if not pixels.size or pixels.min() < 0 or pixels.max() > 255:
        raise InvalidRequest("pixels: send at least one, each from 0 to 255", "pixels")
    return Image.fromarray(pixels.astype(np.uint8))


def _example(model: Model, values: list[Any]) -> np.ndarray[Any, Any]:
    array = _array(values, "tensor")
    if array.dtype.kind not in "fiub":
        raise InvalidRequest("tensor: send numbers", "tensor")
    return array.astype(model.manifest.signature.inputs[0].dtype)


def _array(values: list[Any], param: str) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(values)
    except ValueError:
        raise InvalidRequest(f"{param}: the rows differ in length; send rows of one length", param) from None
