"""`/v1/completions`: a prompt, continued."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field, model_validator
from starlette.requests import Request
from starlette.types import ASGIApp
from tokenizers import Tokenizer

from runtime.request import check_tokens
from runtime.sampling import MAX_LOGPROBS
from runtime.scheduler import Request as Asked
from runtime.scheduler import TokenLogprob
from runtime.scoring import prompt_logprobs
from service.adapters import choose
from service.body import read
from service.completion import Answer, Piece, complete, unanswered
from service.engine import Engine
from service.errors import InvalidRequest
from service.openai.logprobs import completion_logprobs
from service.openai.neutral import NoSuffix
from service.openai.prompts import Prompts
from service.openai.reply import Reply, respond
from service.openai.sampling import SamplingBody


class CompletionBody(SamplingBody):
    """The body of `/v1/completions`. `max_tokens` 0 goes with `echo`: the prompt, scored."""

    prompt: Prompts
    max_tokens: int = Field(default=16, ge=0)
    echo: bool = False
    logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    best_of: int | None = None
    suffix: NoSuffix = None

    @model_validator(mode="after")
    def _possible(self) -> "CompletionBody":
        if self.best_of not in (None, self.n):
            raise InvalidRequest("best_of: other than n it is not supported; leave it out", "best_of")
        if self.max_tokens == 0 and not self.echo:
            raise InvalidRequest("max_tokens: it is 0; ask for at least 1, or for 'echo'", "max_tokens")
        return self


@dataclass(frozen=True, slots=True)
class Echo:
    """A prompt to be repeated before its answers, and its log-probabilities where they are asked for."""

    text: str = ""
    logprobs: Sequence[TokenLogprob] = ()


@dataclass(slots=True)
class CompletionChoices:
    """`choices` of `/v1/completions`; `echoes[i]` goes before the answers to prompt i."""

    tokenizer: Tokenizer
    echoes: Sequence[Echo]
    per_prompt: int
    logprobs: bool
    prefix = "cmpl"
    whole_object = chunk_object = "text_completion"
    _offsets: dict[int, int] = field(default_factory=dict)

    def whole(self, index: int, answer: Answer) -> dict[str, Any]:
        """One choice, whole."""
        return self._choice(index, answer.text, answer.logprobs, answer.finish_reason)

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """One choice of one event."""
        return self._choice(piece.index, piece.text, piece.logprobs, piece.finish_reason)

    def _choice(
        self, index: int, text: str, scored: Sequence[TokenLogprob], finish_reason: str | None
    ) -> dict[str, Any]:
        if index not in self._offsets:
            echo = self.echoes[index // self.per_prompt]
            text, scored = echo.text + text, [*echo.logprobs, *scored]
        return {
            "index": index,
            "text": text,
            "logprobs": self._logprobs(index, scored),
            "finish_reason": finish_reason,
        }

    def _logprobs(self, index: int, scored: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        offset = self._offsets.setdefault(index, 0)
        if not self.logprobs:
            return None
        lists, self._offsets[index] = completion_logprobs(self.tokenizer, scored, offset)
        return lists


async def completions(request: Request) -> ASGIApp:
    """`POST /v1/completions`."""
    catalog, body = request.app.state.catalog, await read(request, CompletionBody)
    engine, adapter = choose(catalog, body.model, body.adapter)
    if body.max_tokens:
        engine.expect()
    # Echoes may be scored, which runs the model.
    effort = math.inf if body.echo else body.effort(sum(map(len, body.prompt)))
    prompts, asked, echoes = await catalog.pool.parse(_prepare, effort, engine, adapter, body)
    choices = CompletionChoices(engine.model.tokenizer, echoes, body.n, body.logprobs is not None)
    count = len(prompts) * body.n
    pieces = complete(engine, asked, body.stop) if asked else unanswered(count)
    tokens = sum(map(len, prompts))
    reply = Reply(request.state.request_id, engine.manifest, adapter, choices, tokens, body.n)
    return await respond(request, body, reply, pieces, count)


def _prepare(
    engine: Engine, adapter: str | None, body: CompletionBody
) -> tuple[list[list[int]], list[Asked], list[Echo]]:
    """Tokenize, compile grammars, and score what is to be echoed: in a thread, unless that is little."""
    limit = body.max_tokens
    engine.check_count(len(body.prompt) * body.n)
    prompts = [_tokens(engine, each) for each in body.prompt]
    asked = body.draw(engine, adapter, prompts, limit, body.logprobs) if limit else []
    echoes = [
        _echo(engine, adapter, body, given, prompt)
        for given, prompt in zip(body.prompt, prompts, strict=True)
    ]
    return prompts, asked, echoes


def _tokens(engine: Engine, given: str | list[int]) -> list[int]:
    if isinstance(given, str):
        return engine.model.encode(given)
    # Before anything decodes them: a number that is no token's may not even fit.
    check_tokens(given, engine.model.graph.vocab_size)
    return given


def _echo(
    engine: Engine, adapter: str | None, body: CompletionBody, given: str | list[int], prompt: list[int]
) -> Echo:
    if not body.echo:
        return Echo()
    text = given if isinstance(given, str) else engine.model.decode(given)
    if body.logprobs is None:
        return Echo(text)
    return Echo(text, prompt_logprobs(engine.model, prompt, body.logprobs, adapter))
