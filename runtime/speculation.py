"""Speculative decoding: something cheap proposes the next tokens, the model checks them all in one call.

A proposed token is kept only where the model, sampling as it would have anyway, chooses the same one; so
greedy and seeded answers are those of plain decoding, whatever is proposed (the price: a sampled answer
accepts less than by rejection sampling, Leviathan et al., 2023). Proposers know nothing of requests.
onnxruntime's CPU kernel checks several tokens of one row only, so this is for one running sequence, where a
model is slowest and speculation pays most.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from runtime.decoder import Decoder
from runtime.processing import Array

# A proposal grows while all of it is accepted and shrinks to what was.
FIRST_LENGTH, MAX_LENGTH = 4, 8
# A draft reads so many tokens a step: who comes meanwhile waits no longer, and attention takes memory for
# each of them times all before.
READ_TOKENS = 128
# Of every PERIOD steps, both ways of decoding get TRIAL_STEPS; a pace is that of the last REMEMBERED_STEPS.
# Until so many are known a period is shorter, because the first steps of each length bind their tensors.
PERIOD, FIRST_PERIOD, TRIAL_STEPS, REMEMBERED_STEPS = 128, 24, 4, 32


class Proposer(Protocol):
    """Guesses how tokens go on."""

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        """At most `count` tokens that may follow; none where it has no idea."""
        ...


class PromptLookup:
    """What followed the last few tokens when they occurred before (Saxena, 2023, prompt lookup decoding).

    It needs no model; it helps where answers repeat their prompt, as edits, summaries and code do.
    """

    def __init__(self, longest: int = 4, shortest: int = 2) -> None:
        self._sizes = range(longest, shortest - 1, -1)
        self._seen: dict[tuple[int, ...], int] = {}
        self._tokens: list[int] = []

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        """The continuation of the most recent, longest match."""
        self._index(tokens)
        for size in self._sizes:
            after = self._seen.get(tuple(tokens[-size:]))
            if after is not None:
                return list(tokens[after : after + count])
        return []

    def _index(self, tokens: Sequence[int]) -> None:
        """Note where each n-gram ends, but for those at the very end, which nothing follows yet."""
        known = len(self._tokens)
        if self._tokens != list(tokens[:known]):
            self._seen.clear()
            known = 0
        for end in range(max(known, 1), len(tokens)):
            for size in self._sizes:
                if size <= end:
                    self._seen[tuple(tokens[end - size : end])] = end
        self._tokens = list(tokens)


class NGramDraft:
    """What follows the last few tokens most often in a text such as the model was trained on.

    It proposes in microseconds and knows its language, where `PromptLookup` knows only the prompt. The
    trade-off: 12 bytes for each context that the text has twice, of 3, 2 or 1 tokens.
    """

    def __init__(self, text: Array, vocab_size: int, longest: int = 3) -> None:
        """`text`: the tokens, int [length]. Takes about half a second for each million."""
        self._vocab_size = vocab_size
        # A context and what follows it are one 64-bit number: of large vocabularies, fewer tokens.
        longest = max(1, min(longest, int(63 / math.log2(vocab_size)) - 1))
        self._tables = [(size, *_commonest(text, vocab_size, size)) for size in range(longest, 0, -1)]

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        """The commonest token after the longest known context, and so on from there."""
        known = list(tokens[-self._tables[0][0] :])
        start = len(known)
        while len(known) < start + count and (token := self._next(known)) is not None:
            known.append(token)
        return known[start:]

    def _next(self, tokens: Sequence[int]) -> int | None:
        for size, contexts, followers in self._tables:
            if size <= len(tokens):
                context = _number(tokens[-size:], self._vocab_size)
                at = int(contexts.searchsorted(context))
                if at < len(contexts) and contexts[at] == context:
                    return int(followers[at])
        return None


class FirstOf:
    """Of several proposers, the first that has an idea."""

    def __init__(self, *proposers: Proposer) -> None:
        self._proposers = proposers

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        """What that one proposes; none where none has an idea."""
        found = (each.propose(tokens, count) for each in self._proposers)
        return next((proposed for proposed in found if proposed), [])


def _commonest(text: Array, vocab_size: int, size: int) -> tuple[Array, Array]:
    """Contexts of `size` tokens, numbered and rising, that occur twice; the commonest token after each."""
    text = np.asarray(text, np.int64)
    ends = len(text) - size
    if ends < 1:
        return np.zeros(0, np.int64), np.zeros(0, np.int32)
    pairs = _number([text[at : at + ends] for at in range(size + 1)], vocab_size)
    pairs, counts = np.unique(pairs, return_counts=True)
    # Of tokens that are as common, the lowest: the sort is stable and the pairs are rising.
    order = np.lexsort((-counts, pairs // vocab_size))
    contexts, starts = np.unique(pairs[order] // vocab_size, return_index=True)
    often = np.add.reduceat(counts[order], starts) > 1
    return contexts[often], (pairs[order] % vocab_size)[starts][often].astype(np.int32)


def _number(tokens: Sequence[Any], vocab_size: int) -> Any:
    """Tokens, or arrays of them, as the digits of one number."""
    number = tokens[0]
    for token in tokens[1:]:
        number = number * vocab_size + token
    return number


class DraftModel:
    """A smaller decoder with the same tokenizer, with a one-slot cache of its own. It proposes greedily.

    `vocab_size` is the target's. Models of one tokenizer may fill their tables up to different sizes: a token
    that only one of the two has is neither read nor proposed.
    """

    def __init__(self, decoder: Decoder, vocab_size: int | None = None, chunk: int = READ_TOKENS) -> None:
        self._decoder = decoder
        self._chunk = chunk
        self._vocab_size = min(decoder.graph.vocab_size, vocab_size or decoder.graph.vocab_size)
        self._tokens: list[int] = []

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        """The draft's own continuation, as far as its context reaches; none while it still has to read."""
        count = min(count, self._decoder.graph.context_length - len(tokens))
        shared = _shared(self._tokens, tokens[:-1])
        if count < 1 or max(tokens[shared:]) >= self._vocab_size:
            return []
        self._decoder.rewind(0, shared)
        read = tokens[: shared + self._chunk]
        logits = self._decoder.prefill(0, np.asarray(read[shared:]))
        proposed = [self._best(logits)] if len(read) == len(tokens) else []
        while 0 < len(proposed) < count:
            proposed.append(self._best(self._decoder.decode(np.array(proposed[-1:]))[0]))
        self._tokens = [*read, *proposed[:-1]]
        return proposed

    def _best(self, logits: Array) -> int:
        return int(logits[: self._vocab_size].argmax())


class Speculation:
    """A proposer with the sense to stop: how much to propose, and whether proposing pays at all.

    It compares the time per token of both ways of decoding as they happen. Each gets a few steps of every
    period, because what pays changes with the text; the rest goes to the faster one.
    """

    def __init__(self, proposer: Proposer, clock: Callable[[], float] = time.perf_counter) -> None:
        self.draft_tokens = 0
        self.accepted_tokens = 0
        self._proposer = proposer
        self._length = FIRST_LENGTH
        self._turn = 0
        self._asked = False
        self._clock, self._started = clock, 0.0
        self._speculative, self._plain = _Pace(), _Pace()

    def propose(self, tokens: Sequence[int], room: int) -> list[int]:
        """Tokens to verify, at most `room`; none where plain decoding is faster. Starts the clock."""
        self._started = self._clock()
        count = min(self._length, room)
        self._asked = count > 0 and self._is_worth_it()
        return self._proposer.propose(tokens, count) if self._asked else []

    def note(self, proposed: int, produced: int) -> None:
        """Say how many tokens were proposed and how many the step produced. Stops the clock."""
        # The first step of a period is left out: in it a draft reads all that was decoded without it. So is
        # one without a proposal from who was asked, and may have read a part of a prompt.
        if self._turn != 1 and (proposed or not self._asked):
            pace = self._speculative if proposed else self._plain
            pace.note(self._clock() - self._started, produced)
        if proposed:
            self.draft_tokens += proposed
            self.accepted_tokens += produced - 1
            self._length = min(2 * self._length, MAX_LENGTH) if produced > proposed else produced

    def _is_worth_it(self) -> bool:
        turn = self._turn
        self._turn = (turn + 1) % (PERIOD if self._speculative.is_known else FIRST_PERIOD)
        if turn < 2 * TRIAL_STEPS:
            return turn < TRIAL_STEPS
        return self._speculative.seconds_per_token <= self._plain.seconds_per_token


class _Pace:
    """How fast the last few steps of one kind went."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, int]] = deque(maxlen=REMEMBERED_STEPS)

    def note(self, seconds: float, tokens: int) -> None:
        self._steps.append((seconds, tokens))

    @property
    def is_known(self) -> bool:
        """Whether enough steps have been seen for the first ones not to matter."""
        return len(self._steps) == REMEMBERED_STEPS

    @property
    def seconds_per_token(self) -> float:
        """Of all steps together. On busy cores a median would say that long steps are always interrupted."""
        seconds, tokens = (sum(each) for each in zip(*self._steps, strict=True)) if self._steps else (0, 1)
        return seconds / tokens


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common prefix, by halves: slices compare a hundred times faster than their parts."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
