"""A few threads for parsing and picture decoding, with a bounded queue in front.

It runs no model: `batcher.py` and `engine.py` do. A request that is cancelled while it waits is never run;
one that runs, runs to its end.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from service import metrics
from service.errors import TooBusy

P = ParamSpec("P")
T = TypeVar("T")

# Parsing this much takes about as long as a thread and back.
SMALL = 16 * 1024


class Pool:
    """Runs functions in `threads` threads, with at most `queue` more that wait."""

    def __init__(self, threads: int, queue: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="work")
        self._limit = threads + queue
        self._pending = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in a thread. Raises TooBusy instead of waiting in a queue that is full."""
        if self._pending >= self._limit:
            metrics.REJECTIONS.labels("queue_full").inc()
            raise TooBusy(
                f"{self._pending} requests are being answered or wait already; try again in a moment"
            )
        self._pending += 1
        try:
            return await asyncio.wrap_future(self._executor.submit(function, *args, **kwargs))
        finally:
            self._pending -= 1

    async def parse(self, function: Callable[P, T], size: float, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` on `size` bytes: at once where they are few, in a thread where they are many.

        What takes as long as parsing so many bytes of JSON counts like them.
        """
        if size <= SMALL:
            return function(*args, **kwargs)
        return await self.run(function, *args, **kwargs)

    def close(self) -> None:
        """End the threads; what waits is dropped."""
        self._executor.shutdown(wait=False, cancel_futures=True)
