"""The dialects: one file each says how to build a request's body and how to read its answer.

The type of a request's configuration selects the implementation. A new dialect is a new file and a line in
each of the two tables below.
"""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from loadtests.dialects import http, oip_infer, openai_completions
from loadtests.dialects.exchange import Call

Request = Annotated[
    openai_completions.CompletionsRequest | oip_infer.InferRequest | http.HTTPRequest,
    Field(discriminator="dialect"),
]

_CALLS: dict[type, Callable[[Any], list[Call]]] = {
    openai_completions.CompletionsRequest: openai_completions.calls,
    oip_infer.InferRequest: oip_infer.calls,
    http.HTTPRequest: http.calls,
}


def calls(request: Request) -> list[Call]:
    """Every distinct call that this entry of the mix can make, its body serialised."""
    return _CALLS[type(request)](request)
