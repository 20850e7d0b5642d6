"""What is known of the request that is being answered, wherever its code runs.

A context variable carries it from the middleware to the queues, so that no function in between passes on
what only the queues want: the deadline, the key, and back the model that answers. Work outside of any
request, such as a test or a warm-up, finds no context and has no deadline.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from runtime.manifest import Manifest

if TYPE_CHECKING:
    from service.batcher import Batcher
    from service.engine import Engine
    from service.keys import Key


@dataclass(slots=True)
class RequestContext:
    """One request. `deadline` is a time of the event loop's clock, in seconds.

    `status` is that of its answer, once it has begun; `finished` says that all of it has been sent.
    """

    id: str
    deadline: float = inf
    key: "Key | None" = None
    manifest: Manifest | None = None
    alias: str | None = None
    shadow: "Batcher | None" = None
    text_shadow: "Engine | None" = None
    status: int | None = None
    finished: bool = False


_current: ContextVar[RequestContext | None] = ContextVar("modelpress_request", default=None)


def enter(context: RequestContext) -> None:
    """Make `context` that of the running task and of all that it starts."""
    _current.set(context)


def current() -> RequestContext | None:
    """The request that is being answered, if any."""
    return _current.get()


def text_shadow() -> "Engine | None":
    """Who reads a second time what a text model answers to this request, if anybody."""
    context = _current.get()
    return context.text_shadow if context else None


def tenant() -> str:
    """Whose request is being answered: the key's name; nobody's in particular where no keys are asked for."""
    context = _current.get()
    return context.key.name if context and context.key else ""


def deadline() -> float:
    """When the answer that is being made will be worth nothing; infinity outside of a request."""
    context = _current.get()
    return context.deadline if context else inf
