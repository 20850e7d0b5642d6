"""The OpenAI embeddings dialect: `POST /v1/embeddings`, one or several texts to a request."""

import json
from functools import partial
from typing import Literal

from pydantic import PositiveInt

from loadtests.dialects.exchange import Answer, Call, WholeBody, excerpt, parse_object
from loadtests.dialects.prompted import Prompted, read_prompts
from loadtests.errors import BadAnswer


class EmbeddingsRequest(Prompted):
    """One entry of the mix. `batch` texts go into each request."""

    dialect: Literal["openai-embeddings"]
    batch: PositiveInt = 1


def calls(request: EmbeddingsRequest) -> list[Call]:
    """One call that begins with each of the prompts."""
    prompts = read_prompts(request)
    return [
        _call(request, [prompts[(first + place) % len(prompts)] for place in range(request.batch)])
        for first in range(len(prompts))
    ]


def check_vectors(expected: int, text: bytes) -> Answer:
    """There must be a vector for each text."""
    match parse_object(text):
        case {"data": [{"embedding": _}, *_] as vectors} if len(vectors) == expected:
            return Answer()
    raise BadAnswer("bad_body", f"not {expected} embeddings: {excerpt(text)}")


def _call(request: EmbeddingsRequest, texts: list[str]) -> Call:
    body = json.dumps({"model": request.model, "input": texts}).encode()
    reader = partial(WholeBody, partial(check_vectors, len(texts)))
    return Call("POST", "/v1/embeddings", (body,), reader, rows=len(texts))
