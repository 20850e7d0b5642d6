"""What completions and chat answer with: one object, or chunks of it as events, and what was used."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.requests import Request
from starlette.types import ASGIApp, Scope

from runtime.errors import ModelpressError
from runtime.manifest import Manifest
from service.completion import Answer, Piece, answers
from service.disconnect import while_connected
from service.event_stream import DONE, EventStream
from service.json_response import JsonResponse, dumps
from service.openai.sampling import SamplingBody, StreamOptions
from service.problem import problem_body


class Choices(Protocol):
    """A dialect's `choices`, and the names of its objects."""

    prefix: str
    whole_object: str
    chunk_object: str

    def whole(self, index: int, answer: Answer) -> dict[str, Any]:
        """One choice of an answer that does not stream."""

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """One choice of one event of a stream."""


@dataclass(slots=True)
class Reply:
    """One request's objects: whole, or chunk by chunk. `per_prompt` answers are drawn to each prompt."""

    request_id: str
    manifest: Manifest
    adapter: str | None
    choices: Choices
    prompt_tokens: int
    per_prompt: int
    completion_tokens: int = 0
    cached_tokens: int = 0
    created: int = field(default_factory=lambda: int(time.time()))
    # What stands before and after the choice in every event.
    _around: tuple[bytes, bytes] | None = None

    def whole(self, given: Sequence[Answer]) -> dict[str, Any]:
        """The answer to a request that does not stream."""
        self.completion_tokens = sum(answer.tokens for answer in given)
        # As for the prompt's tokens: each prompt counts once, however many answers to it are drawn.
        self.cached_tokens = sum(answer.cached_tokens for answer in given[:: self.per_prompt])
        choices = [self.choices.whole(index, answer) for index, answer in enumerate(given)]
        return self._object(self.choices.whole_object, choices) | {"usage": self._usage()}

    def chunk(self, piece: Piece, options: StreamOptions) -> bytes:
        """One event of a stream. Whoever asks for the usage gets the key in every one, as OpenAI does it."""
        self.completion_tokens += piece.tokens
        self.cached_tokens += 0 if piece.index % self.per_prompt else piece.cached_tokens
        choice = self.choices.chunk(piece)
        if options.continuous_usage_stats:
            return dumps(self._object(self.choices.chunk_object, [choice]) | {"usage": self._usage()})
        before, after = self._around or self._write_around(options)
        return b"%b%b%b" % (before, dumps(choice), after)

    def end(self, options: StreamOptions) -> list[bytes]:
        """What closes a stream: its usage, for whoever asks for it, and the mark of the end."""
        if not options.include_usage:
            return [DONE]
        return [dumps(self._object(self.choices.chunk_object, []) | {"usage": self._usage()}), DONE]

    def _write_around(self, options: StreamOptions) -> tuple[bytes, bytes]:
        """Events differ in their choice only: the rest is written once."""
        empty = self._object(self.choices.chunk_object, [])
        # No text can hold this key: its quotes would be escaped.
        before, key, after = dumps(empty | ({"usage": None} if options.include_usage else {})).partition(
            b'"choices":['
        )
        self._around = before + key, after
        return self._around

    def _usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"{self.choices.prefix}-{self.request_id}",
            "object": kind,
            "created": self.created,
            "model": self.adapter or self.manifest.tag,
            "system_fingerprint": self.manifest.version,
            "choices": choices,
        }


async def respond(
    request: Request, body: SamplingBody, reply: Reply, pieces: AsyncGenerator[Piece, None], count: int
) -> ASGIApp:
    """The `count` answers that `pieces` make up: whole, or as a stream where the body asks for one."""
    if not body.stream:
        return JsonResponse(reply.whole(await while_connected(request.receive, answers(pieces, count))))
    events = _events(request.scope, reply, pieces, body.stream_options, count)
    # The first event is awaited here, so that a refusal is a status and not an event.
    return EventStream(await while_connected(request.receive, anext(events)), events)


async def _events(
    scope: Scope, reply: Reply, pieces: AsyncGenerator[Piece, None], options: StreamOptions, count: int
) -> AsyncGenerator[Sequence[bytes], None]:
    """The events, those in one list that come together; `count` answers are to be ended."""
    begun = False
    async with aclosing(pieces):
        try:
            async for piece in pieces:
                count -= piece.finish_reason is not None
                yield [reply.chunk(piece, options), *([] if count else reply.end(options))]
                begun = True
        except ModelpressError as error:
            if not begun:
                raise
            # The status is sent already: an error event is all that can be said.
            yield [dumps(problem_body(scope, error)), DONE]
