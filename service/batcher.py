"""A feed-forward model at work: requests that wait together run together.

Nobody waits for company: a batch starts as soon as the model is free, with whatever has come in until then
(`waiting.py` chooses), on all cores or, where enough has, on each core one (`lanes.py`). While all cores have
something to do, another batch starts only if it is full. A run that is shorter than the way to a thread and
back, or a short one that nobody waits beside, is done in place. What would be late is refused when it comes.
It belongs to one event loop and reads no clock but the loop's. The trade-off: int8 graphs that quantize
activations by batch answer very slightly differently in company.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any, ParamSpec, TypeVar

from runtime.errors import InputError, ModelpressError
from runtime.manifest import CaptionedProcessing, ImageProcessing, Manifest
from runtime.processing import Array
from runtime.tensor import TensorModel
from service import context, metrics, shadow
from service.batch import Layout, join, part, size
from service.cost import FORGET, CostModel
from service.errors import DeadlineUnmeetable, ModelFailed
from service.health import Health
from service.lanes import Lanes, Way
from service.pool import SMALL, Pool
from service.traffic import Traffic
from service.waiting import Job, Outputs, Waiting

logger = logging.getLogger("modelpress.service")

# Less than it costs to wait one turn of the event loop for company.
AT_ONCE_SECONDS = 0.00005
# A thread and back costs about a tenth of a millisecond, more while the interpreter is busy.
IN_PLACE_SECONDS = 0.0003
# Alone in the server, a request holds nobody up: who comes meanwhile waits this long at most, and would have
# waited for the same model anyway.
ALONE_SECONDS = 0.002
# For each core, batches that may run at once: one computes while another is being joined, cut or scheduled.
IN_FLIGHT = 2

P = ParamSpec("P")
T = TypeVar("T")
# Runs a batch somewhere and gives its outputs with the seconds that it took.
Execute = Callable[[list[Job], Way], Awaitable[tuple[Outputs, float]]]


@dataclass(slots=True)
class _Flight:
    """A batch that runs: when it should end, and for how many seconds it was expected to keep all cores."""

    jobs: list[Job]
    way: Way
    rows: int
    length: int
    ends: float
    seconds: float


class Batcher:
    """Runs one TensorModel. `queue_rows` is how many rows may wait, `max_rows` how many one request has.

    `lanes` are the ways in which it can run; without them, all cores run each batch.
    """

    def __init__(
        self,
        model: TensorModel,
        pool: Pool,
        traffic: Traffic,
        *,
        queue_rows: int = 1024,
        max_rows: int = 1024,
        lanes: Lanes | None = None,
        execute: Execute | None = None,
    ) -> None:
        self.model = model
        self.manifest: Manifest = model.manifest
        self.health = Health()
        self.lanes = lanes or Lanes(Way(model, CostModel(), 1))
        self._pool, self._traffic, self._max_rows = pool, traffic, max_rows
        # None: in a thread. A bound method here would keep a stopped model until the garbage collector comes.
        self._execute = execute
        self._can_run_in_place = execute is None
        self._layout = Layout.of(model.manifest)
        self._waiting = Waiting(model.manifest.tag, self._layout, queue_rows)
        # Rows that are being parsed, as far as their bodies' sizes tell; and a row's bytes, the most lately.
        self._coming_rows, self._row_bytes = 0, 0.0
        self._threads = self._start_threads()
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

    def expect(self, sent: int = 0) -> None:
        """A request comes, with a body of `sent` bytes that nobody has read.

        Raises TooBusy where so large a one would be refused: under overload, most requests cost next to
        nothing.
        """
        if not self._waiting and not self._running:
            return
        rows = self._rows_in(sent)
        self._waiting.check_room(self._coming_rows + rows, lambda: self.backlog)
        self._check_deadline(rows, self._waiting.length)

    async def parse(self, function: Callable[P, T], size: int, *args: P.args, **kwargs: P.kwargs) -> T:
        """`Pool.parse` for one of this model's requests, which has its place in the queue from now on.

        Raises what `expect` raises, for a large one: it may have taken long to come.
        """
        if size <= SMALL:
            return function(*args, **kwargs)
        self.expect(size)
        rows = self._rows_in(size)
        self._coming_rows += rows
        try:
            return await self._pool.run(function, *args, **kwargs)
        finally:
            self._coming_rows -= rows

    async def run(self, inputs: Mapping[str, Array], sent: int = 0) -> Outputs:
        """Named tensors to named tensors. Raises InputError, TooBusy, or ModelFailed.

        `sent` is how many bytes they came in, where that is known: it tells how many rows later ones have.
        Cancelled before its batch begins, it is never computed.
        """
        self.model.check(inputs)
        rows, length = size(inputs, self._layout)
        if rows > self._max_rows:
            raise InputError(f"{rows} rows in one request; send at most {self._max_rows}")
        if sent:
            # A guess of too many rows would refuse what can be answered.
            self._row_bytes = max(sent / rows, self._row_bytes / FORGET)
        if self._is_instant(rows, length):
            outputs = self._at_once(inputs, rows, length)
        else:
            job = self._enqueue(inputs, rows, length)
            try:
                outputs = await job.answer
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
        return self._waiting.pressure

    @property
    def running(self) -> bool:
        """Whether a batch is under way in a thread; while none is, nobody waits for longer than a turn."""
        return bool(self._running)

    def stuck_for(self) -> float:
        """Seconds by which the oldest running batch is late; 0 while none is."""
        now = asyncio.get_running_loop().time()
        return max((now - flight.ends for flight in self._running.values()), default=0.0)

    def start(self) -> None:
        """Nothing to start: it runs when asked."""

    async def stop(self) -> None:
        """Fail what waits and wait for what runs."""
        self._waiting.fail_all(ModelFailed(f"{self.manifest.tag} is being stopped; try again"))
        await asyncio.gather(*self._running, return_exceptions=True)
        self._threads.shutdown(wait=False)

    def restart(self) -> None:
        """Give up the batches that run; their threads are left to end by themselves."""
        metrics.ENGINE_RESTARTS.labels(self.manifest.tag).inc()
        self.health.failed()
        for flight in self._running.values():
            for job in flight.jobs:
                job.fail(ModelFailed(f"{self.manifest.tag} stalled and was restarted; try again"))
        for task in tuple(self._running):
            task.cancel()
        self._running.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._threads = self._start_threads()

    def _is_instant(self, rows: int, length: int) -> bool:
        """Whether a request is alone in the server and over sooner than it could wait for another."""
        if not self._can_run_in_place or not self._is_alone():
            return False
        work = self.lanes.wide.cost.work(rows, length)
        return 0 < work < AT_ONCE_SECONDS and asyncio.get_running_loop().time() + work <= context.deadline()

    def _is_alone(self) -> bool:
        """Whether nobody else asks anything of this server, as far as its loop has read."""
        return not self._waiting and not self._running and len(self._traffic) <= 1

    def _at_once(self, inputs: Mapping[str, Array], rows: int, length: int) -> Outputs:
        """Run one request by itself, here and now."""
        self._series.begin(rows, rows * length, (0.0,))
        try:
            outputs, seconds = _timed(self.model, inputs)
        except Exception as error:
            raise self._failure(error) from None
        self.lanes.wide.cost.observe(rows, length, seconds)
        self.health.succeeded()
        return outputs

    def _enqueue(self, inputs: Mapping[str, Array], rows: int, length: int) -> Job:
        """Let a request wait for its turn, with whoever is there then. Raises TooBusy."""
        self._waiting.check_room(rows, lambda: self.backlog)
        self._check_deadline(rows, length)
        loop = asyncio.get_running_loop()
        deadline, shape = context.deadline(), self._layout.shape(inputs)
        job = Job(inputs, rows, length, shape, deadline, loop.time(), loop.create_future())
        self._waiting.add(job)
        self._schedule()
        return job

    def _rows_in(self, sent: int) -> int:
        """How many rows a body of so many bytes has, by those before it; one where there were none."""
        return max(1, int(sent / self._row_bytes)) if self._row_bytes else 1

    def _check_deadline(self, rows: int, length: int) -> None:
        """Raise DeadlineUnmeetable where so many more rows could not be answered in the request's time."""
        deadline = context.deadline()
        if deadline == math.inf:
            return
        needed = self._expected_seconds(rows, length)
        if asyncio.get_running_loop().time() + needed > deadline:
            metrics.REJECTIONS.labels("deadline").inc()
            raise DeadlineUnmeetable(
                f"{self.manifest.tag} would answer in {needed:.3f} s, which is too late for this "
                "request; allow more time or try again later",
                self.backlog,
            )

    def _expected_seconds(self, rows: int, length: int) -> float:
        """Seconds until `rows` more rows of `length` would be answered."""
        waiting, cost = self._waiting, self._next_way().cost
        if waiting.rows + rows > cost.best_rows(length):
            return self._expected_wait(rows) + cost.seconds(rows, length)
        # It joins what waits now, and later ones may join only while that makes nobody late.
        running = max(0.0, self._ends - asyncio.get_running_loop().time()) if self._running else 0.0
        return running + cost.seconds(waiting.rows + rows, max(length, waiting.length))

    def _expected_wait(self, rows: int) -> float:
        """Seconds until `rows` more could begin, if the batches before are as full as pays."""
        waiting = self._waiting
        if not self._running and not waiting:
            return 0.0
        running = max(0.0, self._ends - asyncio.get_running_loop().time())
        way = self._next_way()
        best = way.cost.best_rows(waiting.length)
        # Whole batches, for who comes later may still join the last one.
        return running + self._share(way, best, waiting.length) * math.ceil((waiting.rows + rows) / best)

    def _next_way(self) -> Way:
        """How the next batch runs."""
        rows = self._waiting.rows + sum(flight.rows for flight in self._running.values())
        return self.lanes.choose(rows, self._waiting.length)

    def _share(self, way: Way, rows: int, length: int) -> float:
        """Seconds of all cores that a batch takes, which may be more of fewer."""
        return way.cost.seconds(rows, length) * way.cores / self.lanes.wide.cores

    def _schedule(self) -> None:
        # Behind the requests that the loop has already read, so that they come along.
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        loop = asyncio.get_running_loop()
        while self._waiting:
            way = self._next_way()
            if not self._has_room(way.cost.best_rows(self._waiting.oldest.length)):
                return
            jobs = self._waiting.take(way.cost, loop.time())
            if jobs and self._begin(jobs, way):
                return

    def _has_room(self, full: int) -> bool:
        """Whether a batch may begin: any where a core has nothing to do, else one of `full` rows."""
        cores, busy = self.lanes.wide.cores, sum(flight.way.cores for flight in self._running.values())
        return busy < cores or (busy < IN_FLIGHT * cores and self._waiting.rows >= full)

    def _begin(self, jobs: list[Job], way: Way) -> bool:
        """Run a batch. True: it was run in place, and it is others' turn on the loop before the next one."""
        loop, wide = asyncio.get_running_loop(), self.lanes.wide
        rows, length = sum(job.rows for job in jobs), max(job.length for job in jobs)
        self._series.begin(rows, rows * length, [loop.time() - job.queued for job in jobs])
        most = ALONE_SECONDS if len(jobs) == 1 and self._is_alone() else IN_PLACE_SECONDS
        if self._can_run_in_place and 0 < wide.cost.work(rows, length) < most:
            flight = _Flight(jobs, wide, rows, length, 0.0, 0.0)
            try:
                self._finish(flight, *_timed(self.model, self._joined(jobs)))
            except Exception as error:
                self._break(flight, error)
            if self._waiting:
                self._schedule()
            return True
        # Batches that run side by side share the cores: together they end as if one came after the other.
        seconds = self._share(way, rows, length)
        self._ends = max(self._ends, loop.time()) + seconds
        flight = _Flight(jobs, way, rows, length, self._ends, seconds)
        task = loop.create_task(self._work(flight))
        self._running[task] = flight
        task.add_done_callback(self._end)
        return False

    async def _work(self, flight: _Flight) -> None:
        try:
            execute = self._execute or self._in_a_thread
            self._finish(flight, *await execute(flight.jobs, flight.way))
        except Exception as error:
            self._break(flight, error)

    def _end(self, task: "asyncio.Task[None]") -> None:
        self._running.pop(task, None)
        # What took less than it was expected to must not add up: under load there is always one more.
        left = sum(flight.seconds for flight in self._running.values())
        self._ends = min(self._ends, asyncio.get_running_loop().time() + left)
        if self._waiting:
            self._flush()

    def _finish(self, flight: _Flight, outputs: Outputs, seconds: float) -> None:
        jobs = flight.jobs
        flight.way.cost.observe(flight.rows, flight.length, seconds)
        self.health.succeeded()
        if len(jobs) == 1:
            jobs[0].succeed(outputs)
            return
        start = 0
        for job in jobs:
            job.succeed(part(outputs, start, job.rows, job.length, self._layout))
            start += job.rows

    def _break(self, flight: _Flight, error: Exception) -> None:
        if len(flight.jobs) > 1:
            # One of them did it: each gets a batch of its own, so that only that one fails.
            for job in flight.jobs:
                self._begin([job], flight.way)
            return
        flight.jobs[0].fail(self._failure(error))

    def _failure(self, error: Exception) -> Exception:
        """What the one request that failed is told. What is not its own fault counts against the model."""
        if not isinstance(error, ModelpressError):
            logger.error("%s: a request failed", self.manifest.tag, exc_info=error)
            error = ModelFailed(f"{self.manifest.tag} failed on this request")
        if not isinstance(error, InputError):
            self.health.failed()
        return error

    def _joined(self, jobs: list[Job]) -> Mapping[str, Array]:
        return join([job.inputs for job in jobs], self._layout)

    async def _in_a_thread(self, jobs: list[Job], way: Way) -> tuple[Outputs, float]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: _timed(way.model, self._joined(jobs)))

    def _start_threads(self) -> ThreadPoolExecutor:
        # As many as there are cores; what waits for one of them is ready to go.
        return ThreadPoolExecutor(max(IN_FLIGHT, self.lanes.wide.cores), thread_name_prefix="batch")


def _timed(model: TensorModel, inputs: Mapping[str, Array]) -> tuple[Outputs, float]:
    started = perf_counter()
    outputs = model.run_checked(inputs)
    return outputs, perf_counter() - started
