"""The dialects: one file each says how to build a request's body and how to read its answer.

The type of a request's configuration selects the implementation. A new dialect is a new file and a line in
the tables below.
"""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from loadtests.dialects import http, oip_infer, openai_chat, openai_completions, openai_embeddings
from loadtests.dialects.exchange import Call

Request = Annotated[
    openai_completions.CompletionsRequest
    | openai_chat.ChatRequest
    | openai_embeddings.EmbeddingsRequest
    | oip_infer.InferRequest
    | http.HTTPRequest,
    Field(discriminator="dialect"),
]

_CALLS: dict[type, Callable[[Any], list[Call]]] = {
    openai_completions.CompletionsRequest: openai_completions.calls,
    openai_chat.ChatRequest: openai_chat.calls,
    openai_embeddings.EmbeddingsRequest: openai_embeddings.calls,
    oip_infer.InferRequest: oip_infer.calls,
    http.HTTPRequest: http.calls,
}

# Dialects whose requests can be made in the sizes that a trace gives.
_SIZED: dict[type, Callable[[Any, int, int, int], Call]] = {
    openai_completions.CompletionsRequest: openai_completions.sized_call,
    openai_chat.ChatRequest: openai_chat.sized_call,
}


def calls(request: Request) -> list[Call]:
    """Every distinct call that this entry of the mix can make, its body serialised."""
    return _CALLS[type(request)](request)


def takes_sizes(request: Request) -> bool:
    """Whether its prompts and answers can have the lengths of a trace's rows."""
    return type(request) in _SIZED and getattr(request, "generated", None) is not None


def sized_call(request: Request, words: int, max_tokens: int, number: int) -> Call:
    """A call of the given size; `number` tells requests of the same size apart."""
    return _SIZED[type(request)](request, words, max_tokens, number)
