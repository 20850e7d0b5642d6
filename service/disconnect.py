"""Work that ends when its client does.

It runs in the caller's own task, which is cancelled where the client hangs up: only watching takes a task.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

T = TypeVar("T")


async def while_connected(receive: Receive, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled if the client hangs up first: then ClientDisconnect.

    The request's body must have been read: what is left of it is thrown away.
    """
    task, hung_up, over = asyncio.current_task(), False, False
    assert task is not None

    def end(watch: asyncio.Task[None]) -> None:
        nonlocal hung_up
        # It may be called a turn of the loop after the client went, and the work be over by then.
        if not over and not watch.cancelled():
            hung_up = True
            task.cancel()

    watch = asyncio.ensure_future(_hang_up(receive))
    watch.add_done_callback(end)
    try:
        return await work
    except asyncio.CancelledError:
        # Whoever else cancels this task means more than this work.
        if hung_up and not task.uncancel():
            raise ClientDisconnect from None
        raise
    finally:
        over = True
        watch.cancel()


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
