"""The OpenAI completions dialect: `POST /v1/completions`, whole or as a stream of server-sent events."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from pydantic import Field, PositiveInt

from loadtests.dialects.exchange import Call, Reader, WholeBody
from loadtests.dialects.prompted import Prompted, answer_lengths, read_prompts, sized_prompt
from loadtests.dialects.token_stream import TextOf, TokenStream, check_whole
from loadtests.spread import Spread


class Generation(Prompted):
    """What completions and chats have in common. `extra_body` wins over everything else."""

    max_tokens: PositiveInt | Spread = 64
    temperature: float = Field(default=0.0, ge=0)
    stream: bool = True
    include_usage: bool = True
    extra_body: dict[str, Any] = Field(default_factory=dict)


class CompletionsRequest(Generation):
    """One entry of the mix."""

    dialect: Literal["openai-completions"]


def calls(request: CompletionsRequest) -> list[Call]:
    """One call for each prompt."""
    prompts = read_prompts(request)
    lengths = answer_lengths(request.max_tokens, len(prompts))
    return [_call(request, prompt, length) for prompt, length in zip(prompts, lengths, strict=True)]


def sized_call(request: CompletionsRequest, words: int, max_tokens: int, number: int) -> Call:
    """The call of a trace's row: a prompt of so many words, an answer of so many tokens at most."""
    return _call(request, sized_prompt(request, words, number), max_tokens)


def settings(request: Generation, max_tokens: int) -> dict[str, Any]:
    """The part of the request's JSON that is not the prompt."""
    fields: dict[str, Any] = {
        "model": request.model,
        "max_tokens": max_tokens,
        "temperature": request.temperature,
        "stream": request.stream,
    }
    if request.stream and request.include_usage:
        fields["stream_options"] = {"include_usage": True}
    return fields | request.extra_body


def new_reader(request: Generation, text_of: TextOf) -> Callable[[], Reader]:
    """Reads a stream or a whole answer, as was asked for."""
    if request.stream:
        return partial(TokenStream, text_of)
    return partial(WholeBody, partial(check_whole, text_of))


def chosen_text(document: dict[str, Any]) -> str | None:
    """The text of the first choice; None when the document has none."""
    match document:
        case {"choices": [{"text": str(text)}, *_]}:
            return text
    return None


def _call(request: CompletionsRequest, prompt: str, max_tokens: int) -> Call:
    body = json.dumps({"prompt": prompt} | settings(request, max_tokens)).encode()
    return Call("POST", "/v1/completions", (body,), new_reader(request, chosen_text))
