"""One HTTP request's share of an engine: the tokens of its prompts, and its hold on their slots."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

from runtime.errors import InputError
from runtime.scheduler import Request, TokenEvent
from service import context, metrics, shadow
from service.engine import Engine, Mailbox


@dataclass(slots=True)
class Generation:
    """Iterate for what has come since the last time: events by their prompt's index, one or more.

    Leaving the context frees the slots that are left. Whoever iterates says by `end` when an answer is whole.

    Entering raises TooBusy; iterating raises what the scheduler says of a prompt, or ModelFailed. Where
    `refused` is given, a prompt that can never be answered costs the others nothing: what is wrong with it
    stands there, by its index.
    """

    engine: Engine
    requests: Sequence[Request]
    refused: dict[int, InputError] | None = None
    _mailbox: Mailbox = field(default_factory=asyncio.Queue)
    _live: dict[str, int] = field(default_factory=dict)
    _started: float = 0.0
    # By index, the tokens that the shadow will read; empty where there is none.
    _said: dict[int, list[int]] = field(default_factory=dict)
    _error: Exception | None = None

    async def __aenter__(self) -> "Generation":
        ids = self.engine.admit(self.requests, self._mailbox)
        self._live = {request_id: index for index, request_id in enumerate(ids)}
        if context.text_shadow():
            self._said = {index: [] for index in self._live.values()}
        self._started = perf_counter()
        metrics.PROMPT_TOKENS.labels(self.engine.manifest.tag).inc(
            sum(len(request.prompt) for request in self.requests)
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, asyncio.CancelledError | GeneratorExit):
            metrics.CANCELLATIONS.labels(self.engine.manifest.tag).inc(len(self._live))
        for index in tuple(self._live.values()):
            self.drop(index)

    def __aiter__(self) -> "Generation":
        return self

    async def __anext__(self) -> dict[int, list[TokenEvent]]:
        while self._live and self._error is None:
            found: dict[int, list[TokenEvent]] = {}
            self._open(await self._mailbox.get(), found)
            while not self._mailbox.empty():
                self._open(self._mailbox.get_nowait(), found)
            if found:
                return found
        if self._error:
            raise self._error
        raise StopAsyncIteration

    def drop(self, index: int) -> None:
        """Let go of one prompt, unless its answer is over; the others go on."""
        if request_id := self._find(index):
            del self._live[request_id]
            self.engine.forget(request_id, finished=False)

    def end(self, index: int, tokens: int) -> None:
        """One answer is whole with its first `tokens`, though the model may say more; the others go on."""
        other = context.text_shadow()
        if other and index in self._said:
            prompt, said = self.requests[index].prompt, self._said.pop(index)
            shadow.follow_text(self.engine.manifest, other, prompt, said[:tokens])
        if request_id := self._find(index):
            del self._live[request_id]
            self.engine.end(request_id)

    def _find(self, index: int) -> str | None:
        """The request of a prompt that is being answered."""
        return next((request_id for request_id, at in self._live.items() if at == index), None)

    def _open(
        self, letter: list[TokenEvent] | tuple[str, Exception], found: dict[int, list[TokenEvent]]
    ) -> None:
        """Add a letter's events to those that were `found`, unless their prompt has been let go."""
        if isinstance(letter, tuple):
            self._note_error(*letter)
        elif self._error is None and (index := self._live.get(letter[0].request_id)) is not None:
            self._note(index, letter)
            found.setdefault(index, []).extend(letter)

    def _note_error(self, request_id: str, error: Exception) -> None:
        if self.refused is None or not isinstance(error, InputError):
            # What came before it is given first.
            self._error = self._error or error
        elif request_id in self._live:
            index = self._live[request_id]
            self.refused[index] = error
            self.drop(index)

    def _note(self, index: int, letter: list[TokenEvent]) -> None:
        first, last = letter[0], letter[-1]
        if first.is_first:
            waited = perf_counter() - self._started
            metrics.TIME_TO_FIRST_TOKEN.labels(self.engine.manifest.tag).observe(waited)
        if index in self._said:
            self._said[index] += [event.token_id for event in letter if event.token_id is not None]
        if last.finish_reason:
            del self._live[last.request_id]
            self.engine.forget(last.request_id, finished=True)
