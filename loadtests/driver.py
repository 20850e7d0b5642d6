"""Sends a plan and collects the samples: the open loop, the closed loop, and conversations in either.

Open loop: a request goes out at its planned time whether or not the ones before it have been answered. A
later turn of a conversation, and everything in a closed loop, is planned for when its user is ready: the end
of the answer before it and the pause after that. Each request has its own deadline, so a run ends at most
one timeout after its last send, whatever the server does.
"""

import asyncio
import time
from array import array
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from loadtests.client import Client, Exchange
from loadtests.pacing import Pacer, now
from loadtests.plan import Plan
from loadtests.recording import Recording
from loadtests.sample import Manner, Sample

# A user whose request failed asks again after this long, so that a dead server is not asked 10,000 times.
ERROR_PAUSE_S = 0.1


@dataclass(slots=True)
class User:
    """Somebody who waits for answers. `waiting` is for how many of the requests that were sent together."""

    waiting: int = 0


@dataclass(slots=True)
class Talk:
    """A conversation so far: what the server said, and who of a closed loop has it."""

    user: User | None
    said: list[str] = field(default_factory=list)


class Driver:
    """One run of one plan. It may be cancelled at any time, and then `stop` ends what is still going on."""

    def __init__(self, client: Client, plan: Plan, timeout: float, recording: Recording) -> None:
        self._client, self._plan, self._timeout, self._recording = client, plan, timeout, recording
        self._in_flight: dict[int, Exchange] = {}
        self._waiting: dict[int, asyncio.TimerHandle] = {}
        self._next_head = 0
        self._all_sent = False
        self._quiet = asyncio.Event()

    async def drive(self) -> None:
        """From the first send to the last answer."""
        # Waiting for the start takes no time of the core, and is no part of the share.
        began, cpu_before = max(now(), self._recording.start), time.thread_time()
        if self._plan.users is None:
            await self._pace()
            self._note_cpu(began, cpu_before)
            self._all_sent = True
            self._check()
            await self._quiet.wait()
        else:
            self._start_users(self._plan.users)
            await self._quiet.wait()
            self._note_cpu(began, cpu_before)
        self._recording.ended_at = now()

    def stop(self) -> None:
        """Send nothing more, and give up what has not been answered."""
        for timer in self._waiting.values():
            timer.cancel()
        for exchange in self._in_flight.values():
            exchange.stop()
        self._waiting.clear()
        self._in_flight.clear()

    async def _pace(self) -> None:
        heads = np.asarray(self._plan.heads)
        offsets = array("d", self._plan.offset[heads].tobytes())
        pacer = Pacer(self._recording.start, offsets, self._launch)
        try:
            await pacer.finished.wait()
        finally:
            pacer.stop()

    def _launch(self, index: int) -> None:
        row = self._plan.heads[index]
        self._send(row, self._recording.start + float(self._plan.offset[row]), Talk(None))

    def _start_users(self, count: int) -> None:
        for user in [User() for _ in range(count)]:
            self._ask_next(user, self._recording.start)
        self._check()

    def _ask_next(self, user: User, ready: float) -> None:
        """Let the user send its next requests, `at_once` of them, unless the run is over."""
        if self._next_head >= len(self._plan.heads) and self._plan.endless:
            self._next_head = 0
        heads = self._plan.heads[self._next_head : self._next_head + self._plan.at_once]
        if not heads or ready > self._recording.start + self._plan.span:
            return
        self._next_head += len(heads)
        user.waiting = len(heads)
        for head in heads:
            self._send_at(head, ready, Talk(user))

    def _send_at(self, row: int, planned: float, talk: Talk) -> None:
        delay = planned - now()
        if delay <= 0:
            self._send(row, planned, talk)
            return
        later = asyncio.get_running_loop().call_later(delay, self._wake, row, planned, talk)
        self._waiting[row] = later

    def _wake(self, row: int, planned: float, talk: Talk) -> None:
        """Timers may fire a fraction of a millisecond early: then the user was ready that much sooner."""
        del self._waiting[row]
        self._send(row, min(planned, now()), talk)

    def _send(self, row: int, planned: float, talk: Talk) -> None:
        plan = self._plan
        exchange = Exchange(self._client.pool, plan.call(row), planned, partial(self._ended, talk), row)
        self._in_flight[row] = exchange
        self._recording.sent += 1
        exchange.start(self._timeout, talk.said, plan.conduct(row))

    def _ended(self, talk: Talk, sample: Sample) -> None:
        del self._in_flight[sample.row]
        self._recording.add(sample)
        if self._plan.is_later(sample.row + 1) and self._go_on(talk, sample):
            return
        if talk.user is not None:
            self._answered(talk.user, sample)
        self._check()

    def _go_on(self, talk: Talk, sample: Sample) -> bool:
        """Plan the next turn; False where there is none to be."""
        row = sample.row + 1
        planned = sample.ended + float(self._plan.pause[row])
        over = planned > self._recording.start + self._plan.span
        if sample.error is not None or sample.manner is Manner.CANCEL or over:
            while self._plan.is_later(row):
                self._recording.skipped += 1
                row += 1
            return False
        talk.said.append(sample.text)
        self._send_at(row, planned, talk)
        return True

    def _answered(self, user: User, sample: Sample) -> None:
        user.waiting -= 1
        if user.waiting == 0:
            heads = self._plan.heads
            pause = float(self._plan.pause[heads[self._next_head % len(heads)]])
            pause = pause if sample.error is None else max(pause, ERROR_PAUSE_S)
            self._ask_next(user, sample.ended + pause)

    def _check(self) -> None:
        """Nobody sends, nobody waits: the run is over."""
        over = self._all_sent or self._plan.users is not None
        if over and not self._in_flight and not self._waiting:
            self._quiet.set()

    def _note_cpu(self, began: float, cpu_before: float) -> None:
        self._recording.cpu_share = (time.thread_time() - cpu_before) / max(now() - began, 1e-9)
