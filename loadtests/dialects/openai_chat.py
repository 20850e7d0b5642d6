"""The OpenAI chat dialect: `POST /v1/chat/completions`, with conversations of several turns.

A later turn holds what the server itself answered before, as a real client's does: only so can a prefix cache
show what it is worth. Everything around those answers is serialised before the run.
"""

import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from loadtests.dialects.exchange import Call
from loadtests.dialects.openai_completions import Generation, new_reader, settings
from loadtests.dialects.prompted import answer_lengths, read_prompts, sized_prompt
from loadtests.spread import Spread

ANSWER = b'{"role": "assistant", "content": '


class ChatRequest(Generation):
    """One entry of the mix. Every turn asks a further prompt, `think` seconds after the answer before it."""

    dialect: Literal["openai-chat"]
    system: str | None = None
    turns: PositiveInt = 1
    think: NonNegativeFloat | Spread = Field(default=0.0)


def calls(request: ChatRequest) -> list[Call]:
    """The first turn of one conversation for each prompt."""
    prompts = read_prompts(request)
    lengths = answer_lengths(request.max_tokens, len(prompts))
    return [
        conversation(
            request, [prompts[(first + turn) % len(prompts)] for turn in range(request.turns)], length
        )
        for first, length in enumerate(lengths)
    ]


def sized_call(request: ChatRequest, words: int, max_tokens: int, number: int) -> Call:
    """The call of a trace's row, a conversation of one turn."""
    return conversation(request, [sized_prompt(request, words, number)], max_tokens)


def conversation(request: ChatRequest, said: Sequence[str], max_tokens: int) -> Call:
    """Its first turn, with the others behind it."""
    then: Call | None = None
    for turn in range(len(said), 0, -1):
        then = Call(
            "POST",
            "/v1/chat/completions",
            pieces(request, said[:turn], max_tokens),
            new_reader(request, said_text),
            then=then,
        )
    assert then is not None
    return then


def pieces(request: ChatRequest, said: Sequence[str], max_tokens: int) -> tuple[bytes, ...]:
    """The body of the turn that says the last of `said`, cut where the answers to the others go."""
    opening = [{"role": "system", "content": request.system}] if request.system else []
    first, *later = [{"role": "user", "content": text} for text in said]
    head = json.dumps(settings(request, max_tokens))[:-1].encode() + b', "messages": ['
    parts = [head + json.dumps([*opening, first])[1:-1].encode(), *(json.dumps(m).encode() for m in later)]
    return tuple(
        (b"}, " if place else b"") + part + (b", " + ANSWER if place < len(later) else b"]}")
        for place, part in enumerate(parts)
    )


def said_text(document: dict[str, Any]) -> str | None:
    """What the first choice says, whole or as the next part of a stream; reasoning is text too."""
    match document:
        case {"choices": [{"message": {"content": str(text)}}, *_]}:
            return text
        case {"choices": [{"delta": {"content": str(text)}}, *_]} if text:
            return text
        case {"choices": [{"delta": {"reasoning_content": str(text)}}, *_]}:
            return text
    return None
