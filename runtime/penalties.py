"""What a request's own history and wishes do to its logits: penalties and logit bias.

Only rows that ask for something are touched, and only at the tokens concerned.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from runtime.processing import Array
from runtime.sampling import SamplingParams


@dataclass(slots=True)
class TokenCounts:
    """The tokens a request has seen: which ones its prompt holds, how often its answer has each."""

    prompt: Array
    answer: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, prompt: Sequence[int]) -> "TokenCounts":
        """The counts before the first token of the answer."""
        return cls(np.unique(np.asarray(prompt, np.int64)))

    def note(self, token: int) -> None:
        """Count one more token of the answer."""
        self.answer[token] = self.answer.get(token, 0) + 1


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
            _bias(logits[index], wish)


def _repetition(row: Array, penalty: float, seen: TokenCounts) -> None:
    tokens = np.union1d(seen.prompt, np.fromiter(seen.answer, np.int64, len(seen.answer)))
    values = row[tokens]
    row[tokens] = np.where(values > 0, values / penalty, values * penalty)


def _presence_and_frequency(row: Array, wish: SamplingParams, seen: TokenCounts) -> None:
    tokens = np.fromiter(seen.answer.keys(), np.int64, len(seen.answer))
    times = np.fromiter(seen.answer.values(), np.float32, len(seen.answer))
    row[tokens] -= wish.presence_penalty + wish.frequency_penalty * times


def _bias(row: Array, wish: SamplingParams) -> None:
    tokens = np.fromiter(wish.logit_bias.keys(), np.int64, len(wish.logit_bias))
    row[tokens] += np.fromiter(wish.logit_bias.values(), np.float32, len(wish.logit_bias))
