"""Prompts to pieces of text: what every text dialect has in common.

It knows stop strings and how an answer ends, and nothing of any dialect's JSON.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from runtime.sampling import SamplingParams
from runtime.scheduler import FinishReason, TokenEvent
from runtime.text import TextStream
from service.engine import Engine
from service.generation import Generation
from service.pool import Pool


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that one event adds to the answer to prompt `index`; `tokens` is 1, or 0 for the end alone."""

    index: int
    text: str
    tokens: int
    finish_reason: FinishReason | None


@dataclass(slots=True)
class Answer:
    """A whole answer to one prompt."""

    text: str = ""
    tokens: int = 0
    finish_reason: FinishReason | None = None

    def add(self, piece: Piece) -> None:
        """Append the next piece."""
        self.text += piece.text
        self.tokens += piece.tokens
        self.finish_reason = piece.finish_reason


async def encode(pool: Pool, engine: Engine, prompts: Sequence[str | list[int]]) -> list[list[int]]:
    """Prompts as tokens; texts are tokenized in a thread, because one may be megabytes long."""

    def work() -> list[list[int]]:
        return [engine.model.encode(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]

    return await pool.run(work)


async def complete(
    engine: Engine, prompts: Sequence[list[int]], params: SamplingParams, stop: Sequence[str] = ()
) -> AsyncGenerator[Piece, None]:
    """Continue the prompts side by side, piece by piece. Closing the generator frees their slots."""
    streams = [engine.model.text_stream(stop) for _ in prompts]
    async with Generation(engine, prompts, params) as generation:
        async for index, event in generation:
            piece = _piece(index, event, streams[index])
            if piece.finish_reason and not event.finish_reason:
                generation.drop(index)
            yield piece


async def answers(pieces: AsyncGenerator[Piece, None], prompts: int) -> list[Answer]:
    """The whole answers, one for each prompt."""
    whole = [Answer() for _ in range(prompts)]
    async for piece in pieces:
        whole[piece.index].add(piece)
    return whole


def _piece(index: int, event: TokenEvent, stream: TextStream) -> Piece:
    tokens = 0 if event.token_id is None else 1
    text = "" if event.token_id is None else stream.push(event.token_id)
    if stream.stopped:
        return Piece(index, text, tokens, "stop")
    if event.finish_reason:
        text += stream.flush()
    return Piece(index, text, tokens, event.finish_reason)
