"""One request over HTTP: sends it, times it, and names what went wrong.

Every way a request can end becomes a `Sample`; nothing is raised. There is one deadline for the whole
exchange, so a server that trickles cannot hold a request for longer. Nothing is tried twice: the second
attempt would hide the first one's failure. An exchange is a few callbacks instead of a task, because that is
what most of a request's cost would be.
"""

import asyncio
import errno
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from loadtests.address import API_KEY_VARIABLE, Address
from loadtests.dialects.exchange import Call, excerpt, fill
from loadtests.errors import BadAnswer, ConnectFailed, Dropped, InvalidOption, NotHTTP, TransportError
from loadtests.pacing import now
from loadtests.sample import Manner, Sample
from loadtests.wire import Connection, Pool

# The machine that sends has run out of something: not the server's failure.
OUR_LIMITS = {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}

# How much of an answer that is not wanted is kept, to quote from it.
EXCERPT_BYTES = 1000


@dataclass(frozen=True, slots=True)
class Ready:
    """A call as it will go over the wire: the head, which lacks the length of a body with answers in it."""

    call: Call
    request: int
    wire: bytes

    def bytes_for(self, answers: Sequence[str]) -> bytes:
        """The whole request. `answers` are those of the conversation so far."""
        pieces = self.call.body
        if pieces is None or len(pieces) == 1:
            return self.wire
        body = fill(pieces, answers)
        return b"%sContent-Length: %d\r\n\r\n%s" % (self.wire, len(body), body)


@dataclass(frozen=True, slots=True)
class Conduct:
    """How one client behaves: it leaves `cancel_after` seconds after sending, or reads at `bytes_per_s`."""

    manner: Manner = Manner.NORMAL
    cancel_after: float = 0.0
    bytes_per_s: float = 0.0


NORMAL = Conduct()


class Client:
    """Sends to one server. Open it before use; `headers` go out with every request.

    Raises InvalidOption for a key that is none.
    """

    def __init__(
        self, address: Address, headers: Mapping[str, str] | None = None, key_header: str = "Authorization"
    ) -> None:
        self.address = address
        self.pool = Pool(address)
        self._headers = {"Host": address.authority, "User-Agent": "modelpress-loadtest", "Accept": "*/*"}
        self._headers |= dict(headers or {})
        if key := os.environ.get(API_KEY_VARIABLE, "").strip():
            if not (key.isascii() and key.isprintable()):
                raise InvalidOption(
                    f"{API_KEY_VARIABLE}: a key is one line of ASCII, as it goes into a header"
                )
            self._headers[key_header] = f"Bearer {key}" if key_header == "Authorization" else key

    async def __aenter__(self) -> "Client":
        await self.pool.resolve()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.pool.close()

    def prepare(self, call: Call, request: int) -> Ready:
        """Serialise everything of a call that can be serialised before the run."""
        lines = [f"{call.method} {self.address.path}{call.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in (*self._headers.items(), *call.headers.items())]
        body = call.body
        if body is not None:
            lines.append(f"Content-Type: {call.content_type}")
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n"
        if body is None:
            return Ready(call, request, head + b"\r\n")
        if len(body) > 1:
            return Ready(call, request, head)
        return Ready(call, request, b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body[0]), body[0]))

    async def ask(self, ready: Ready, timeout: float, answers: Sequence[str] = ()) -> Sample:
        """Send one request now and wait for its end."""
        ended: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
        exchange = Exchange(self.pool, ready, now(), ended.set_result)
        exchange.start(timeout, answers)
        try:
            return await ended
        finally:
            exchange.stop()


class Exchange:
    """One request and its response. `ended` is called once, with the sample, unless it is stopped before."""

    __slots__ = (
        "_bytes_per_s",
        "_connecting",
        "_connection",
        "_cut",
        "_deadline",
        "_ended",
        "_over",
        "_pool",
        "_reader",
        "_reads_at",
        "_ready",
        "_refused",
        "sample",
    )

    def __init__(
        self, pool: Pool, ready: Ready, planned: float, ended: Callable[[Sample], None], row: int = 0
    ) -> None:
        self._pool, self._ready, self._ended = pool, ready, ended
        self.sample = Sample(ready.request, planned, sent=now(), row=row, rows=ready.call.rows)
        self._reader = ready.call.new_reader()
        self._refused: bytearray | None = None
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._cut: asyncio.TimerHandle | None = None
        self._bytes_per_s = 0.0
        self._reads_at = 0.0
        self._over = False

    def start(self, timeout: float, answers: Sequence[str] = (), conduct: Conduct = NORMAL) -> None:
        """Send now, and end after `timeout` seconds at the latest."""
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(timeout, self._timed_out)
        wire = self._ready.bytes_for(answers)
        if conduct.manner is not Manner.NORMAL:
            self._behave(loop, conduct)
        connection = None if self._bytes_per_s else self._pool.take()
        if connection is None:
            self._connecting = loop.create_task(self._connect(wire))
        else:
            self._connection = connection
            connection.request(wire, self)

    def stop(self) -> None:
        """Give up without a sample."""
        if not self._over:
            self._finish()
            self._hang_up()

    def head(self, status: int) -> None:
        self.sample.status = status
        if status not in self._ready.call.expected:
            self._refused = bytearray()

    def body(self, chunk: bytes, arrived: float) -> None:
        if self._refused is not None:
            self._refused += chunk[: EXCERPT_BYTES - len(self._refused)]
            return
        try:
            self._reader.feed(chunk, arrived)
        except Exception as error:
            self._hang_up()
            self._fail(error)
            return
        if self._bytes_per_s:
            self._pause(len(chunk) / self._bytes_per_s)

    def done(self) -> None:
        ended = now()
        if self._refused is not None:
            self._fail(BadAnswer(f"http_{self.sample.status}", excerpt(bytes(self._refused))))
            return
        try:
            answer = self._reader.finish()
        except Exception as error:
            self._fail(error)
            return
        self.sample.tokens, self.sample.token_times = answer.tokens, answer.token_times
        self.sample.text = answer.text
        self._end(ended)

    def failed(self, error: TransportError) -> None:
        self._fail(error)

    async def _connect(self, wire: bytes) -> None:
        try:
            self._connection = await self._pool.connect(slow=bool(self._bytes_per_s))
        except Exception as error:
            if not self._over:
                self._fail(error)
            return
        if self._over:
            self._connection.abort()
        else:
            self._connection.request(wire, self)

    def _behave(self, loop: asyncio.AbstractEventLoop, conduct: Conduct) -> None:
        self.sample.manner = conduct.manner
        if conduct.manner is Manner.CANCEL:
            self._cut = loop.call_later(conduct.cancel_after, self._leave)
        else:
            self._bytes_per_s = conduct.bytes_per_s

    def _pause(self, seconds: float) -> None:
        """Read on so much later; the pauses of chunks that came together add up."""
        connection, loop = self._connection, asyncio.get_running_loop()
        if connection is None or connection.transport.is_closing():
            return
        if self._cut is not None:
            self._cut.cancel()
        self._reads_at = max(self._reads_at, loop.time()) + seconds
        connection.transport.pause_reading()
        self._cut = loop.call_at(self._reads_at, connection.transport.resume_reading)

    def _leave(self) -> None:
        self._hang_up()
        self._end(now())

    def _timed_out(self) -> None:
        self._hang_up()
        self._fail(TimeoutError())

    def _hang_up(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.abort()

    def _fail(self, error: Exception) -> None:
        sample = self.sample
        sample.error, sample.detail = kind_of(error, sample.status), detail_of(error)
        self._end(now())

    def _end(self, ended: float) -> None:
        self._finish()
        self.sample.ended = ended
        self._ended(self.sample)

    def _finish(self) -> None:
        self._over = True
        self._deadline.cancel()
        if self._cut is not None:
            self._cut.cancel()


def kind_of(error: Exception, status: int) -> str:
    """What a failure is counted as. `status` is 0 when no response had begun.

    `generator` is everything that is our own failure, and makes a run invalid.
    """
    match error:
        case TimeoutError():
            return "timeout"
        case BadAnswer():
            return error.kind
        case ConnectFailed(__cause__=OSError(errno=code)) if code in OUR_LIMITS:
            return "generator"
        case ConnectFailed():
            return "connect"
        case Dropped():
            return "truncated" if status else "disconnected"
        case NotHTTP():
            return "bad_http"
    return "generator"


def detail_of(error: Exception) -> str:
    """What to show of a failure, on one line: the operating system's words where there are any."""
    match error:
        case ConnectFailed(__cause__=ssl.SSLError() as cause):
            error = cause
        case ConnectFailed(__cause__=OSError(errno=int(code))) if code > 0:
            return os.strerror(code)
        case ConnectFailed(__cause__=OSError() as cause):
            error = cause
    return " ".join(str(error).split()) or type(error).__name__
