"""Plain HTTP: a method, a path, an optional JSON body. Any 2xx answer that arrives whole is a good one."""

import json
from functools import partial
from typing import Any, Literal

from pydantic import Field, PositiveFloat

from loadtests.config import Config
from loadtests.dialects.exchange import Answer, Call, WholeBody


class HTTPRequest(Config):
    """One entry of the mix."""

    dialect: Literal["http"]
    weight: PositiveFloat = 1.0
    method: Literal["GET", "POST", "PUT", "DELETE"] = "GET"
    path: str = Field(default="/", pattern="^/")
    body: Any = None

    @property
    def target(self) -> str:
        return f"{self.method} {self.path}"


def calls(request: HTTPRequest) -> list[Call]:
    """The one call."""
    body = None if request.body is None else json.dumps(request.body).encode()
    return [Call(request.method, request.path, body, partial(WholeBody, accept))]


def accept(text: bytes) -> Answer:
    """Nothing is promised about the body."""
    return Answer()
