"""One request on its way: its tokens so far, and everything that must outlive a preemption.

It knows when an answer ends, and nothing of slots, batches or other requests.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from runtime.adapters import Adapter
from runtime.logprobs import TokenLogprob
from runtime.penalties import TokenCounts
from runtime.prefix_cache import PrefixKeys
from runtime.request import FinishReason, Request, TokenEvent


@dataclass(slots=True, eq=False)
class Sequence:
    """A request's `tokens`: the prompt and, as it grows, the answer. The last one is not in the KV cache yet.

    `adapter` stays the one that the request named when it came, whatever is loaded by that name later.
    `start_ids`: what a decoder begins with when the prompt is the source of its encoder.
    `arrival` orders requests of equal priority and stays when a sequence is preempted and comes back.
    """

    request: Request
    arrival: int
    adapter: Adapter | None = None
    start_ids: tuple[int, ...] = ()
    rng: np.random.Generator = field(init=False)
    counts: TokenCounts = field(init=False)
    stops: frozenset[int] = field(init=False)
    keys: PrefixKeys = field(init=False)
    tokens: list[int] = field(init=False)
    cached_tokens: int = 0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.request.params.seed)
        self.tokens = list(self.start_ids or self.request.prompt)
        self.counts = TokenCounts.of(self.tokens)
        self.stops = frozenset(self.request.params.stop_token_ids)
        self.keys = PrefixKeys(self.request.salt, self.adapter.identity if self.adapter else None)

    @property
    def rank(self) -> tuple[int, int]:
        """Lower runs first and is preempted last."""
        return self.request.priority, self.arrival

    @property
    def answer_length(self) -> int:
        """How many tokens have been generated."""
        return len(self.tokens) - (len(self.start_ids) or len(self.request.prompt))

    @property
    def source(self) -> list[int]:
        """What an encoder reads: the prompt, where the answer begins after `start_ids`; else nothing."""
        return self.request.prompt if self.start_ids else []

    def extend(
        self, token: int, logprob: TokenLogprob | None, eos_ids: Collection[int], limit: int
    ) -> TokenEvent:
        """Take the token that was chosen. `limit` is how many tokens a sequence may have in the cache."""
        first = not self.answer_length
        cached = self.cached_tokens if first else 0
        if self.request.constraint and self.request.constraint.has_failed:
            return TokenEvent(self.request.id, None, "error", None, cached, first)
        if token in self.stops or (token in eos_ids and not self.request.params.ignore_eos):
            return TokenEvent(self.request.id, None, "stop", None, cached, first)
        self.tokens.append(token)
        self.counts.note(token)
        reason = self._finish_reason(token, limit)
        return TokenEvent(self.request.id, token, reason, logprob, cached, first)

    def _finish_reason(self, token: int, limit: int) -> FinishReason | None:
        if constraint := self.request.constraint:
            constraint.advance(token)
            if constraint.has_failed:
                return "error"
            if constraint.is_complete:
                return "stop"
        full = self.answer_length >= self.request.params.max_tokens or len(self.tokens) > limit
        return "length" if full else None
