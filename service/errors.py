"""Every error that this package raises. `problem.py` says which HTTP status each becomes.

ModelpressError                 (runtime)
├── ServiceError
│   ├── BindFailed              the address cannot be listened on
│   ├── UnknownModel            no model of that name is served
│   ├── BodyTooLarge            the request's body is over the limit
│   ├── TooBusy                 the queue is full; try again later
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


class BodyTooLarge(ServiceError):
    """The request's body is larger than the server reads."""


class TooBusy(ServiceError):
    """The bounded queue in front of a model is full."""


class ModelFailed(ServiceError):
    """The model raised, or gave something that cannot be sent. The client did nothing wrong."""


class InvalidRequest(InputError):
    """A request that does not follow its dialect. `param` is the offending field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param
