"""Request bodies as validated objects, and pydantic's complaints in one line."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from starlette.requests import ClientDisconnect, Request

from runtime.suggest import nearest
from service.errors import InvalidRequest


class Body(BaseModel):
    """A JSON body: strict about types, unknown keys refused, a null like a key left out."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if value is not None}


B = TypeVar("B", bound=BaseModel)


def parse(data: bytes, schema: type[B]) -> B:
    """The JSON in `data` as a `schema`. Raises InvalidRequest: what is wrong, and in which field."""
    try:
        return schema.model_validate_json(data)
    except ValidationError as error:
        raise complaint(error, schema) from None


async def content(request: Request) -> bytes:
    """The request's body, which can be had once. Raises ClientDisconnect.

    Nearly every body comes whole; Starlette would iterate over two generators to find that out.
    """
    parts = []
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def read(request: Request, schema: type[B]) -> B:
    """The request's body as a `schema`; a large one is read in a thread. Raises InvalidRequest."""
    raw = await content(request)
    body: B = await request.app.state.catalog.pool.parse(parse, len(raw), raw, schema)
    return body


def complaint(error: ValidationError, schema: type[BaseModel]) -> InvalidRequest:
    """The first of pydantic's complaints as one line that names the field."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return InvalidRequest(f"the body is not JSON: {first['ctx']['error']}")
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "model_type":
        message = "Input should be an object"
    if first["type"] == "extra_forbidden":
        message = f"no such field: {nearest(where, schema.model_fields)}"
    return InvalidRequest(f"{where or 'the body'}: {message}", where or None)
