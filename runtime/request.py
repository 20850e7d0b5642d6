"""What goes into a scheduler and what comes out: requests, token events, figures."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from runtime.constraint import Constraint
from runtime.errors import InputError
from runtime.logprobs import TokenLogprob
from runtime.sampling import SamplingParams

# `error`: the form that was asked for cannot be followed any further.
FinishReason = Literal["stop", "length", "error"]


@dataclass(slots=True)
class Request:
    """A prompt as tokens, and how to continue it. `id` is the caller's, unique among live requests.

    Lower `priority` runs first; equals in order of arrival. Only requests with the same `salt` and `adapter`
    share prompt prefixes, so that nobody can tell from the time taken what another tenant has asked.
    """

    id: str
    prompt: list[int]
    params: SamplingParams
    priority: int = 0
    constraint: Constraint | None = None
    adapter: str | None = None
    salt: str = ""


def check_tokens(prompt: Iterable[int], vocabulary: int) -> None:
    """Raise InputError for a token that does not exist."""
    if not all(0 <= token < vocabulary for token in prompt):
        raise InputError(f"a prompt token is outside the vocabulary of {vocabulary}")


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One new token of one request; the last one carries the reason. An end-of-text token is not shown.

    `cached_tokens`, on a request's first event: how much of its prompt came from the prefix cache.
    """

    request_id: str
    token_id: int | None
    finish_reason: FinishReason | None = None
    logprob: TokenLogprob | None = None
    cached_tokens: int = 0
    is_first: bool = False


@dataclass(frozen=True, slots=True)
class SchedulerStatistics:
    """A scheduler's state, and below `kv_tokens_capacity` what it has counted since it was made."""

    running: int
    waiting: int
    kv_tokens_used: int
    kv_tokens_capacity: int
    prefix_hit_tokens: int = 0
    prefix_query_tokens: int = 0
    preemptions: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0
    # How many calls ran on each graph, by its file: on which, depends on a call's size and adapters.
    graph_calls: Mapping[str, int] = field(default_factory=dict)
