"""Request headers by name, without decoding the ones that nobody asks for."""

from starlette.types import Scope

# Several layers ask, mostly for what is not there: they look into a dictionary that the first of them makes.
_KEY = "modelpress.headers"


def header(scope: Scope, name: bytes) -> str | None:
    """The first value of a header; `name` in lower case."""
    headers: dict[bytes, bytes] | None = scope.get(_KEY)
    if headers is None:
        headers = scope[_KEY] = dict(reversed(list(scope["headers"])))
    value = headers.get(name)
    return None if value is None else str(value, "latin-1")


def declared(scope: Scope) -> int | None:
    """The length of the body, as the request's header says; None for a chunked body, or for one without."""
    length = header(scope, b"content-length")
    chunked = header(scope, b"transfer-encoding") is not None
    return int(length) if length and length.isdecimal() and not chunked else None
