"""Plain HTTP: a method, a path, a body, the expected status. The content of the answer is not looked at.

A body is JSON, a text, the bytes of files, or generated images, for endpoints that take pictures.
"""

import io
import json
import mimetypes
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationInfo, field_validator, model_validator

from loadtests.config import Config, complaint
from loadtests.dialects.entry import Entry
from loadtests.dialects.exchange import GOOD_STATUS, JSON, Answer, Call, WholeBody
from loadtests.files import all_beside


class Images(Config):
    """So many different pictures of noise, `width` by `height` pixels."""

    width: PositiveInt
    height: PositiveInt
    mode: Literal["L", "RGB"] = "RGB"
    format: Literal["png", "jpeg"] = "png"
    count: PositiveInt = 16
    seed: NonNegativeInt = 0


class HTTPRequest(Entry):
    """One entry of the mix. `files` is a pattern; each request sends one of the files that match."""

    dialect: Literal["http"]
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    path: str = Field(default="/", pattern="^/[!-~]*$")
    body: Any = None
    text: str | None = None
    files: tuple[str, ...] = ()
    images: Images | None = None
    content_type: str | None = None
    expect: tuple[int, ...] = ()

    @field_validator("files", mode="before")
    @classmethod
    def _beside_the_scenario(cls, pattern: object, info: ValidationInfo) -> object:
        return all_beside(pattern, info) if isinstance(pattern, str) else pattern

    @model_validator(mode="after")
    def _one_body(self) -> Self:
        given = (self.body is not None, self.text is not None, bool(self.files), self.images is not None)
        if sum(given) > 1:
            raise complaint("give one of body, text, files and images", at=())
        if self.method == "GET" and any(given):
            raise complaint("a GET has no body; say method: POST", at=("method",))
        return self

    @property
    def target(self) -> str:
        return f"{self.method} {self.path}"


def calls(request: HTTPRequest) -> list[Call]:
    """One call for each file or image, else the one there is."""
    if request.files:
        return [
            _call(
                request, Path(file).read_bytes(), mimetypes.guess_type(file)[0] or "application/octet-stream"
            )
            for file in request.files
        ]
    if request.images:
        return [_call(request, image, f"image/{request.images.format}") for image in draw(request.images)]
    if request.text is not None:
        return [_call(request, request.text.encode(), "text/plain; charset=utf-8")]
    return [_call(request, None if request.body is None else json.dumps(request.body).encode(), JSON)]


def draw(images: Images) -> list[bytes]:
    """The files' bytes, the same for the same seed."""
    from PIL import Image

    generator = np.random.default_rng(images.seed)
    shape = (images.height, images.width, 3) if images.mode == "RGB" else (images.height, images.width)
    drawn = []
    for _ in range(images.count):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, shape, np.uint8)).save(buffer, images.format)
        drawn.append(buffer.getvalue())
    return drawn


def accept(text: bytes) -> Answer:
    """Nothing is promised about the body."""
    return Answer()


def _call(request: HTTPRequest, body: bytes | None, content_type: str) -> Call:
    return Call(
        request.method,
        request.path,
        None if body is None else (body,),
        partial(WholeBody, accept),
        content_type=request.content_type or content_type,
        expected=request.expect or GOOD_STATUS,
    )
