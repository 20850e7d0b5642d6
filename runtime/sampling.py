"""Choosing the next token, vectorised over the batch in numpy.

Each request brings its own random generator, and every row's arithmetic is the same whoever else is in the
batch, so what a request draws does not depend on its neighbours. What shapes the logits first is in
`runtime.penalties` and `runtime.constraint`.
The trade-off: thresholds and sums by block instead of sorted indices and running sums, which for a vocabulary
of 150,000 take longer than a decoding step of a small model.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from runtime.errors import InputError
from runtime.processing import Array

# Below this a temperature is greedy: the quotients would leave float32's range.
GREEDY_TEMPERATURE = 1e-5
# How many of a row's best tokens are summed first, and how many times more where the nucleus reaches beyond.
FIRST_WIDTH, GROWTH = 1024, 8
# Tokens are drawn in two steps, first a block of so many.
BLOCK = 256
MAX_LOGPROBS = 20
MAX_BIAS = 100.0


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to continue a prompt. `temperature` 0 is greedy; `top_k` 0, `top_p` 1, `min_p` 0 keep all tokens.

    `repetition_penalty` looks at prompt and answer, `presence_penalty` and `frequency_penalty` at the answer.
    `logprobs` is how many of the likeliest tokens to report beside the chosen one (None: report nothing).
    `ignore_eos` goes on past the model's own end of text; `stop_token_ids` still end the answer.
    Raises InputError for a value outside its range.
    """

    max_tokens: int = 16
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        _require(self.max_tokens >= 1, f"max_tokens is {self.max_tokens}; it must be at least 1")
        _require(0 <= self.temperature <= 2, f"temperature is {self.temperature}; it must be from 0 to 2")
        _require(self.top_k >= 0, f"top_k is {self.top_k}; it must be 0 (off) or more")
        _require(0 < self.top_p <= 1, f"top_p is {self.top_p}; it must be above 0 and at most 1")
        _require(0 <= self.min_p <= 1, f"min_p is {self.min_p}; it must be from 0 to 1")
        _require(self.seed is None or self.seed >= 0, f"seed is {self.seed}; it must not be negative")
        _require(
            0 < self.repetition_penalty < float("inf"),
            f"repetition_penalty is {self.repetition_penalty}; it must be above 0 (1 is off)",
        )
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            _require(-2 <= value <= 2, f"{name} is {value}; it must be from -2 to 2")
        for token, bias in self.logit_bias.items():
            _require(
                abs(bias) <= MAX_BIAS, f"logit_bias of token {token} is {bias}; it must be from -100 to 100"
            )
        _require(
            self.logprobs is None or 0 <= self.logprobs <= MAX_LOGPROBS,
            f"logprobs is {self.logprobs}; it must be from 0 to {MAX_LOGPROBS}",
        )

    @property
    def is_greedy(self) -> bool:
        """Whether the best token is taken without drawing."""
        return self.temperature < GREEDY_TEMPERATURE


class Sampler:
    """Draws tokens. It keeps its working memory: fresh pages for each step cost more than the arithmetic."""

    def __init__(self) -> None:
        self._memory: dict[str, Array] = {}

    def sample(
        self, logits: Array, params: Sequence[SamplingParams], rngs: Sequence[np.random.Generator]
    ) -> Array:
        """One token for each row of `logits` float32 [batch, vocabulary], as int64 [batch].

        The logits are overwritten. A row that draws takes one number from its generator, whatever is cut off.
        """
        tokens: Array = logits.argmax(-1)
        drawn = [row for row, wish in enumerate(params) if not wish.is_greedy]
        if not drawn:
            return tokens
        uniform = np.array([rngs[row].random() for row in drawn])
        if len(drawn) < len(params):
            rows = self._scratch("rows", (len(drawn), logits.shape[-1]), logits.dtype)
            # Any other mode would buffer its output.
            logits, params = np.take(logits, drawn, 0, rows, "clip"), [params[row] for row in drawn]
        tokens[drawn] = self._draw(logits, params, uniform)
        return tokens

    def _draw(self, logits: Array, params: Sequence[SamplingParams], uniform: Array) -> Array:
        """Inverse-transform sampling from what top-k, top-p and min-p keep, applied in this order."""
        logits -= logits.max(-1, keepdims=True)
        logits /= np.array([wish.temperature for wish in params], np.float32)[:, None]
        weights = np.exp(logits, out=logits)  # 1 for the best token
        if any(wish.top_k or wish.top_p < 1 for wish in params):
            self._cut(weights, params)
        if any(wish.min_p for wish in params):
            self._keep(weights, np.array([wish.min_p for wish in params], np.float32)[:, None])
        return _invert(weights, uniform)

    def _cut(self, weights: Array, params: Sequence[SamplingParams]) -> None:
        """Set to 0 what top-k and then top-p cut off; of equals, the lower index is kept first.

        Sorting values is vectorised and cheap, sorting indices is not: so by a threshold and a count.
        """
        rising = self._scratch("sorted", weights.shape, weights.dtype)
        np.copyto(rising, weights)
        rising.sort(-1)
        count = _count(rising[:, ::-1], weights.sum(-1, dtype=np.float64), params)
        threshold = np.take_along_axis(rising, weights.shape[-1] - count[:, None], -1)
        surplus = np.count_nonzero(self._keep(weights, threshold), -1) - count
        for row in np.flatnonzero(surplus > 0):
            tied = np.flatnonzero(weights[row] == threshold[row])
            weights[row, tied[-surplus[row] :]] = 0

    def _keep(self, weights: Array, threshold: Array) -> Array:
        """Set to 0 what is below `threshold` [rows, 1]; which ones are not."""
        kept = np.greater_equal(weights, threshold, out=self._scratch("kept", weights.shape, np.dtype(bool)))
        weights *= kept
        return kept

    def _scratch(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        size = math.prod(shape)
        if name not in self._memory or self._memory[name].size < size:
            self._memory[name] = np.empty(size, dtype)
        return self._memory[name][:size].reshape(shape)


def _count(best: Array, mass: Array, params: Sequence[SamplingParams]) -> Array:
    """How many of its `best` weights, in falling order, each row keeps; `mass` [rows] is the sum of all."""
    vocabulary = best.shape[-1]
    top_k = np.array([min(wish.top_k or vocabulary, vocabulary) for wish in params])
    top_p = np.array([wish.top_p for wish in params])
    width = min(vocabulary, max(FIRST_WIDTH, *(wish.top_k for wish in params)))
    while True:
        cumulative = best[:, :width].cumsum(-1, dtype=np.float64)
        inside = np.minimum(top_k, width)
        total = np.where(top_k < vocabulary, cumulative[np.arange(len(best)), inside - 1], mass)
        # In the nucleus is what has less than top_p before it (Holtzman et al., 2020): the best always is.
        nucleus = 1 + (cumulative[:, :-1] < (top_p * total)[:, None]).sum(-1)
        if width == vocabulary or not ((nucleus == width) & (top_k > width) & (top_p < 1)).any():
            return np.where(top_p < 1, np.minimum(nucleus, top_k), top_k)
        width = min(vocabulary, GROWTH * width)


def _invert(weights: Array, uniform: Array) -> Array:
    """The index of each row where the running sum of `weights` [rows, n] passes `uniform` of the total.

    First the block, then the place in it, because a running sum over a whole vocabulary is slow.
    """
    rows, size = weights.shape
    sums = np.add.reduceat(weights, np.arange(0, size, BLOCK), -1, dtype=np.float64).cumsum(-1)
    target = uniform * sums[:, -1]
    block = np.minimum((sums <= target[:, None]).sum(-1), sums.shape[-1] - 1)
    before = np.where(block > 0, sums[np.arange(rows), block - 1], 0.0)
    places = block[:, None] * BLOCK + np.arange(BLOCK)
    inside = np.take_along_axis(weights, np.minimum(places, size - 1), -1) * (places < size)
    running = inside.cumsum(-1, dtype=np.float64)
    # The block's sum was rounded differently: stay below what its running sum reaches.
    target = np.minimum(target - before, running[:, -1] * (1 - 1e-12))
    return np.asarray(block * BLOCK + (running <= target[:, None]).sum(-1))


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InputError(message)
