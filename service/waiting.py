"""Requests that wait for a feed-forward model, and which of them run together next.

A batch has as many rows as the cost model says pay and the tightest deadline among them allows. What is late
or abandoned is dropped when its turn comes. It runs nothing and reads no clock: `batcher.py` does, and says
what time it is.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from runtime.processing import Array
from service import metrics
from service.batch import Layout, Shape
from service.cost import CostModel
from service.errors import DeadlineExceeded, TooBusy

Outputs = dict[str, Array]


@dataclass(slots=True, eq=False)
class Job:
    """One request's tensors: `rows` of `length` tokens. Times are the event loop's, in seconds."""

    inputs: Mapping[str, Array]
    rows: int
    length: int
    # What must be equal for a place in the same batch.
    shape: Shape
    deadline: float
    queued: float
    answer: "asyncio.Future[Outputs]"

    def succeed(self, outputs: Outputs) -> None:
        """Give the answer, unless nobody waits for it any more."""
        if not self.answer.done():
            self.answer.set_result(outputs)

    def fail(self, error: Exception) -> None:
        """Say what went wrong, unless nobody waits any more."""
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(slots=True)
class _Batch:
    """Jobs that will run together: at most `best` rows, over before `deadline`."""

    best: int
    jobs: list[Job] = field(default_factory=list)
    rows: int = 0
    length: int = 1
    deadline: float = math.inf

    def add(self, job: Job) -> None:
        """Take one more."""
        self.jobs.append(job)
        self.rows += job.rows
        # For each of a hundred rows, two calls of `max` and `min` are a tenth of taking it.
        if job.length > self.length:
            self.length = job.length
        if job.deadline < self.deadline:
            self.deadline = job.deadline


class Waiting:
    """The queue in front of the model called `tag`. More than `limit` rows do not wait."""

    def __init__(self, tag: str, layout: Layout, limit: int) -> None:
        self._tag, self._layout, self._limit = tag, layout, limit
        self._jobs: deque[Job] = deque()
        self.rows = self._elements = 0

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def pressure(self) -> float:
        """How full the queue is, from 0 to 1."""
        return self.rows / max(1, self._limit)

    @property
    def oldest(self) -> Job:
        """Whose turn is next."""
        return self._jobs[0]

    @property
    def length(self) -> int:
        """The mean length of a row that waits."""
        return max(1, self._elements // max(1, self.rows))

    def check_room(self, rows: int, backlog: Callable[[], float]) -> None:
        """Raise TooBusy where so many more are too many; an empty queue takes whatever comes."""
        if self.rows and self.rows + rows > self._limit:
            metrics.REJECTIONS.labels("queue_full").inc()
            raise TooBusy(f"{self.rows} rows wait for {self._tag} already; try again", backlog())

    def add(self, job: Job) -> None:
        """Let a job wait."""
        self._jobs.append(job)
        self.rows += job.rows
        self._elements += job.rows * job.length

    def take(self, cost: CostModel, now: float) -> list[Job]:
        """The next batch: the oldest job, and all that are cheaper with it. None where all were dropped."""
        batch: _Batch | None = None
        left: deque[Job] = deque()
        while self._jobs:
            job = self._jobs.popleft()
            if self._is_dropped(job, cost, now):
                self._forget(job)
                continue
            if batch is None:
                batch = _Batch(cost.best_rows(job.length) if self._layout.batched else 1)
            elif not _joins(job, batch, cost, now):
                left.append(job)
                continue
            batch.add(job)
            self._forget(job)
            if batch.rows >= batch.best:
                break
        left.extend(self._jobs)
        self._jobs = left
        return batch.jobs if batch else []

    def fail_all(self, error: Exception) -> None:
        """Let nobody wait any longer."""
        for job in self._jobs:
            job.fail(error)
        self._jobs.clear()
        self.rows = self._elements = 0

    def _is_dropped(self, job: Job, cost: CostModel, now: float) -> bool:
        if job.answer.done():
            return True
        # What cannot be finished in time would only make others late.
        if job.deadline < math.inf and now + cost.seconds(job.rows, job.length) > job.deadline:
            metrics.REJECTIONS.labels("expired").inc()
            job.fail(DeadlineExceeded(f"{self._tag} could not begin before the deadline; try again"))
            return True
        return False

    def _forget(self, job: Job) -> None:
        self.rows -= job.rows
        self._elements -= job.rows * job.length


def _joins(job: Job, batch: _Batch, cost: CostModel, now: float) -> bool:
    """Whether a job makes nobody in the batch late, and costs no more there than by itself."""
    rows, alike = batch.rows + job.rows, job.length == batch.length
    if rows > batch.best or job.shape != batch.jobs[0].shape:
        return False
    if alike and batch.deadline == job.deadline == math.inf:
        return True
    length, deadline = max(batch.length, job.length), min(batch.deadline, job.deadline)
    together = cost.seconds(rows, length)
    if now + together > deadline:
        return False
    if alike:
        return True
    apart = cost.seconds(batch.rows, batch.length) + cost.seconds(job.rows, job.length)
    return together <= apart
