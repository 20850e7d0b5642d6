"""Continuous batching: sequences join and leave a running batch between any two steps.

State is a queue and a list; the verbs are `add`, `step` and `cancel`. No I/O, no threads, no text: one owner
calls it in a loop. A sequence's slot is its place in `running`, so the decoder's rows stay dense.
The trade-off: at most one prompt is prefilled a step, which bounds how long it holds up the others' next
token and makes a burst of prompts wait its turn.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from runtime.decoder import Decoder
from runtime.errors import InputError, PromptTooLong
from runtime.processing import Array
from runtime.sampling import SamplingParams, sample

FinishReason = Literal["stop", "length"]


@dataclass(slots=True)
class Request:
    """A prompt as tokens, and how to continue it. `id` is the caller's, unique among live requests."""

    id: str
    prompt: list[int]
    params: SamplingParams


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One new token of one request; the last one carries the reason. An end-of-text token is not shown."""

    request_id: str
    token_id: int | None
    finish_reason: FinishReason | None = None


@dataclass(slots=True)
class _Sequence:
    request: Request
    rng: np.random.Generator
    tokens: list[int] = field(default_factory=list)


class Scheduler:
    """Requests in, token events out, over one decoder."""

    def __init__(self, decoder: Decoder, eos_ids: tuple[int, ...] = ()) -> None:
        self.decoder = decoder
        self._eos_ids = frozenset(eos_ids)
        self._waiting: deque[Request] = deque()
        self._running: list[_Sequence] = []

    @property
    def running(self) -> int:
        """How many sequences hold a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many requests wait for one."""
        return len(self._waiting)

    @property
    def has_work(self) -> bool:
        """Whether `step` has anything to do."""
        return bool(self._running or self._waiting)

    def add(self, request: Request) -> None:
        """Queue a request. Raises PromptTooLong or InputError for a prompt that can never run."""
        graph = self.decoder.graph
        if not request.prompt:
            raise InputError("the prompt is empty; send at least one token")
        if len(request.prompt) >= graph.context_length:
            raise PromptTooLong(
                f"the prompt has {len(request.prompt)} tokens and the context holds {graph.context_length} "
                f"with the answer; shorten it to at most {graph.context_length - 1}"
            )
        if not all(0 <= token < graph.vocab_size for token in request.prompt):
            raise InputError(f"a prompt token is outside the vocabulary of {graph.vocab_size}")
        self._waiting.append(request)

    def step(self) -> list[TokenEvent]:
        """Decode one token for every running sequence, then admit at most one that waits."""
        events = self._decode() if self._running else []
        if self._waiting and len(self._running) < self.decoder.slots:
            events += self._admit(self._waiting.popleft())
        return events

    def cancel(self, request_id: str) -> None:
        """Forget a request and free its slot at once. Unknown ids are ignored: it may just have ended."""
        self._waiting = deque(request for request in self._waiting if request.id != request_id)
        for slot, sequence in enumerate(self._running):
            if sequence.request.id == request_id:
                self._free(slot)
                return

    def _admit(self, request: Request) -> list[TokenEvent]:
        slot = len(self._running)
        logits = self.decoder.prefill(slot, np.array(request.prompt))
        self._running.append(_Sequence(request, np.random.default_rng(request.params.seed)))
        return self._extend(slot, logits[None])

    def _decode(self) -> list[TokenEvent]:
        logits = self.decoder.decode(np.array([sequence.tokens[-1] for sequence in self._running]))
        return self._extend(0, logits)

    def _extend(self, first: int, logits: Array) -> list[TokenEvent]:
        """Sample a token for each sequence from slot `first` on, and retire those that end."""
        sequences = self._running[first:]
        params = [sequence.request.params for sequence in sequences]
        tokens = sample(logits, params, [sequence.rng for sequence in sequences])
        events = [self._append(*pair) for pair in zip(sequences, tokens.tolist(), strict=True)]
        # From the back, so that a slot moved into a gap is one that has been looked at.
        for offset in reversed(range(len(events))):
            if events[offset].finish_reason:
                self._free(first + offset)
        return events

    def _append(self, sequence: _Sequence, token: int) -> TokenEvent:
        request = sequence.request
        if token in self._eos_ids:
            return TokenEvent(request.id, None, "stop")
        sequence.tokens.append(token)
        length = len(request.prompt) + len(sequence.tokens)
        # The token just sampled is not in the cache yet: it needs one more place to be decoded from.
        full = len(sequence.tokens) >= request.params.max_tokens or length > self.decoder.graph.context_length
        return TokenEvent(request.id, token, "length" if full else None)

    def _free(self, slot: int) -> None:
        last = len(self._running) - 1
        if slot != last:
            self.decoder.move(last, slot)
            self._running[slot] = self._running[last]
        self._running.pop()
        self.decoder.release(last)
