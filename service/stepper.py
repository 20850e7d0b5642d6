"""The thread that owns a scheduler: commands go in by a queue, steps' events come out by one call.

Each call wakes the event loop, and what follows costs a small model's step over again, of the same
processor: so a model that is faster than anybody reads tells of several steps at once. Where one answer
begins or ends in between, only who waits for it is told.

It touches no asyncio object and nobody else touches the scheduler. A thread cannot be ended from outside,
so one that hangs is abandoned: it ends by itself should it ever come back, and what it says until then is
not heard. The trade-off: a command waits for the step that is running, some milliseconds, and no lock is
needed.
"""

import logging
import queue
from collections.abc import Callable
from threading import Thread
from time import monotonic
from typing import Protocol

from runtime.scheduler import Scheduler, TokenEvent
from service import metrics

logger = logging.getLogger("modelpress.service")

# Nobody reads tokens apart that are closer than this; a step that takes longer is told at once.
TELL_SECONDS = 0.02

Command = Callable[[Scheduler], None]


class Listener(Protocol):
    """Who hears of a stepper. Every method is called in its thread."""

    def stepped(self, events: list[TokenEvent]) -> None:
        """The last steps gave these."""

    def lost(self) -> None:
        """A step failed: every request that the scheduler had is lost, and it starts afresh."""

    def broke(self) -> None:
        """No scheduler can be made: the thread has ended."""


class Stepper:
    """Steps one model's scheduler while there is anything to do."""

    def __init__(self, tag: str, make_scheduler: Callable[[], Scheduler], listener: Listener) -> None:
        self._tag, self._make, self._listener = tag, make_scheduler, listener
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._abandoned = False
        self._busy_since: float | None = None
        self._untold: list[TokenEvent] = []
        self._told = 0.0
        self._figures = metrics.EngineSeries(self._tag)
        self._thread = Thread(target=self._run, name=f"engine {self._tag}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, command: Command) -> None:
        """Have a command carried out between two steps."""
        self._commands.put(command)

    def stop(self) -> None:
        """End the thread after the step that is running."""
        self._commands.put(None)

    def join(self, timeout: float) -> None:
        """Wait for the thread's end."""
        self._thread.join(timeout)

    def abandon(self) -> None:
        """Give the thread up."""
        self._abandoned = True
        self.stop()

    def stuck_for(self) -> float:
        """Seconds since the last sign of life of a thread that has something to do; 0 while it waits."""
        since = self._busy_since
        return monotonic() - since if since is not None else 0.0

    def _run(self) -> None:
        try:
            while self._serve(self._make_scheduler()) and not self._abandoned:
                self._listener.lost()
        except Exception:
            logger.exception("%s: no scheduler can be made; the engine is out of order", self._tag)
            if not self._abandoned:
                self._listener.broke()
        finally:
            self._busy_since = None

    def _make_scheduler(self) -> Scheduler:
        self._busy_since = monotonic()
        return self._make()

    def _serve(self, scheduler: Scheduler) -> bool:
        """Step until told to stop, or until the scheduler fails and is not to be trusted: True."""
        try:
            # Of the one before, nothing runs or waits any more.
            self._figures.note(scheduler)
            while self._obey(scheduler):
                events = scheduler.step()
                if self._abandoned:
                    return False
                self._note(scheduler, events)
        except Exception:
            logger.exception("%s: a step failed; the requests in it are lost", self._tag)
            self._tell()
            return True
        return False

    def _note(self, scheduler: Scheduler, events: list[TokenEvent]) -> None:
        """Tell what somebody waits for: all of it after a while, an answer's beginning and end at once."""
        self._untold += events
        if monotonic() - self._told >= TELL_SECONDS:
            self._figures.note(scheduler)
            self._tell()
        elif urgent := {event.request_id for event in events if event.is_first or event.finish_reason}:
            self._figures.note(scheduler)
            self._listener.stepped([event for event in self._untold if event.request_id in urgent])
            self._untold = [event for event in self._untold if event.request_id not in urgent]

    def _tell(self) -> None:
        """Say what the steps since the last time gave, unless nobody is to hear of it any more."""
        if self._untold and not self._abandoned:
            self._listener.stepped(self._untold)
        self._untold, self._told = [], monotonic()

    def _obey(self, scheduler: Scheduler) -> bool:
        """Carry out all commands, waiting for one while there is nothing to step. False: stop."""
        changed = False
        while True:
            if not scheduler.has_work:
                self._tell()
            # Once for all that came together.
            if changed and self._commands.empty():
                self._figures.note(scheduler)
                changed = False
            # Whoever waits for a command is well; from the first one on the clock runs.
            self._busy_since = monotonic() if scheduler.has_work else None
            try:
                command = self._commands.get(block=not scheduler.has_work)
            except queue.Empty:
                return True
            if command is None:
                return False
            self._busy_since = monotonic()
            command(scheduler)
            changed = True
