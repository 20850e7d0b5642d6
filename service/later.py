"""What can be done at the end of the event loop's turn, or a moment later, for all requests of it at once.

Bookkeeping between two requests finds its code and data evicted by the model that ran, and takes several
times as long as the same work in one go. The trade-off: it is done a moment after the answer has left, before
anything is read that came later.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Later(Generic[T]):
    """Collects things, and gives all that a turn of the running loop brought to `handle`.

    With `seconds`, all that so long a time brought.
    """

    def __init__(self, handle: Callable[[Sequence[T]], None], seconds: float = 0.0) -> None:
        self._handle, self._seconds = handle, seconds
        self._things: list[T] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, thing: T) -> None:
        """One more."""
        loop = asyncio.get_running_loop()
        # A loop that was closed meanwhile has taken its last turn.
        if not self._things or loop is not self._loop:
            self._loop = loop
            if self._seconds:
                loop.call_later(self._seconds, self._run)
            else:
                loop.call_soon(self._run)
        self._things.append(thing)

    def _run(self) -> None:
        things, self._things = self._things, []
        self._handle(things)
