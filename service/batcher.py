"""A feed-forward model at work: requests that wait together run together.

Nobody waits for company: a batch starts as soon as the model is free, with whatever has come in until then,
as many rows as the cost model says pay and the tightest deadline among them allows. A second batch starts
beside it only if it is full. A run that is shorter than the way to a thread and back, or a short one that
nobody waits beside, is done in place. What is late or abandoned is dropped before it runs, and what would be
late is refused when it comes. It belongs to one event loop and reads no clock but the loop's. The trade-off:
int8 graphs that quantize activations by batch answer very slightly differently in company.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, ParamSpec, TypeVar

from runtime.errors import InputError, ModelpressError
from runtime.manifest import CaptionedProcessing, ImageProcessing, Manifest
from runtime.processing import Array
from runtime.tensor import TensorModel
from service import context, metrics, shadow
from service.batch import Layout, Shape, join, part, size
from service.cost import CostModel
from service.errors import DeadlineExceeded, DeadlineUnmeetable, ModelFailed, TooBusy
from service.health import Health
from service.pool import SMALL, Pool
from service.traffic import Traffic

logger = logging.getLogger("modelpress.service")

# Less than it costs to wait one turn of the event loop for company.
AT_ONCE_SECONDS = 0.00005
# A thread and back costs about a tenth of a millisecond, more while the interpreter is busy.
IN_PLACE_SECONDS = 0.0003
# Alone in the server, a request holds nobody up: who comes meanwhile waits this long at most, and would have
# waited for the same model anyway.
ALONE_SECONDS = 0.002
# Batches that may run at once: one computes while another is being joined, cut or scheduled.
IN_FLIGHT = 2

Outputs = dict[str, Array]
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Job:
    inputs: Mapping[str, Array]
    rows: int
    length: int
    # What must be equal for a place in the same batch.
    shape: Shape
    deadline: float
    queued: float
    answer: "asyncio.Future[Outputs]"


@dataclass(slots=True)
class _Batch:
    """Jobs that will run together: at most `best` rows, over before `deadline`."""

    best: int
    jobs: list[_Job] = field(default_factory=list)
    rows: int = 0
    length: int = 1
    deadline: float = math.inf

    def add(self, job: _Job) -> None:
        """Take one more."""
        self.jobs.append(job)
        self.rows += job.rows
        self.length = max(self.length, job.length)
        self.deadline = min(self.deadline, job.deadline)


@dataclass(frozen=True, slots=True)
class _Flight:
    """A batch that runs: when it should end, and the seconds that it was expected to take."""

    jobs: list[_Job]
    ends: float
    seconds: float


class Batcher:
    """Runs one TensorModel. `queue_rows` is how many rows may wait, `max_rows` how many one request has."""

    def __init__(
        self,
        model: TensorModel,
        pool: Pool,
        traffic: Traffic,
        *,
        queue_rows: int = 1024,
        max_rows: int = 1024,
        cost: CostModel | None = None,
        execute: "Execute | None" = None,
    ) -> None:
        self.model = model
        self.manifest: Manifest = model.manifest
        self.health = Health()
        self.cost = cost or CostModel()
        self._pool, self._traffic = pool, traffic
        self._queue_rows, self._max_rows = queue_rows, max_rows
        # None: in a thread. A bound method here would keep a stopped model until the garbage collector comes.
        self._execute = execute
        self._can_run_in_place = execute is None
        self._layout = Layout.of(model.manifest)
        self._waiting: deque[_Job] = deque()
        self._waiting_rows = self._waiting_elements = 0
        # Rows that are being parsed, going by how many the last request turned out to have.
        self._coming_rows, self._last_rows = 0, 1
        self._threads = _threads()
        self._running: dict[asyncio.Task[None], _Flight] = {}
        self._ends = 0.0
        self._scheduled = False
        self._series = metrics.BatchSeries(model.manifest.tag)

    async def predict(self, items: Sequence[Any]) -> list[dict[str, Any]]:
        """Answers in the task's own words, one for each item; `TensorModel.predict`, in company."""
        if isinstance(self.manifest.processing, ImageProcessing | CaptionedProcessing):
            inputs = await self._pool.run(self.model.encode, items)
        else:
            inputs = self.model.encode(items)
        return self.model.answers(await self.run(inputs), inputs, items)

    async def parse(self, function: Callable[P, T], size: int, *args: P.args, **kwargs: P.kwargs) -> T:
        """`Pool.parse` for one of this model's requests, which has its place in the queue from now on.

        Raises TooBusy before anything is parsed: under overload, most requests cost next to nothing.
        """
        rows = self._last_rows if size > SMALL else 1
        self._check_room(self._coming_rows + rows)
        self._coming_rows += rows
        try:
            return await self._pool.parse(function, size, *args, **kwargs)
        finally:
            self._coming_rows -= rows

    async def run(self, inputs: Mapping[str, Array]) -> Outputs:
        """Named tensors to named tensors. Raises InputError, TooBusy, or ModelFailed.

        Cancelled before its batch begins, it is never computed.
        """
        self.model.check(inputs)
        job = self._job(inputs)
        if self._is_instant(job):
            self._begin([job])
        else:
            self._admit(job)
            self._schedule()
        try:
            outputs = job.answer.result() if job.answer.done() else await job.answer
        except asyncio.CancelledError:
            metrics.CANCELLATIONS.labels(self.manifest.tag).inc()
            raise
        shadow.follow(self.manifest, inputs, outputs)
        return outputs

    @property
    def backlog(self) -> float:
        """Seconds until what is running and waiting now is done, as far as is known."""
        return self._expected_wait(0)

    @property
    def pressure(self) -> float:
        """How full the queue is, from 0 to 1."""
        return self._waiting_rows / max(1, self._queue_rows)

    def stuck_for(self) -> float:
        """Seconds by which the oldest running batch is late; 0 while none is."""
        now = asyncio.get_running_loop().time()
        return max((now - flight.ends for flight in self._running.values()), default=0.0)

    def start(self) -> None:
        """Nothing to start: it runs when asked."""

    async def stop(self) -> None:
        """Fail what waits and wait for what runs."""
        for job in self._waiting:
            _fail(job, ModelFailed(f"{self.manifest.tag} is being stopped; try again"))
        self._waiting.clear()
        self._waiting_rows = self._waiting_elements = 0
        await asyncio.gather(*self._running, return_exceptions=True)
        self._threads.shutdown(wait=False)

    def restart(self) -> None:
        """Give up the batches that run; their threads are left to end by themselves."""
        for flight in self._running.values():
            for job in flight.jobs:
                _fail(job, ModelFailed(f"{self.manifest.tag} stalled and was restarted; try again"))
        for task in tuple(self._running):
            task.cancel()
        self._running.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._threads = _threads()

    def _job(self, inputs: Mapping[str, Array]) -> _Job:
        rows, length = size(inputs, self._layout)
        if rows > self._max_rows:
            raise InputError(f"{rows} rows in one request; send at most {self._max_rows}")
        self._last_rows = rows
        self._check_room(rows)
        loop = asyncio.get_running_loop()
        shape = self._layout.shape(inputs)
        return _Job(inputs, rows, length, shape, context.deadline(), loop.time(), loop.create_future())

    def _admit(self, job: _Job) -> None:
        needed = self._expected_seconds(job.rows, job.length)
        if job.queued + needed > job.deadline:
            metrics.REJECTIONS.labels("deadline").inc()
            raise DeadlineUnmeetable(
                f"{self.manifest.tag} would answer in {needed:.3f} s, which is too late for this request; "
                "allow more time or try again later",
                self.backlog,
            )
        self._waiting.append(job)
        self._count(job, 1)

    def _check_room(self, rows: int) -> None:
        """Raise TooBusy where the queue cannot take so many more; an empty one takes whatever comes."""
        if self._waiting_rows and self._waiting_rows + rows > self._queue_rows:
            metrics.REJECTIONS.labels("queue_full").inc()
            tag = self.manifest.tag
            raise TooBusy(f"{self._waiting_rows} rows wait for {tag} already; try again", self.backlog)

    def _expected_seconds(self, rows: int, length: int) -> float:
        """Seconds until `rows` more rows of `length` would be answered."""
        if self._waiting_rows + rows > self.cost.best_rows(length):
            return self._expected_wait(rows) + self.cost.seconds(rows, length)
        # It joins what waits now, and later ones may join only while that makes nobody late.
        running = max(0.0, self._ends - asyncio.get_running_loop().time()) if self._running else 0.0
        longest = max(length, self._waiting_elements // max(1, self._waiting_rows))
        return running + self.cost.seconds(self._waiting_rows + rows, longest)

    def _expected_wait(self, rows: int) -> float:
        """Seconds until `rows` more could begin, if the batches before are as full as pays."""
        if not self._running and not self._waiting_rows:
            return 0.0
        running = max(0.0, self._ends - asyncio.get_running_loop().time())
        length = max(1, self._waiting_elements // max(1, self._waiting_rows))
        best = self.cost.best_rows(length)
        # Whole batches, for who comes later may still join the last one.
        return running + self.cost.seconds(best, length) * math.ceil((self._waiting_rows + rows) / best)

    def _is_instant(self, job: _Job) -> bool:
        """Whether a request is alone in the server and over sooner than it could wait for another."""
        if not self._is_alone() or not self._can_run_in_place:
            return False
        work = self.cost.work(job.rows, job.length)
        return 0 < work < AT_ONCE_SECONDS and job.queued + work <= job.deadline

    def _is_alone(self) -> bool:
        """Whether nobody else asks anything of this server, as far as its loop has read."""
        return not self._waiting and not self._running and len(self._traffic) <= 1

    def _schedule(self) -> None:
        # Behind the requests that the loop has already read, so that they come along.
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._running) < IN_FLIGHT:
            if self._running and self._waiting_rows < self.cost.best_rows(self._waiting[0].length):
                return
            jobs = self._collect()
            if jobs and self._begin(jobs):
                return

    def _collect(self) -> list[_Job]:
        """Take the next batch from the queue: the oldest request, and all that are cheaper with it."""
        now = asyncio.get_running_loop().time()
        batch: _Batch | None = None
        left: deque[_Job] = deque()
        while self._waiting:
            job = self._waiting.popleft()
            if self._is_dropped(job, now):
                continue
            if batch is None:
                batch = _Batch(self.cost.best_rows(job.length) if self._layout.batched else 1)
            elif not self._joins(job, batch, now):
                left.append(job)
                continue
            batch.add(job)
            self._count(job, -1)
            if batch.rows >= batch.best:
                break
        left.extend(self._waiting)
        self._waiting = left
        return batch.jobs if batch else []

    def _joins(self, job: _Job, batch: "_Batch", now: float) -> bool:
        """Whether a job makes nobody in the batch late, and costs no more there than by itself."""
        rows, length = batch.rows + job.rows, max(batch.length, job.length)
        if rows > batch.best or job.shape != batch.jobs[0].shape:
            return False
        together = self.cost.seconds(rows, length)
        if now + together > min(batch.deadline, job.deadline):
            return False
        if job.length == batch.length:
            return True
        apart = self.cost.seconds(batch.rows, batch.length) + self.cost.seconds(job.rows, job.length)
        return together <= apart

    def _is_dropped(self, job: _Job, now: float) -> bool:
        if job.answer.done():
            self._count(job, -1)
            return True
        # What cannot be finished in time would only make others late.
        if now + self.cost.seconds(job.rows, job.length) > job.deadline:
            self._count(job, -1)
            metrics.REJECTIONS.labels("expired").inc()
            _fail(
                job, DeadlineExceeded(f"{self.manifest.tag} could not begin before the deadline; try again")
            )
            return True
        return False

    def _begin(self, jobs: list[_Job]) -> bool:
        """Run a batch. True: it was run in place, and it is others' turn on the loop before the next one."""
        loop = asyncio.get_running_loop()
        rows, length = sum(job.rows for job in jobs), max(job.length for job in jobs)
        self._series.begin(rows, rows * length, [loop.time() - job.queued for job in jobs])
        most = ALONE_SECONDS if len(jobs) == 1 and self._is_alone() else IN_PLACE_SECONDS
        if self._can_run_in_place and 0 < self.cost.work(rows, length) < most:
            try:
                self._finish(jobs, rows, length, *self._timed(jobs))
            except Exception as error:
                self._break(jobs, error)
            if self._waiting:
                self._schedule()
            return True
        task = loop.create_task(self._work(jobs, rows, length))
        # Batches that run side by side share the cores: together they end as if one came after the other.
        seconds = self.cost.seconds(rows, length)
        self._ends = max(self._ends, loop.time()) + seconds
        self._running[task] = _Flight(jobs, self._ends, seconds)
        task.add_done_callback(self._end)
        return False

    async def _work(self, jobs: list[_Job], rows: int, length: int) -> None:
        try:
            self._finish(jobs, rows, length, *await (self._execute or self._in_a_thread)(jobs))
        except Exception as error:
            self._break(jobs, error)

    def _end(self, task: "asyncio.Task[None]") -> None:
        self._running.pop(task, None)
        # What took less than it was expected to must not add up: under load there is always one more.
        left = sum(flight.seconds for flight in self._running.values())
        self._ends = min(self._ends, asyncio.get_running_loop().time() + left)
        if self._waiting:
            self._flush()

    def _finish(self, jobs: list[_Job], rows: int, length: int, outputs: Outputs, seconds: float) -> None:
        self.cost.observe(rows, length, seconds)
        self.health.succeeded()
        if len(jobs) == 1:
            _answer(jobs[0], outputs)
            return
        start = 0
        for job in jobs:
            _answer(job, part(outputs, start, job.inputs, self._layout))
            start += job.rows

    def _break(self, jobs: list[_Job], error: Exception) -> None:
        if len(jobs) > 1:
            # One of them did it: each gets a batch of its own, so that only that one fails.
            for job in jobs:
                self._begin([job])
            return
        if not isinstance(error, ModelpressError):
            logger.error("%s: a request failed", self.manifest.tag, exc_info=error)
            error = ModelFailed(f"{self.manifest.tag} failed on this request")
        if not isinstance(error, InputError):
            self.health.failed()
        _fail(jobs[0], error)

    def _timed(self, jobs: list[_Job]) -> tuple[Outputs, float]:
        inputs = join([job.inputs for job in jobs], self._layout)
        started = perf_counter()
        outputs = self.model.run_checked(inputs)
        return outputs, perf_counter() - started

    async def _in_a_thread(self, jobs: list[_Job]) -> tuple[Outputs, float]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._timed, jobs)

    def _count(self, job: _Job, sign: int) -> None:
        self._waiting_rows += sign * job.rows
        self._waiting_elements += sign * job.rows * job.length


# Runs a batch somewhere and gives its outputs with the seconds that it took.
Execute = Callable[[list[_Job]], Awaitable[tuple[Outputs, float]]]


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="batch")


def _answer(job: _Job, outputs: Outputs) -> None:
    if not job.answer.done():
        job.answer.set_result(outputs)


def _fail(job: _Job, error: Exception) -> None:
    if not job.answer.done():
        job.answer.set_exception(error)
