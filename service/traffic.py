"""The requests in flight: counted, waited for, and refused once the server is being stopped.

What is unloaded is stopped after every request that may have found it is over; that is what `settled` waits
for. No model keeps count of its users. The trade-off: one long stream delays the stop of a model that it
never asked for.
"""

import asyncio

from service.errors import Draining


class Traffic:
    """Requests in flight, on one event loop."""

    def __init__(self) -> None:
        self.draining = False
        self._number = 0
        self._active: set[int] = set()
        self._waiting: list[tuple[set[int], asyncio.Event]] = []

    def __len__(self) -> int:
        return len(self._active)

    def enter(self) -> int:
        """Begin a request: its number. Raises Draining."""
        if self.draining:
            raise Draining("the server is being stopped; send this to another one")
        self._number += 1
        self._active.add(self._number)
        return self._number

    def leave(self, number: int) -> None:
        """End a request."""
        self._active.discard(number)
        for before, over in self._waiting:
            before.discard(number)
            if not before:
                over.set()

    async def settled(self) -> None:
        """Wait until every request that is in flight now is over. Later ones do not matter."""
        if not self._active:
            return
        entry = (set(self._active), asyncio.Event())
        self._waiting.append(entry)
        try:
            await entry[1].wait()
        finally:
            self._waiting.remove(entry)


# The process's own: the middleware, the catalog and the server must mean the same one.
here = Traffic()
