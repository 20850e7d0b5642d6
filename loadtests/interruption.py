"""Signals that end a command: Ctrl-C, SIGTERM, and the hangup of the terminal. The first is asked, not fatal.

Whoever measures says with `calling` how it is asked to end, and what it has until then is delivered; with
nobody to ask it is a KeyboardInterrupt. Further ones change nothing, as a service manager sends SIGTERM to
every process of ours; but a second Ctrl-C is a person who does not want to wait.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# What a shell adds to the number of the signal that has ended a program.
BY_SIGNAL = 128

_to_call: list[Callable[[], object]] = []


class Heeded:
    """The first signal that has come, if one has, and whether a Ctrl-C came after it."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.impatient = False

    @property
    def exit_code(self) -> int | None:
        """130 after Ctrl-C, 143 after SIGTERM, as shells have it; None when nothing has come."""
        return None if self.first is None else BY_SIGNAL + self.first

    def come(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal."""
        if self.first is not None:
            if number == signal.SIGINT:
                self.impatient = True
                raise KeyboardInterrupt
            return
        self.first = number
        if not _to_call:
            raise KeyboardInterrupt
        _to_call[-1]()


@contextmanager
def heeded() -> Iterator[Heeded]:
    """Heeds signals until the end of the context, but for those that our parent has us ignore.

    Only a main thread can: elsewhere nothing is changed.
    """
    heeding, before = Heeded(), {}
    if threading.current_thread() is threading.main_thread():
        known = {number: signal.getsignal(number) for number in SIGNALS}
        before = {number: how for number, how in known.items() if how is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, heeding.come)
    try:
        yield heeding
    finally:
        for number, how in before.items():
            signal.signal(number, how)


@contextmanager
def calling(end: Callable[[], object]) -> Iterator[None]:
    """Until the end of the context, a signal that is heeded calls `end`, between any two instructions."""
    _to_call.append(end)
    try:
        yield
    finally:
        _to_call.pop()
