"""Every sample of a run as columns of numbers: what summaries, comparisons and drawings are computed from.

Immutable, in planned order, all times in milliseconds from the start of the plan. Integers that are missing
are -1 and floats NaN; the document of a run says `null` for both.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from loadtests.sample import Manner

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Samples:
    """One entry of each column for each request that ended, except for `gaps_ms`, `kinds` and `details`.

    `error` is a place in `kinds`, whose first message is in `details`. `gaps_ms` holds the inter-token
    latencies of all streams one after the other, `gap_counts` how many of them belong to each request.
    """

    row: Integers
    request: Integers
    rows: Integers
    manner: Integers
    planned_ms: Floats
    lag_ms: Floats
    latency_ms: Floats
    ttft_ms: Floats
    tokens: Integers
    error: Integers
    gaps_ms: Floats
    gap_counts: Integers
    kinds: tuple[str, ...]
    details: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def ended_ms(self) -> Floats:
        return np.round(self.planned_ms + self.latency_ms, 3)

    @property
    def service_ms(self) -> Floats:
        return np.round(self.latency_ms - self.lag_ms, 3)

    @property
    def tpot_ms(self) -> Floats:
        """(E2E - TTFT) / (n - 1); NaN for a whole answer and for a single token."""
        following = np.where(self.tokens > 1, self.tokens - 1, np.nan)
        return np.round((self.latency_ms - self.ttft_ms) / following, 3)

    @property
    def good(self) -> Mask:
        """Answered well, to a client that read at its own speed: what latencies are taken from."""
        good: Mask = (self.error < 0) & (self.manner == Manner.NORMAL)
        return good

    @property
    def answered(self) -> Mask:
        """Answered well, to any client that waited for it."""
        answered: Mask = (self.error < 0) & (self.manner != Manner.CANCEL)
        return answered

    def gaps_of(self, chosen: Mask) -> Floats:
        """The inter-token latencies of the chosen requests."""
        return self.gaps_ms[np.repeat(chosen, self.gap_counts)]

    def take(self, chosen: Mask) -> "Samples":
        """The chosen requests only."""
        columns = {
            field.name: getattr(self, field.name)[chosen]
            for field in fields(self)
            if field.name not in ("gaps_ms", "kinds", "details")
        }
        return replace(self, **columns, gaps_ms=self.gaps_of(chosen))


def concatenate(parts: list[Samples]) -> Samples:
    """The samples of several generators of one plan, in planned order."""
    kinds: dict[str, str] = {}
    for part in parts:
        for kind, detail in zip(part.kinds, part.details, strict=True):
            kinds.setdefault(kind, detail)
    names = list(kinds)
    joined = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(Samples)
        if field.name not in ("error", "kinds", "details")
    }
    errors = [np.array([*map(names.index, part.kinds), -1])[part.error] for part in parts]
    whole = Samples(**joined, error=np.concatenate(errors), kinds=tuple(names), details=tuple(kinds.values()))
    return in_order(whole)


def in_order(samples: Samples) -> Samples:
    """Sorted by planned time."""
    order = np.argsort(samples.planned_ms, kind="stable")
    starts = np.cumsum(samples.gap_counts) - samples.gap_counts
    counts = samples.gap_counts[order]
    inner = np.arange(len(samples.gaps_ms)) - np.repeat(np.cumsum(counts) - counts, counts)
    gaps = samples.gaps_ms[np.repeat(starts[order], counts) + inner]
    columns = {
        field.name: getattr(samples, field.name)[order]
        for field in fields(samples)
        if field.name not in ("gaps_ms", "kinds", "details")
    }
    return replace(samples, **columns, gaps_ms=gaps)
