"""An event loop whose time passes only by waiting: hours of traffic in a second, the same each time."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Leaping(selectors.SelectSelector):
    """Instead of waiting for what nothing can bring, moves the clock on."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """Nothing ever happens on a file here."""
        self.now += timeout or 0.0
        return super().select(0)


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._leaping = _Leaping()
        super().__init__(self._leaping)

    def time(self) -> float:
        """Seconds since the loop began."""
        return self._leaping.now


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end; its sleeps take no time."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(main)
