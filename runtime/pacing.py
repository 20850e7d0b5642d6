"""How many tokens of a prompt one call reads, by what calls of a few and of many take on this machine.

Whoever comes while a long prompt is being read waits for the rest of a chunk, so a chunk must not take many
times what the newcomer's own, short prompt does. How many tokens that is depends on the kernels: a call's
time is a base and a slope, and with 4-bit weights it is nearly all slope. The trade-off: a few calls before
the first request. A prompt's last chunk may be longer by a third (`scheduler.REST`).
"""

import statistics
import time
from collections.abc import Callable

import numpy as np

from runtime.decoder import Decoder
from runtime.scheduler import ALONE, PREFILL_CHUNK

# A short prompt, and the longest chunk of one that is alone.
SHORT, LONGEST = 16, PREFILL_CHUNK * ALONE
# Chunks are multiples of this: where the rows of a call share a scale, answers differ a little with its size.
STEP = 8
# A chunk takes at most so many times what SHORT tokens take. Who comes in the middle of one then has a first
# token after 1 + PATIENCE / 2 times the time on an idle engine and a little more; at most 3 is wanted.
PATIENCE = 3.0
ROUNDS, SECONDS = 5, 0.5


def measured_chunk(decoder: Decoder, clock: Callable[[], float] = time.perf_counter) -> int:
    """A scheduler's `prefill_chunk` for this decoder, at most PREFILL_CHUNK.

    The decoder must be empty, and is afterwards. Takes a few calls of either size; where they take long, one
    of each. A decoder that reads a source, or has room for a short prompt only, is not measured.
    """
    longest = min(LONGEST, decoder.graph.context_length, decoder.cache.tokens)
    if decoder.source or longest <= SHORT:
        return PREFILL_CHUNK
    began, rounds = clock(), [_round(decoder, longest, clock)]
    while len(rounds) < ROUNDS and clock() - began < SECONDS:
        rounds.append(_round(decoder, longest, clock))
    decoder.cache.trim()
    # The first calls of a session find its memory; those that follow show their pace.
    short, long = (statistics.median(each) for each in zip(*(rounds[1:] or rounds), strict=True))
    if long <= PATIENCE * short:
        return PREFILL_CHUNK
    tokens = SHORT + (PATIENCE - 1) * short / (long - short) * (longest - SHORT)
    return int(tokens / ALONE) // STEP * STEP


def _round(decoder: Decoder, longest: int, clock: Callable[[], float]) -> tuple[float, float]:
    """Seconds of a short call and of a long one."""
    return _seconds(decoder, SHORT, clock), _seconds(decoder, longest, clock)


def _seconds(decoder: Decoder, count: int, clock: Callable[[], float]) -> float:
    start = clock()
    decoder.prefill(0, np.zeros(count, np.int64))
    seconds = clock() - start
    decoder.release(0)
    return seconds
