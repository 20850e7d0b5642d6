"""Continuous batching: sequences join and leave a running batch between any two steps.

State is a queue and a list; the verbs are `add`, `step` and `cancel`. No I/O, no threads, no text: one owner
calls it in a loop. A sequence's slot is its place in `running`, so the decoder's rows stay dense.
The trade-off: at most one prompt is prefilled a step, which bounds how long it holds up the others' next
token and makes a burst of prompts wait its turn.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from runtime.decoder import Decoder
from runtime.errors import InputError, PromptTooLong
from runtime.logprobs import TokenLogprob, logprobs
from runtime.penalties import TokenCounts, penalize
from runtime.processing import Array
from runtime.request import FinishReason, Request, SchedulerStatistics, TokenEvent
from runtime.sampling import sample

__all__ = ["FinishReason", "Request", "Scheduler", "SchedulerStatistics", "TokenEvent", "TokenLogprob"]


@dataclass(slots=True)
class _Sequence:
    request: Request
    rng: np.random.Generator
    counts: TokenCounts
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

    @property
    def statistics(self) -> SchedulerStatistics:
        """What the scheduler holds now, and what it has counted."""
        return SchedulerStatistics(
            running=self.running,
            waiting=self.waiting,
            kv_tokens_used=int(self.decoder.lengths.sum()),
            kv_tokens_capacity=self.decoder.slots * self.decoder.graph.context_length,
        )

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
        if not all(0 <= token < graph.vocab_size for token in request.params.logit_bias):
            raise InputError(f"a token of logit_bias is outside the vocabulary of {graph.vocab_size}")
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
        rng = np.random.default_rng(request.params.seed)
        self._running.append(_Sequence(request, rng, TokenCounts.of(request.prompt)))
        return self._extend(slot, logits[None])

    def _decode(self) -> list[TokenEvent]:
        logits = self.decoder.decode(np.array([sequence.tokens[-1] for sequence in self._running]))
        return self._extend(0, logits)

    def _extend(self, first: int, logits: Array) -> list[TokenEvent]:
        """Sample a token for each sequence from slot `first` on, and retire those that end."""
        sequences = self._running[first:]
        raw = logits.copy() if any(s.request.params.logprobs is not None for s in sequences) else logits
        tokens = self._sample(logits, sequences)
        reports = _report(raw, tokens, sequences)
        events = [self._append(*row) for row in zip(sequences, tokens.tolist(), reports, strict=True)]
        # From the back, so that a slot moved into a gap is one that has been looked at.
        for offset in reversed(range(len(events))):
            if events[offset].finish_reason:
                self._free(first + offset)
        return events

    def _sample(self, logits: Array, sequences: list[_Sequence]) -> Array:
        params = [sequence.request.params for sequence in sequences]
        penalize(logits, params, [sequence.counts for sequence in sequences])
        for row, sequence in zip(logits, sequences, strict=True):
            if sequence.request.constraint:
                sequence.request.constraint.mask(row)
        return sample(logits, params, [sequence.rng for sequence in sequences])

    def _append(self, sequence: _Sequence, token: int, logprob: TokenLogprob | None) -> TokenEvent:
        request = sequence.request
        if token in request.params.stop_token_ids or (
            token in self._eos_ids and not request.params.ignore_eos
        ):
            return TokenEvent(request.id, None, "stop")
        sequence.tokens.append(token)
        sequence.counts.note(token)
        return TokenEvent(request.id, token, self._finish_reason(sequence, token), logprob)

    def _finish_reason(self, sequence: _Sequence, token: int) -> FinishReason | None:
        request = sequence.request
        if request.constraint:
            request.constraint.advance(token)
            if request.constraint.is_complete:
                return "stop"
        length = len(request.prompt) + len(sequence.tokens)
        # The token just sampled is not in the cache yet: it needs one more place to be decoded from.
        full = len(sequence.tokens) >= request.params.max_tokens or length > self.decoder.graph.context_length
        return "length" if full else None

    def _free(self, slot: int) -> None:
        last = len(self._running) - 1
        if slot != last:
            self.decoder.move(last, slot)
            self._running[slot] = self._running[last]
        self._running.pop()
        self.decoder.release(last)


def _report(logits: Array, tokens: Array, sequences: list[_Sequence]) -> list[TokenLogprob | None]:
    """A report for each row whose request asks for one."""
    asked = [row for row, s in enumerate(sequences) if s.request.params.logprobs is not None]
    reports: list[TokenLogprob | None] = [None] * len(sequences)
    if asked:
        tops = [sequences[row].request.params.logprobs or 0 for row in asked]
        for row, report in zip(asked, logprobs(logits[asked], tokens[asked], tops), strict=True):
            reports[row] = report
    return reports
