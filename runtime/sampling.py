"""Choosing the next token, vectorised over the batch in numpy.

Each request brings its own random generator, and every row's arithmetic is the same whoever else is in the
batch, so what a request draws does not depend on its neighbours. What shapes the logits first is in
`runtime.penalties` and `runtime.constraint`.
The trade-off: a row with top-k or top-p looks at its best few tokens and at more only where their mass does
not suffice, because sorting a vocabulary of 150,000 takes longer than a decoding step of a small model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from runtime.errors import InputError
from runtime.processing import Array

# Below this a temperature is greedy: the quotients would leave float32's range.
GREEDY_TEMPERATURE = 1e-5
# How many of a row's best tokens are looked at first, and how many times more when they do not suffice.
FIRST_WIDTH, GROWTH = 64, 8
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


def sample(logits: Array, params: Sequence[SamplingParams], rngs: Sequence[np.random.Generator]) -> Array:
    """One token for each row of `logits` float32 [batch, vocabulary], as int64 [batch].

    A row that draws takes exactly one number from its generator, whatever it is cut down to.
    """
    tokens: Array = logits.argmax(-1)
    drawn = [row for row, row_params in enumerate(params) if not row_params.is_greedy]
    if drawn:
        uniform = np.array([rngs[row].random() for row in drawn])
        tokens[drawn] = _draw(logits[drawn], [params[row] for row in drawn], uniform)
    return tokens


@dataclass(slots=True)
class _Rows:
    """Rows to draw from. `scaled` float32 [rows, vocabulary] is (logits - best) / temperature."""

    scaled: Array
    top_k: Array
    top_p: Array
    min_p: Array
    uniform: Array

    def __getitem__(self, rows: Array) -> "_Rows":
        return _Rows(
            self.scaled[rows], self.top_k[rows], self.top_p[rows], self.min_p[rows], self.uniform[rows]
        )


def _draw(logits: Array, params: Sequence[SamplingParams], uniform: Array) -> Array:
    """Inverse-transform sampling from what top-k, top-p and min-p keep, applied in this order."""
    temperature = np.array([row.temperature for row in params], np.float32)[:, None]
    vocabulary = logits.shape[-1]
    rows = _Rows(
        scaled=(logits - logits.max(-1, keepdims=True)) / temperature,
        top_k=np.array([min(row.top_k, vocabulary) for row in params]),
        top_p=np.array([row.top_p for row in params]),
        min_p=np.array([row.min_p for row in params]),
        uniform=uniform,
    )
    cut = (rows.top_k > 0) | (rows.top_p < 1)
    tokens = np.empty(len(params), np.int64)
    if not cut.all():
        tokens[~cut] = _draw_from_all(rows[~cut])
    if cut.any():
        tokens[cut] = _draw_from_best(rows[cut])
    return tokens


def _draw_from_all(rows: _Rows) -> Array:
    weights = np.exp(rows.scaled)
    weights[weights < rows.min_p[:, None]] = 0
    return _invert(weights, rows.uniform)


def _draw_from_best(rows: _Rows) -> Array:
    """Each row looks at its `widths` best tokens; the width, and so each sum, follows from the row alone."""
    vocabulary = rows.scaled.shape[-1]
    widths = np.minimum(np.where(rows.top_k > 0, rows.top_k, FIRST_WIDTH), vocabulary)
    mass = np.where(rows.top_k > 0, 0.0, np.exp(rows.scaled).sum(-1, dtype=np.float64))
    tokens = np.full(len(widths), -1)
    while (pending := np.flatnonzero(tokens < 0)).size:
        width = int(widths[pending].min())
        group = pending[widths[pending] == width]
        tokens[group] = _draw_within(rows[group], mass[group], width)
        widths[group] = min(width * GROWTH, vocabulary)
    return tokens


def _draw_within(rows: _Rows, mass: Array, width: int) -> Array:
    """Tokens drawn from the `width` best of each row; -1 where the nucleus reaches beyond them.

    `mass` [rows] is the sum over the vocabulary, or 0 for a top-k row, which is its own whole.
    """
    best = _best(rows.scaled, width)
    weights = np.exp(np.take_along_axis(rows.scaled, best, -1).astype(np.float64))
    cumulative = weights.cumsum(-1)
    total = np.where(mass > 0, mass, cumulative[:, -1])
    nucleus = (rows.top_p * total)[:, None]
    enough = (rows.top_k > 0) | (cumulative[:, -1] >= nucleus[:, 0]) | (width == rows.scaled.shape[-1])
    # In the nucleus is what has less than top_p before it (Holtzman et al., 2020): the best always is.
    weights[cumulative - weights >= nucleus] = 0
    weights[weights < rows.min_p[:, None]] = 0
    chosen = np.take_along_axis(best, _invert(weights, rows.uniform)[:, None], -1)[:, 0]
    return np.where(enough, chosen, -1)


def _best(scores: Array, width: int) -> Array:
    """Indices of the `width` highest scores of each row, best first; of equals, the lower index first."""
    start = scores.shape[-1] - width
    found = np.argpartition(scores, start, -1)[:, start:] if start else np.argsort(scores, -1)
    found.sort(-1)
    order = np.argsort(-np.take_along_axis(scores, found, -1), -1, kind="stable")
    return np.take_along_axis(found, order, -1)


def _invert(weights: Array, uniform: Array) -> Array:
    """The index of each row where the running sum of `weights` [rows, n] passes `uniform` of the total."""
    cumulative = weights.cumsum(-1, dtype=np.float64)
    return np.asarray((cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(-1))


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InputError(message)
