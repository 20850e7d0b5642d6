"""Clients of feed-forward models that hang up while others are before them: their rows are not computed.

Text is watched in any case (`disconnect.py`), for it takes long. A model that answers in a millisecond is
not: to watch a connection costs a task, and whoever leaves within so short a time is answered anyway.
"""

from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from service.batcher import Batcher
from service.disconnect import while_connected

T = TypeVar("T")

# A wait that is worth watching.
WATCH_SECONDS = 0.02


async def unless_left(receive: Receive, model: Batcher, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which asks `model`. Raises ClientDisconnect where the client leaves a long queue.

    The request's body must have been read.
    """
    if not model.running or max(model.backlog, model.stuck_for()) < WATCH_SECONDS:
        return await work
    return await while_connected(receive, work)
