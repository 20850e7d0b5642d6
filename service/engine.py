"""A text model at work: one thread that owns the scheduler, and an async door to it.

Commands go in by a queue; a step's events come back in one call to the event loop. The thread touches no
asyncio object and the loop touches no scheduler. `generation.py` is what one request sees of it.
The trade-off: a command waits for the step that is running, some milliseconds, and no lock is needed.
"""

import asyncio
import logging
import queue
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from threading import Thread

from runtime.errors import InputError, ModelpressError
from runtime.manifest import Manifest
from runtime.model import TextModel
from runtime.scheduler import Request, Scheduler, TokenEvent
from service import metrics
from service.errors import ModelFailed, TooBusy

logger = logging.getLogger("modelpress.service")

# A step is over in far less; a thread that outlasts this is a daemon's and ends with the process.
STOP_SECONDS = 5.0

Command = Callable[[Scheduler], None]
Mailbox = asyncio.Queue[TokenEvent | tuple[str, Exception]]


class Engine:
    """Runs one TextModel. The public methods belong to one event loop, `_run` and below to the thread."""

    def __init__(self, model: TextModel, *, slots: int, queue_size: int) -> None:
        self.model = model
        self.manifest: Manifest = model.manifest
        self.limit = slots + queue_size
        self.failed = False
        self._slots = slots
        self._ids = count()
        self._mailboxes: dict[str, Mailbox] = {}
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop
        self._thread = Thread(target=self._run, name=f"engine {self.manifest.tag}", daemon=True)
        self._running = metrics.KV_SLOTS_USED.labels(self.manifest.tag)
        self._waiting = metrics.REQUESTS_WAITING.labels(self.manifest.tag)
        self._generated = metrics.GENERATED_TOKENS.labels(self.manifest.tag)

    def start(self) -> None:
        """Start the thread. Events will be delivered on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """End the thread after the step that is running."""
        self._commands.put(None)
        await asyncio.to_thread(self._thread.join, STOP_SECONDS)

    def admit(self, requests: Sequence[Request], mailbox: Mailbox) -> list[str]:
        """Queue the requests, all or none, under ids of the engine's own: these.

        Raises TooBusy, or InputError for more than ever fit.
        """
        if self.failed:
            raise ModelFailed(f"{self.manifest.tag} is out of order; restart the server")
        if len(requests) > self.limit:
            raise InputError(f"{len(requests)} prompts in one request; send at most {self.limit}")
        if len(self._mailboxes) + len(requests) > self.limit:
            raise TooBusy(
                f"{self.manifest.tag} has {len(self._mailboxes)} prompts in hand; try again in a moment"
            )
        return [self._add(replace(request, id=str(next(self._ids))), mailbox) for request in requests]

    def forget(self, request_id: str, *, finished: bool) -> None:
        """Take no more events for a request, and free its slot if it still has one."""
        del self._mailboxes[request_id]
        if not finished:
            self._commands.put(lambda scheduler: scheduler.cancel(request_id))

    def _add(self, request: Request, mailbox: Mailbox) -> str:
        self._mailboxes[request.id] = mailbox

        def add(scheduler: Scheduler) -> None:
            try:
                scheduler.add(request)
            except ModelpressError as error:
                self._call(self._refuse, request.id, error)

        self._commands.put(add)
        return request.id

    def _run(self) -> None:
        try:
            while self._serve(self.model.scheduler(self._slots)):
                self._call(self._fail_all, f"{self.manifest.tag} failed while generating; try again")
        except Exception:
            logger.exception("%s: no scheduler can be made; the engine is out of order", self.manifest.tag)
            self._call(self._break)

    def _serve(self, scheduler: Scheduler) -> bool:
        """Step until told to stop, or until the scheduler fails and is not to be trusted: True."""
        try:
            while self._obey(scheduler):
                events = scheduler.step()
                self._gauge(scheduler)
                self._call(self._deliver, events)
        except Exception:
            logger.exception("%s: a step failed; the requests in it are lost", self.manifest.tag)
            return True
        return False

    def _obey(self, scheduler: Scheduler) -> bool:
        """Carry out all commands, waiting for one while there is nothing to step. False: stop."""
        while True:
            try:
                command = self._commands.get(block=not scheduler.has_work)
            except queue.Empty:
                return True
            if command is None:
                return False
            command(scheduler)
            self._gauge(scheduler)

    def _gauge(self, scheduler: Scheduler) -> None:
        self._running.set(scheduler.running)
        self._waiting.set(scheduler.waiting)

    def _call(self, function: Callable[..., None], *args: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(function, *args)

    def _deliver(self, events: list[TokenEvent]) -> None:
        self._generated.inc(sum(event.token_id is not None for event in events))
        for event in events:
            if mailbox := self._mailboxes.get(event.request_id):
                mailbox.put_nowait(event)

    def _refuse(self, request_id: str, error: Exception) -> None:
        if mailbox := self._mailboxes.get(request_id):
            mailbox.put_nowait((request_id, error))

    def _fail_all(self, message: str) -> None:
        for request_id in self._mailboxes:
            self._refuse(request_id, ModelFailed(message))

    def _break(self) -> None:
        self.failed = True
        self._fail_all(f"{self.manifest.tag} is out of order; restart the server")
