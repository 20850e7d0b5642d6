"""Log-probabilities of the tokens that were chosen, for the requests that ask.

They are the model's own: of the logits before penalties, constraints and temperature, as vLLM reports them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtime.processing import Array


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A chosen token's log-probability; `top` has the likeliest tokens and theirs, best first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def logprobs(logits: Array, tokens: Array, tops: Sequence[int]) -> list[TokenLogprob]:
    """For each row of `logits` float32 [rows, vocabulary]: its token's, and its `tops` likeliest."""
    values = logits - logits.max(-1, keepdims=True)
    values -= np.log(np.exp(values).sum(-1, keepdims=True, dtype=np.float64)).astype(np.float32)
    return [
        TokenLogprob(token, float(row[token]), _likeliest(row, top))
        for row, token, top in zip(values, tokens.tolist(), tops, strict=True)
    ]


def _likeliest(row: Array, count: int) -> tuple[tuple[int, float], ...]:
    count = min(count, len(row))
    if not count:
        return ()
    found = np.argpartition(row, len(row) - count)[len(row) - count :]
    ordered = found[np.argsort(-row[found], kind="stable")]
    return tuple(zip(ordered.tolist(), row[ordered].tolist(), strict=True))
