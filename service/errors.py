"""Every error that this package raises. `problem.py` says which HTTP status each becomes.

ModelpressError                 (runtime)
├── ServiceError
│   ├── BindFailed              the address cannot be listened on
│   ├── UnknownModel            no model of that name is served
│   ├── UnknownAdapter          no adapter of that name is loaded
│   ├── Unauthenticated         no API key, or one that is not known
│   ├── Forbidden               the key's scopes do not reach so far
│   ├── UnknownJob              no compression job of that id
│   ├── Conflict                not in this state of the thing that is asked for
│   ├── JobsUnavailable         compression jobs are not allowed, or not possible, here
│   ├── BodyTooLarge            the request's body is over the limit
│   ├── EncodedBody             the request's body is compressed
│   ├── TooBusy                 try again later
│   │   ├── RateLimited         the key's own share is used up
│   │   ├── DeadlineUnmeetable  the queue is longer than the request's deadline
│   │   └── Draining            the server is being stopped
│   ├── DeadlineExceeded        the deadline passed while the request waited
│   └── ModelFailed             the model broke on this request: our fault
└── InputError                  (runtime)
    └── InvalidRequest          a field of the request is missing, misspelt or of the wrong kind
"""

from runtime.errors import InputError, ModelpressError


class ServiceError(ModelpressError):
    """Root of this package's errors."""


class BindFailed(ServiceError):
    """The server cannot listen on that host and port."""


class UnknownModel(ServiceError):
    """No served model has that name, or that version."""


class UnknownAdapter(ServiceError):
    """No adapter of that name is loaded over the model."""


class UnknownJob(ServiceError):
    """No compression job has that id."""


class Conflict(ServiceError):
    """What is asked for does not go with the state that the thing is in."""


class JobsUnavailable(ServiceError):
    """The operator does not allow compression jobs, or the compress extra is not installed."""


class BodyTooLarge(ServiceError):
    """The request's body is larger than the server reads."""


class EncodedBody(ServiceError):
    """The request's body is compressed, which the server does not undo: its size has no bound."""


class Unauthenticated(ServiceError):
    """The request carries no API key, or one that is not known."""


class Forbidden(ServiceError):
    """The request's key may not do this."""


class TooBusy(ServiceError):
    """The bounded queue in front of a model is full. `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimited(TooBusy):
    """A key has as many requests in hand, or in the last second, as it may."""


class DeadlineUnmeetable(TooBusy):
    """What waits already takes longer than the request's deadline allows."""


class Draining(TooBusy):
    """The server finishes what it has and takes nothing new."""


class DeadlineExceeded(ServiceError):
    """The request's deadline passed before its turn came."""


class ModelFailed(ServiceError):
    """The model raised, or gave something that cannot be sent. The client did nothing wrong."""


class InvalidRequest(InputError):
    """A request that does not follow its dialect. `param` is the offending field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param
