"""OpenAI's dialect: `/v1/models` and `/v1/completions`, with streaming.

Fields and shapes: https://platform.openai.com/docs/api-reference/completions. `top_k` is an extension that
vLLM has too. What is not implemented is refused by name, not ignored.
"""

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainValidator
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Scope

from runtime.errors import ModelpressError
from runtime.manifest import Manifest
from runtime.sampling import SamplingParams
from service.body import Body, parse
from service.completion import Answer, Piece, answers, complete, encode
from service.disconnect import while_connected
from service.errors import InvalidRequest
from service.event_stream import EventStream
from service.problem import problem_body

# Fields that would change the answer if they were implemented: only their defaults are taken.
UNSUPPORTED = (
    "best_of",
    "echo",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "n",
    "presence_penalty",
    "suffix",
)


def _prompts(value: Any) -> list[str] | list[list[int]]:
    """OpenAI's four kinds of prompt as two: some texts, or some lists of tokens."""
    if isinstance(value, str) or _is_list_of(value, int):
        return [value]
    if _is_list_of(value, str) or (
        _is_list_of(value, list) and all(_is_list_of(part, int) for part in value)
    ):
        return list(value)
    raise ValueError("send a text, some texts, a list of tokens, or some lists of tokens, none of them empty")


def _stops(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is kind for item in value)


class StreamOptions(Body):
    """`include_usage`: a last chunk without choices says what was used."""

    include_usage: bool = False


class CompletionRequest(Body):
    """The body of `/v1/completions`."""

    model: str
    prompt: Annotated[list[str] | list[list[int]], PlainValidator(_prompts)]
    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: Annotated[list[str], Field(max_length=4), BeforeValidator(_stops)] = Field(default=[])
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    user: str = ""
    best_of: Any = 1
    echo: Any = False
    frequency_penalty: Any = 0
    logit_bias: Any = None
    logprobs: Any = None
    n: Any = 1
    presence_penalty: Any = 0
    suffix: Any = None

    def params(self) -> SamplingParams:
        """How to sample. Raises InputError for a value out of its range, or a field that is not supported."""
        for name in UNSUPPORTED:
            if (value := getattr(self, name)) != type(self).model_fields[name].default:
                raise InvalidRequest(f"{name}={json.dumps(value)} is not supported; leave it out", name)
        return SamplingParams(self.max_tokens, self.temperature, self.top_k, self.top_p, self.seed)


@dataclass(slots=True)
class Reply:
    """One completion's objects: whole, or chunk by chunk, and what was used."""

    id: str
    manifest: Manifest
    prompt_tokens: int
    completion_tokens: int = 0
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, texts: list[Answer]) -> dict[str, Any]:
        """The answer to a request that does not stream."""
        self.completion_tokens = sum(answer.tokens for answer in texts)
        choices = [_choice(i, answer.text, answer.finish_reason) for i, answer in enumerate(texts)]
        return {**self._object(choices), "usage": self.usage()}

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """One event of a stream."""
        self.completion_tokens += piece.tokens
        return self._object([_choice(piece.index, piece.text, piece.finish_reason)])

    def last(self) -> dict[str, Any]:
        """The event that closes a stream with its usage."""
        return {**self._object([]), "usage": self.usage()}

    def usage(self) -> dict[str, int]:
        """Tokens in, out, and together."""
        total = self.prompt_tokens + self.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": total,
        }

    def _object(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.manifest.tag,
            "system_fingerprint": self.manifest.version,
            "choices": choices,
        }


async def completions(request: Request) -> ASGIApp:
    """`POST /v1/completions`."""
    catalog, asked = request.app.state.catalog, parse(await request.body(), CompletionRequest)
    engine = catalog.text(asked.model)
    request.state.model = engine.manifest.tag
    params = asked.params()
    prompts = await encode(catalog.pool, engine, asked.prompt)
    reply = Reply(f"cmpl-{request.state.request_id}", engine.manifest, sum(map(len, prompts)))
    pieces = complete(engine, prompts, params, asked.stop)
    if not asked.stream:
        whole = await while_connected(request.receive, answers(pieces, len(prompts)))
        return JSONResponse(reply.whole(whole))
    events = _events(request.scope, reply, pieces, asked.stream_options.include_usage)
    # The first event is awaited here, so that a refusal is a status and not an event.
    return EventStream(await while_connected(request.receive, anext(events)), events)


async def models(request: Request) -> JSONResponse:
    """`GET /v1/models`."""
    listed = [_model(manifest) for manifest in request.app.state.catalog.manifests]
    return JSONResponse({"object": "list", "data": listed})


async def model(request: Request) -> JSONResponse:
    """`GET /v1/models/{model}`."""
    found = request.app.state.catalog.find(request.path_params["model"])
    request.state.model = found.manifest.tag
    return JSONResponse(_model(found.manifest))


async def _events(
    scope: Scope, reply: Reply, pieces: AsyncGenerator[Piece, None], include_usage: bool
) -> AsyncGenerator[str, None]:
    async with aclosing(pieces):
        yield json.dumps(reply.chunk(await anext(pieces)))
        try:
            async for piece in pieces:
                yield json.dumps(reply.chunk(piece))
        except ModelpressError as error:
            # The status is sent already: an error event is all that can be said.
            yield json.dumps(problem_body(scope, error))
            return
        if include_usage:
            yield json.dumps(reply.last())


def _choice(index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}


def _model(manifest: Manifest) -> dict[str, Any]:
    return {
        "id": manifest.tag,
        "object": "model",
        "created": 0,
        "owned_by": "modelpress",
        "task": manifest.task,
    }


routes = [
    Route("/completions", completions, methods=["POST"]),
    Route("/models", models),
    Route("/models/{model}", model),
]
