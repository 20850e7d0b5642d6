"""What a request's own history and wishes do to its logits: penalties and logit bias.

Only rows that ask for something are touched, and only at the tokens concerned. What does not change from
one token to the next is kept: a long prompt's tokens are not sorted, nor a long bias read, for each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from runtime.processing import Array
from runtime.sampling import SamplingParams


@dataclass(slots=True)
class TokenCounts:
    """The tokens a request has seen: which ones its prompt holds, how often its answer has each."""

    prompt: Array
    answer: dict[int, int] = field(default_factory=dict)
    # Both of them once each, with so many of the answer's; and the bias of the request's wishes.
    _seen: tuple[Array, int] | None = None
    _bias: tuple[Array, Array] | None = None

    @classmethod
    def of(cls, prompt: Sequence[int]) -> "TokenCounts":
        """The counts before the first token of the answer."""
        return cls(np.unique(np.asarray(prompt, np.int64)))

    def note(self, token: int) -> None:
        """Count one more token of the answer."""
        self.answer[token] = self.answer.get(token, 0) + 1

    def seen(self) -> Array:
        """The tokens of prompt and answer, each once, int64 [tokens]."""
        seen, known = self._seen or (self.prompt, 0)
        new = np.fromiter(islice(self.answer, known, None), np.int64)
        if new.size and self.prompt.size:
            # Found in a sorted array, or not, by where it would stand.
            places = np.minimum(self.prompt.searchsorted(new), self.prompt.size - 1)
            new = new[self.prompt[places] != new]
        self._seen = (np.concatenate([seen, new]) if new.size else seen), len(self.answer)
        return self._seen[0]

    def bias(self, wish: SamplingParams) -> tuple[Array, Array]:
        """The tokens of the request's logit bias, int64, and what is added to each, float32."""
        if self._bias is None:
            size, wanted = len(wish.logit_bias), wish.logit_bias
            values = np.fromiter(wanted.values(), np.float32, size)
            self._bias = np.fromiter(wanted.keys(), np.int64, size), values
        return self._bias


def penalize(logits: Array, params: Sequence[SamplingParams], counts: Sequence[TokenCounts]) -> None:
    """Change `logits` float32 [batch, vocabulary] in place: penalties, then bias.

    Repetition divides positive logits and multiplies negative ones (Keskar et al., 2019, arXiv:1909.05858);
    presence and frequency subtract, as OpenAI's API defines them.
    """
    for index, (wish, seen) in enumerate(zip(params, counts, strict=True)):
        if wish.repetition_penalty != 1:
            _repetition(logits[index], wish.repetition_penalty, seen)
        if (wish.presence_penalty or wish.frequency_penalty) and seen.answer:
            _presence_and_frequency(logits[index], wish, seen)
        if wish.logit_bias:
            tokens, values = seen.bias(wish)
            logits[index, tokens] += values


def _repetition(row: Array, penalty: float, seen: TokenCounts) -> None:
    tokens = seen.seen()
    values = row[tokens]
    row[tokens] = np.where(values > 0, values / penalty, values * penalty)


def _presence_and_frequency(row: Array, wish: SamplingParams, seen: TokenCounts) -> None:
    tokens = np.fromiter(seen.answer.keys(), np.int64, len(seen.answer))
    times = np.fromiter(seen.answer.values(), np.float32, len(seen.answer))
    row[tokens] -= wish.presence_penalty + wish.frequency_penalty * times
