"""A few threads for all that computes and is not an engine, with a bounded queue in front.

It does not batch. A request that is cancelled while it waits is never run; one that runs, runs to its end.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from service.errors import TooBusy

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """Runs functions in `threads` threads, with at most `queue` more that wait."""

    def __init__(self, threads: int, queue: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="model")
        self._limit = threads + queue
        self._pending = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in a thread. Raises TooBusy instead of waiting in a queue that is full."""
        if self._pending >= self._limit:
            raise TooBusy(
                f"{self._pending} requests are being answered or wait already; try again in a moment"
            )
        self._pending += 1
        try:
            return await asyncio.wrap_future(self._executor.submit(function, *args, **kwargs))
        finally:
            self._pending -= 1

    def close(self) -> None:
        """End the threads; what waits is dropped."""
        self._executor.shutdown(wait=False, cancel_futures=True)
