"""Prompts to pieces of text: what every text dialect has in common.

It knows stop strings and how an answer ends, and nothing of any dialect's JSON.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from runtime.errors import InputError
from runtime.sampling import SamplingParams
from runtime.scheduler import FinishReason, Request, TokenEvent, TokenLogprob
from runtime.text import TextStream
from service.engine import Engine
from service.generation import Generation
from service.pool import Pool


@dataclass(frozen=True, slots=True)
class Piece:
    """What the latest tokens add to the answer to request `index`; `tokens` is 0 for the end alone."""

    index: int
    text: str
    tokens: int
    finish_reason: FinishReason | None
    logprobs: Sequence[TokenLogprob] = ()
    cached_tokens: int = 0


@dataclass(slots=True)
class Answer:
    """A whole answer to one request."""

    text: str = ""
    tokens: int = 0
    finish_reason: FinishReason | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)
    cached_tokens: int = 0

    def add(self, piece: Piece) -> None:
        """Append the next piece."""
        self.text += piece.text
        self.tokens += piece.tokens
        self.finish_reason = piece.finish_reason
        self.cached_tokens += piece.cached_tokens
        self.logprobs += piece.logprobs


async def encode(pool: Pool, engine: Engine, prompts: Sequence[str | list[int]]) -> list[list[int]]:
    """Prompts as tokens; texts are tokenized in a thread, because one may be megabytes long."""

    def work() -> list[list[int]]:
        return [engine.model.encode(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]

    return await pool.run(work)


def requests(
    prompts: Sequence[list[int]], params: SamplingParams, adapter: str | None = None
) -> list[Request]:
    """One plain request for each prompt; the engine gives them their ids."""
    return [Request("", prompt, params, adapter=adapter) for prompt in prompts]


async def complete(
    engine: Engine,
    asked: Sequence[Request],
    stop: Sequence[str] = (),
    refused: dict[int, InputError] | None = None,
) -> AsyncGenerator[Piece, None]:
    """Answer the requests side by side, piece by piece. Closing the generator frees their slots.

    Tokens that came together are one piece: a client that is slower than the model gets fewer, longer ones.
    A request that can never be answered ends them all, or where `refused` is given stands there by its index.
    One whose form cannot be followed to the end ends them all: InputError.
    """
    streams = [engine.model.text_stream(stop, request.prompt) for request in asked]
    said = [0] * len(asked)
    async with Generation(engine, asked, refused) as generation:
        async for grown in generation:
            for index, latest in grown.items():
                piece = _piece(index, latest, streams[index])
                said[index] += piece.tokens
                if piece.finish_reason:
                    generation.end(index, said[index])
                yield piece


async def unanswered(count: int) -> AsyncGenerator[Piece, None]:
    """Answers of no tokens, for requests that want none."""
    for index in range(count):
        yield Piece(index, "", 0, "length")


async def answers(pieces: AsyncGenerator[Piece, None], count: int) -> list[Answer]:
    """The whole answers, one for each request."""
    whole = [Answer() for _ in range(count)]
    async for piece in pieces:
        whole[piece.index].add(piece)
    return whole


def _piece(index: int, events: Sequence[TokenEvent], stream: TextStream) -> Piece:
    text, tokens, reason, logprobs = "", 0, None, []
    for event in events:
        if event.token_id is not None:
            tokens += 1
            text += stream.push(event.token_id)
        if event.logprob:
            logprobs.append(event.logprob)
        reason = "stop" if stream.stopped else event.finish_reason
        if reason == "error":
            raise InputError("the output format costs too much to follow, or leads nowhere; simplify it")
        if reason:
            break
    if reason:
        text += stream.flush()
    return Piece(index, text, tokens, reason, logprobs, events[0].cached_tokens)
