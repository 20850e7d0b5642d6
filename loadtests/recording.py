"""A run as it is observed: counters that may be read while it goes on, and every sample in compact columns.

Some 60 bytes a request, taken before the first is sent, so that memory is flat however long the run; only
the tokens of streams (8 bytes each) come on top. Nothing is computed here: `samples.py` does that afterwards.
"""

from array import array
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.monitor import Observed
from loadtests.sample import Manner, Sample
from loadtests.samples import Samples, in_order

COLUMNS = {
    "row": "q",
    "request": "h",
    "rows": "i",
    "manner": "b",
    "planned": "d",
    "sent": "d",
    "ended": "d",
    "first": "d",
    "tokens": "i",
    "error": "h",
    "tokens_end": "q",
}
NONE = -1


class Table:
    """Rows of samples in the order in which the requests ended. `capacity` is taken at once; it may grow."""

    def __init__(self, capacity: int) -> None:
        self.used = 0
        self.kinds: list[str] = []
        self.details: list[str] = []
        self._columns: dict[str, array[Any]] = {
            name: array(code, [0]) * max(capacity, 1) for name, code in COLUMNS.items()
        }
        self._token_times = array("d")

    def append(self, sample: Sample) -> None:
        columns, place = self._columns, self.used
        if place == len(columns["row"]):
            for column in columns.values():
                column.extend(column)
        times = sample.token_times
        self._token_times.extend(times)
        columns["row"][place] = sample.row
        columns["request"][place] = sample.request
        columns["rows"][place] = sample.rows
        columns["manner"][place] = sample.manner
        columns["planned"][place] = sample.planned
        columns["sent"][place] = sample.sent
        columns["ended"][place] = sample.ended
        columns["first"][place] = times[0] if times else np.nan
        columns["tokens"][place] = NONE if sample.tokens is None else sample.tokens
        columns["error"][place] = NONE if sample.error is None else self._kind(sample)
        columns["tokens_end"][place] = len(self._token_times)
        self.used = place + 1

    def column(self, name: str, last: int | None = None) -> NDArray[np.float64]:
        """A copy of a column, or of the latest `last` entries of it, as the run stands now."""
        start = 0 if last is None else max(0, self.used - last)
        return np.array(self._columns[name][start : self.used])

    def samples(self, start: float) -> Samples:
        """Everything that was recorded, with times that count from `start`, in planned order."""
        column = {name: self.column(name) for name in COLUMNS}
        whole = {name: column[name].astype(np.int64) for name, code in COLUMNS.items() if code != "d"}
        gaps, counts = self._gaps(whole["tokens_end"])
        recorded = Samples(
            row=whole["row"],
            request=whole["request"],
            rows=whole["rows"],
            manner=whole["manner"],
            planned_ms=_ms(column["planned"] - start),
            lag_ms=_ms(column["sent"] - column["planned"]),
            latency_ms=_ms(column["ended"] - column["planned"]),
            ttft_ms=_ms(column["first"] - column["planned"]),
            tokens=whole["tokens"],
            error=whole["error"],
            gaps_ms=gaps,
            gap_counts=counts,
            kinds=tuple(self.kinds),
            details=tuple(self.details),
        )
        return in_order(recorded)

    def _gaps(self, ends: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """All gaps between the tokens of one stream, in recorded order, and how many each row has."""
        times = np.array(self._token_times)
        counts = np.diff(ends, prepend=0)
        within = np.ones(max(len(times) - 1, 0), dtype=bool)
        edges = ends[(ends > 0) & (ends < len(times))]
        within[edges - 1] = False
        return _ms(np.diff(times))[within], np.maximum(counts - 1, 0)

    def _kind(self, sample: Sample) -> int:
        """The number of this kind of error. What its first said is kept, and no more."""
        assert sample.error is not None
        if sample.error not in self.kinds:
            self.kinds.append(sample.error)
            self.details.append(sample.detail)
        return self.kinds.index(sample.error)


@dataclass(slots=True)
class Recording:
    """A run so far. Clock times in seconds.

    `cpu_share` is the part of its one core that the generator's loop used while it was sending. `skipped`
    requests were not sent, because the one they should have followed failed or came too late.
    """

    planned: int
    table: Table
    started_at: datetime = field(default_factory=partial(datetime.now, UTC))
    start: float = 0.0
    sent: int = 0
    failed: int = 0
    skipped: int = 0
    ended_at: float | None = None
    interrupted_at: float | None = None
    cpu_share: float = 0.0
    observed: Observed = field(default_factory=Observed)

    def add(self, sample: Sample) -> None:
        self.failed += sample.error is not None
        self.table.append(sample)

    @property
    def ended(self) -> int:
        return self.table.used

    def latest_ms(self, count: int) -> NDArray[np.float64]:
        """The latencies of the latest good answers among the last `count` samples."""
        table = self.table
        latency = _ms(table.column("ended", count) - table.column("planned", count))
        good = (table.column("error", count) == NONE) & (table.column("manner", count) == Manner.NORMAL)
        found: NDArray[np.float64] = latency[good]
        return found


def _ms(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rounded to the microsecond before anything is computed, so that the document gives the same figures."""
    return np.round(seconds * 1e3, 3)
