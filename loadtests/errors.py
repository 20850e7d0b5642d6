"""Everything that can go wrong in this package.

LoadTestError            one line for the user: what was wrong, where, what to do; exit code 2
├── InvalidScenario      the scenario file or a file that it names: missing, unreadable, a wrong key or value
├── InvalidOption        an option of the command line
├── InvalidResult        a file that should hold the result of a run, and does not
└── ProbeFailed          the server cannot be reached, refuses us, or does not speak the dialect
BadAnswer                one response was no good answer; counted by kind, never ends a run
TransportError           no whole response came; counted by kind, never ends a run
├── ConnectFailed        nobody accepted the connection
├── Dropped              the connection ended before the response did
└── NotHTTP              what came is no HTTP/1.1 response, or more than it said it would be
"""


class LoadTestError(Exception):
    """The load test cannot run. The message is one line."""


class InvalidScenario(LoadTestError):
    """The scenario file cannot be used as it is."""


class InvalidOption(LoadTestError):
    """An option contradicts the scenario, or cannot be used on this machine."""


class InvalidResult(LoadTestError):
    """A file holds no result, or one that does not fit to the others."""


class ProbeFailed(LoadTestError):
    """The server did not answer the probe before the run."""


class BadAnswer(Exception):
    """A response came, and its status or its body is not a good one's.

    `kind` is what it is counted as: `http_503`, `bad_body`, `truncated` or `error_in_stream`.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class TransportError(Exception):
    """The exchange of bytes failed."""


class ConnectFailed(TransportError):
    """There is no connection. The cause is an OSError."""


class Dropped(TransportError):
    """The connection closed in the middle."""


class NotHTTP(TransportError):
    """The bytes are no response."""
