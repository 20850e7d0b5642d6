"""The OpenAI completions dialect: `POST /v1/completions`, whole or as a stream of server-sent events.

A stream is good when it held at least one non-empty token and ended with `data: [DONE]`; a connection that
closes politely without it was truncated. Tokens are counted by the server's own `usage` when it sends one,
else by non-empty chunks. Tokens that arrive in one chunk share its time: what a client on that socket can
see is what is measured.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, ValidationInfo, field_validator, model_validator

from loadtests.config import Config, complaint
from loadtests.dialects.exchange import Answer, Call, Reader, WholeBody, excerpt, parse_object
from loadtests.dialects.sse import EventParser
from loadtests.errors import BadAnswer


class CompletionsRequest(Config):
    """One entry of the mix. Prompts come from the list or the lines of a file, and are picked at random."""

    dialect: Literal["openai-completions"]
    weight: PositiveFloat = 1.0
    model: str
    prompts: tuple[str, ...] = ()
    prompts_file: Path | None = None
    max_tokens: PositiveInt = 64
    temperature: float = Field(default=0.0, ge=0)
    stream: bool = True
    include_usage: bool = True
    extra_body: dict[str, Any] = Field(default_factory=dict)

    @field_validator("prompts_file")
    @classmethod
    def _beside_the_scenario(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is None:
            return None
        path = ((info.context or {}).get("folder", Path()) / path).absolute()
        try:
            path.read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror}") from error
        return path

    @model_validator(mode="after")
    def _has_prompts(self) -> Self:
        if bool(self.prompts) == bool(self.prompts_file):
            raise complaint("give either prompts or prompts_file", at=())
        if not read_prompts(self):
            raise complaint("the file holds no prompt", at=("prompts_file",))
        return self

    @property
    def target(self) -> str:
        return self.model


def read_prompts(request: CompletionsRequest) -> list[str]:
    """The prompts, from wherever they come. A file holds one prompt to a line."""
    if request.prompts_file is None:
        return list(request.prompts)
    lines = request.prompts_file.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip()]


def calls(request: CompletionsRequest) -> list[Call]:
    """One call for each prompt."""
    new_reader: Callable[[], Reader] = TokenStream if request.stream else partial(WholeBody, check_completion)
    return [
        Call("POST", "/v1/completions", json.dumps(body(request, prompt)).encode(), new_reader)
        for prompt in read_prompts(request)
    ]


def body(request: CompletionsRequest, prompt: str) -> dict[str, Any]:
    """The request's JSON. `extra_body` wins, so that a server's own switches can be reached."""
    fields: dict[str, Any] = {
        "model": request.model,
        "prompt": prompt,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "stream": request.stream,
    }
    if request.stream and request.include_usage:
        fields["stream_options"] = {"include_usage": True}
    return fields | request.extra_body


def check_completion(text: bytes) -> Answer:
    """A whole completion: it must hold a choice with text."""
    document = parse_object(text)
    if chosen_text(document) is None:
        raise BadAnswer("bad_body", f"no text in the first choice: {excerpt(text)}")
    return Answer(tokens=completion_tokens(document))


class TokenStream:
    """Reads a stream of completions and remembers when each non-empty token came."""

    def __init__(self) -> None:
        self._events = EventParser()
        self._token_times: list[float] = []
        self._usage: int | None = None
        self._done = False

    def feed(self, chunk: bytes, arrived: float) -> None:
        for data in self._events.feed(chunk):
            if data == b"[DONE]":
                self._done = True
            elif not self._done:
                self._take(parse_object(data), data, arrived)

    def finish(self) -> Answer:
        if not self._done:
            raise BadAnswer(
                "truncated", f"the stream ended after {len(self._token_times)} tokens, without [DONE]"
            )
        if not self._token_times:
            raise BadAnswer("bad_body", "the stream held no token")
        tokens = self._usage if self._usage is not None else len(self._token_times)
        return Answer(tuple(self._token_times), tokens)

    def _take(self, event: dict[str, Any], data: bytes, arrived: float) -> None:
        if "error" in event:
            raise BadAnswer("error_in_stream", excerpt(data))
        if chosen_text(event):
            self._token_times.append(arrived)
        self._usage = completion_tokens(event) or self._usage


def chosen_text(document: dict[str, Any]) -> str | None:
    """The text of the first choice; None when the document has none."""
    match document:
        case {"choices": [{"text": str(text)}, *_]}:
            return text
    return None


def completion_tokens(document: dict[str, Any]) -> int | None:
    """What the server says it generated; None when it does not say."""
    match document:
        case {"usage": {"completion_tokens": int(tokens)}}:
            return tokens
    return None
