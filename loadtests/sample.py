"""What one request did: clock times while it runs, and the measures that follow from them.

A sample lives only as long as its request; `recording.py` keeps it as a row of compact columns.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise


class Manner(IntEnum):
    """How the client behaves. Only what is received normally says how fast the server is."""

    NORMAL = 0
    CANCEL = 1
    SLOW = 2


@dataclass(slots=True)
class Sample:
    """Clock times in seconds; properties in milliseconds, rounded to the microsecond.

    `row` is the request's place in the plan, `request` that of its kind in the mix, `rows` how many inputs it
    carried. `latency_ms` counts from the planned time, `service_ms` from the real sending, `lag_ms` between.
    """

    request: int
    planned: float
    sent: float
    ended: float = 0.0
    status: int = 0
    error: str | None = None
    detail: str = ""
    tokens: int | None = None
    token_times: tuple[float, ...] = field(default=(), repr=False)
    row: int = 0
    rows: int = 1
    manner: Manner = Manner.NORMAL
    text: str = field(default="", repr=False)

    @property
    def latency_ms(self) -> float:
        return milliseconds(self.ended - self.planned)

    @property
    def service_ms(self) -> float:
        return milliseconds(self.ended - self.sent)

    @property
    def lag_ms(self) -> float:
        return milliseconds(self.sent - self.planned)

    @property
    def ttft_ms(self) -> float | None:
        return milliseconds(self.token_times[0] - self.planned) if self.token_times else None

    @property
    def tpot_ms(self) -> float | None:
        """(E2E - TTFT) / (n - 1); None for a whole answer and for a single token."""
        if self.ttft_ms is None or self.tokens is None or self.tokens < 2:
            return None
        return round((self.latency_ms - self.ttft_ms) / (self.tokens - 1), 3)

    @property
    def gaps_ms(self) -> list[float]:
        """Inter-token latencies."""
        return [milliseconds(after - before) for before, after in pairwise(self.token_times)]


def milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 3)
