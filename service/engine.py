"""A text model at work: the async door to the thread that steps its scheduler.

It keeps who waits for which tokens, admits what can be begun in time, and replaces a thread that hangs.
`stepper.py` is the thread, `generation.py` what one request sees of all this. Everything here belongs to
one event loop; what the thread says arrives by `call_soon_threadsafe`.
"""

import asyncio
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from math import inf

from runtime.errors import InputError, ModelpressError
from runtime.manifest import Manifest
from runtime.model import TextModel
from runtime.sampling import SamplingParams
from runtime.scheduler import Request, Scheduler, TokenEvent
from service import context, metrics
from service.errors import DeadlineExceeded, DeadlineUnmeetable, Draining, ModelFailed, TooBusy
from service.health import Health
from service.stepper import Stepper

# A step is over in far less; a thread that outlasts this is a daemon's and ends with the process.
STOP_SECONDS = 5.0
# Weight of the newest answer in the mean time that an answer holds its slot.
NEWEST = 0.2

# What was told at once of one request is a letter; an error is its last one.
Mailbox = asyncio.Queue[list[TokenEvent] | tuple[str, Exception]]


@dataclass(slots=True)
class _Ticket:
    """One request in hand. Times are the loop's; `first` is that of its first token."""

    mailbox: Mailbox
    prompt_tokens: int
    timer: asyncio.TimerHandle | None = None
    first: float | None = None
    tokens: int = 0


@dataclass(slots=True)
class _Relay:
    """Brings what one stepper says to the loop. An abandoned stepper's relay leads nowhere."""

    engine: "Engine"
    loop: asyncio.AbstractEventLoop
    open: bool = field(default=True)

    def stepped(self, events: list[TokenEvent]) -> None:
        self._call(self.engine._deliver, events)

    def lost(self) -> None:
        self._call(self.engine._lose)

    def broke(self) -> None:
        self._call(self.engine._break)

    def refuse(self, request_id: str, error: Exception) -> None:
        self._call(self.engine._refuse, request_id, error)

    def _call(self, function: Callable[..., None], *args: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self.loop.call_soon_threadsafe(self._pass_on, function, *args)

    def _pass_on(self, function: Callable[..., None], *args: object) -> None:
        if self.open:
            function(*args)


class Engine:
    """Runs one TextModel for any number of requests."""

    def __init__(
        self,
        model: TextModel,
        *,
        slots: int,
        queue_size: int,
        queue_tokens: int = 2**17,
        make_scheduler: Callable[[TextModel, int], Scheduler] = lambda model, slots: model.scheduler(slots),
    ) -> None:
        self.model = model
        self._make_scheduler = make_scheduler
        self.manifest: Manifest = model.manifest
        self.health = Health()
        self.limit = slots + queue_size
        self.failed = False
        self._failed_at = 0.0
        self._slots, self._queue_size, self._queue_tokens = slots, queue_size, queue_tokens
        self._ids = count()
        self._tickets: dict[str, _Ticket] = {}
        self._silent_tokens = 0
        self._hold = 0.0
        self._stepper: Stepper
        self._relay: _Relay
        self._generated = metrics.GENERATION_TOKENS.labels(self.manifest.tag)

    def start(self) -> None:
        """Start the thread. Events will be delivered on the running loop."""
        self.failed = False
        # Nothing here points back: a stopped engine's memory must not wait for the garbage collector.
        self._relay = _Relay(weakref.proxy(self), asyncio.get_running_loop())
        make = partial(self._make_scheduler, self.model, self._slots)
        self._stepper = Stepper(self.manifest.tag, make, self._relay)
        self._stepper.start()

    async def stop(self) -> None:
        """End the thread after the step that is running."""
        self._stepper.stop()
        await asyncio.to_thread(self._stepper.join, STOP_SECONDS)
        # If it hangs, it must not speak to an engine that is gone.
        self._stepper.abandon()

    def restart(self) -> None:
        """Give up a thread that hangs, fail what it had, and start another with KV buffers of its own."""
        metrics.ENGINE_RESTARTS.labels(self.manifest.tag).inc()
        self._relay.open = False
        self._stepper.abandon()
        self._lose()
        self.start()

    def stuck_for(self) -> float:
        """Seconds for which the thread has given no sign of life although it has something to do."""
        return self._stepper.stuck_for()

    def failed_for(self) -> float:
        """Seconds since no scheduler could be made; 0 while there is one."""
        return self._relay.loop.time() - self._failed_at if self.failed else 0.0

    @property
    def backlog(self) -> float:
        """Seconds until a request that came now would hold a slot, going by how long the last ones did."""
        ahead = len(self._tickets) - self._slots + 1
        return max(0, ahead) * self._hold / self._slots

    @property
    def pressure(self) -> float:
        """How full the queue is, from 0 to 1."""
        return max(0, len(self._tickets) - self._slots) / max(1, self._queue_size)

    def admit(self, requests: Sequence[Request], mailbox: Mailbox) -> list[str]:
        """Queue the requests, all or none, under ids of the engine's own: these.

        Raises TooBusy, DeadlineUnmeetable, or InputError for more than ever fit.
        """
        self._check(len(requests), sum(len(request.prompt) for request in requests))
        deadline = context.deadline()
        # No key's holder can tell from the time taken what another has asked.
        salt = context.tenant()
        named = [replace(each, id=str(next(self._ids)), salt=salt) for each in requests]
        return [self._add(request, mailbox, deadline) for request in named]

    def expect(self, sent: int = 0) -> None:
        """A request comes. Raises what `admit` would raise whatever it says, however many bytes it has."""
        self._check(1, 1)

    async def try_out(self, timeout: float) -> None:
        """Generate a token for nobody. Raises ModelFailed where that fails, or takes over `timeout` s."""
        mailbox: Mailbox = asyncio.Queue()
        asked = Request("", [0], SamplingParams(max_tokens=1, temperature=0))
        # No deadline and no key: whoever wants it loaded is not who asks.
        (request_id,) = Context().run(self.admit, [asked], mailbox)
        letter = None
        with suppress(TimeoutError):
            letter = await asyncio.wait_for(mailbox.get(), timeout)
        self._drop(request_id)
        self._cancel(request_id)
        if not isinstance(letter, list):
            raise ModelFailed(f"{self.manifest.tag} cannot generate a token; what was served before still is")

    def forget(self, request_id: str, *, finished: bool) -> None:
        """Take no more events for a request; it is cancelled, unless its answer is finished."""
        self._drop(request_id)
        if not finished:
            self._cancel(request_id)

    def end(self, request_id: str) -> None:
        """An answer is over and the scheduler does not know it, because a stop string was reached."""
        self._succeed(self._drop(request_id), self._relay.loop.time())
        self._cancel(request_id)

    def _drop(self, request_id: str) -> _Ticket:
        ticket = self._tickets.pop(request_id)
        if ticket.timer:
            ticket.timer.cancel()
        if ticket.first is None:
            self._silent_tokens -= ticket.prompt_tokens
        return ticket

    def _cancel(self, request_id: str) -> None:
        """Free a slot."""
        self._stepper.submit(lambda scheduler: scheduler.cancel(request_id))

    def check_count(self, prompts: int) -> None:
        """Raise InputError for more prompts in one request than are ever taken; to be asked first."""
        if prompts > self.limit:
            raise InputError(f"{prompts} prompts in one request; send at most {self.limit}")

    def _check(self, prompts: int, tokens: int) -> None:
        """Raise what says why so much more cannot be begun now."""
        if self.failed:
            raise ModelFailed(f"{self.manifest.tag} is out of order; restart the server")
        self._check_room(prompts, tokens)
        if asyncio.get_running_loop().time() + self.backlog > context.deadline():
            metrics.REJECTIONS.labels("deadline").inc()
            raise DeadlineUnmeetable(
                f"{self.manifest.tag} would begin in {self.backlog:.1f} s, too late for this request; "
                "allow more time or try again later",
                self.backlog,
            )

    def _check_room(self, prompts: int, tokens: int) -> None:
        tag, in_hand = self.manifest.tag, len(self._tickets)
        self.check_count(prompts)
        if in_hand + prompts > self.limit:
            metrics.REJECTIONS.labels("queue_full").inc()
            raise TooBusy(f"{tag} has {in_hand} prompts in hand; try again in a moment", self.backlog)
        if self._silent_tokens and self._silent_tokens + tokens > self._queue_tokens:
            metrics.REJECTIONS.labels("queue_full").inc()
            raise TooBusy(
                f"prompts of {self._silent_tokens} tokens wait for {tag}; try again in a moment", self.backlog
            )

    def _add(self, request: Request, mailbox: Mailbox, deadline: float) -> str:
        ticket = _Ticket(mailbox, len(request.prompt))
        if deadline < inf:
            ticket.timer = self._relay.loop.call_at(deadline, self._expire, request.id)
        self._tickets[request.id] = ticket
        self._silent_tokens += ticket.prompt_tokens
        relay = self._relay

        def add(scheduler: Scheduler) -> None:
            try:
                scheduler.add(request)
            except ModelpressError as error:
                relay.refuse(request.id, error)

        self._stepper.submit(add)
        return request.id

    def _expire(self, request_id: str) -> None:
        metrics.REJECTIONS.labels("expired").inc()
        self._refuse(
            request_id,
            DeadlineExceeded(f"{self.manifest.tag} could not begin before the deadline; try again"),
        )

    def _deliver(self, events: list[TokenEvent]) -> None:
        letters: dict[str, list[TokenEvent]] = {}
        for event in events:
            letters.setdefault(event.request_id, []).append(event)
        now, silent = self._relay.loop.time(), 0
        for request_id, letter in letters.items():
            silent += letter[-1].token_id is None
            if ticket := self._tickets.get(request_id):
                self._note(ticket, letter, now)
                ticket.mailbox.put_nowait(letter)
        self._generated.inc(len(events) - silent)

    def _note(self, ticket: _Ticket, letter: list[TokenEvent], now: float) -> None:
        ticket.tokens += len(letter) - (letter[-1].token_id is None)
        if ticket.first is None:
            ticket.first = now
            self._silent_tokens -= ticket.prompt_tokens
            if ticket.timer:
                ticket.timer.cancel()
        if letter[-1].finish_reason:
            self._succeed(ticket, now)

    def _succeed(self, ticket: _Ticket, now: float) -> None:
        """An answer is whole: how long it held its slot, and each of its tokens."""
        self.health.succeeded()
        held = now - (ticket.first or now)
        self._hold += NEWEST * (held - self._hold) if self._hold else held
        if ticket.tokens > 1:
            per_token = held / (ticket.tokens - 1)
            metrics.TIME_PER_OUTPUT_TOKEN.labels(self.manifest.tag).observe(per_token)

    def _refuse(self, request_id: str, error: Exception) -> None:
        if ticket := self._tickets.get(request_id):
            ticket.mailbox.put_nowait((request_id, error))

    def cut_off(self) -> None:
        """End every answer where it is: the server stops. That is no fault of the model's."""
        self._refuse_all(Draining, "the server stopped before the answer was whole; send this to another one")

    def _lose(self) -> None:
        self._fail_all(f"{self.manifest.tag} failed while generating; try again")

    def _break(self) -> None:
        self.failed, self._failed_at = True, self._relay.loop.time()
        self._fail_all(f"{self.manifest.tag} is out of order; restart the server")

    def _fail_all(self, message: str) -> None:
        self._refuse_all(ModelFailed, message)
        self.health.failed()

    def _refuse_all(self, kind: type[ModelpressError], message: str) -> None:
        # An error each: raised in several tasks, one would collect their tracebacks.
        for request_id in self._tickets:
            self._refuse(request_id, kind(message))
