"""Choosing the next token, vectorised over the batch in numpy.

Each request brings its own random generator, so what it draws does not depend on who else is in the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtime.errors import InputError
from runtime.processing import Array


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to continue a prompt. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 keep every token.

    Raises InputError for a value outside its range.
    """

    max_tokens: int = 16
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        _require(self.max_tokens >= 1, f"max_tokens is {self.max_tokens}; it must be at least 1")
        _require(0 <= self.temperature <= 2, f"temperature is {self.temperature}; it must be from 0 to 2")
        _require(self.top_k >= 0, f"top_k is {self.top_k}; it must be 0 (off) or more")
        _require(0 < self.top_p <= 1, f"top_p is {self.top_p}; it must be above 0 and at most 1")
        _require(self.seed is None or self.seed >= 0, f"seed is {self.seed}; it must not be negative")


def sample(logits: Array, params: Sequence[SamplingParams], rngs: Sequence[np.random.Generator]) -> Array:
    """One token for each row of `logits` float32 [batch, vocabulary], as int64 [batch]."""
    tokens: Array = logits.argmax(-1)
    drawn = [row for row, row_params in enumerate(params) if row_params.temperature > 0]
    if drawn:
        uniform = np.array([rngs[row].random() for row in drawn])
        tokens[drawn] = _draw(logits[drawn], [params[row] for row in drawn], uniform)
    return tokens


def _draw(logits: Array, params: Sequence[SamplingParams], uniform: Array) -> Array:
    """Inverse-transform sampling over the tokens that top-k and top-p keep (Holtzman et al., 2020)."""
    temperature = np.array([row.temperature for row in params])[:, None]
    order = np.argsort(-logits, axis=-1, kind="stable")
    scaled = np.take_along_axis(logits, order, -1).astype(np.float64) / temperature
    probabilities = np.exp(scaled - scaled[:, :1])
    probabilities[np.arange(logits.shape[-1]) >= _top_k(params, logits.shape[-1])] = 0
    probabilities /= probabilities.sum(-1, keepdims=True)
    # A token is in the nucleus while the mass before it is below top_p, so the best one always is.
    before = probabilities.cumsum(-1) - probabilities
    probabilities[before >= np.array([row.top_p for row in params])[:, None]] = 0
    cumulative = probabilities.cumsum(-1)
    choice = (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(-1)
    return np.asarray(np.take_along_axis(order, choice[:, None], -1)[:, 0])


def _top_k(params: Sequence[SamplingParams], vocabulary: int) -> Array:
    return np.array([row.top_k or vocabulary for row in params])[:, None]


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InputError(message)
