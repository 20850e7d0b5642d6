"""One request over HTTP: sends it, times it, and names what went wrong.

Every way a request can end becomes a `Sample`; nothing but cancellation is raised. There is one deadline
for the whole exchange, so a server that trickles cannot hold a request for longer. Redirects are not
followed, cookies and proxies not used, and nothing is tried twice: the second attempt would hide the first
one's failure.
"""

import asyncio
import errno
import os
from dataclasses import dataclass, field
from itertools import pairwise

import aiohttp

from loadtests.dialects.exchange import JSON_HEADERS, excerpt
from loadtests.errors import BadAnswer
from loadtests.pacing import now
from loadtests.plan import API_KEY_VARIABLE, Arrival

# Below the 5 s after which uvicorn and Node close an idle connection: a request must not race with that.
KEEPALIVE_S = 4.0

# The machine that sends has run out of something: not the server's failure.
OUR_LIMITS = {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}


@dataclass(slots=True)
class Sample:
    """What one request did. Clock times in seconds; properties in milliseconds, rounded to the microsecond.

    `latency_ms` counts from the planned time, `service_ms` from the real sending, `lag_ms` between the two.
    """

    request: int
    planned: float
    sent: float
    ended: float = 0.0
    status: int = 0
    error: str | None = None
    detail: str = ""
    tokens: int | None = None
    token_times: tuple[float, ...] = field(default=(), repr=False)

    @property
    def latency_ms(self) -> float:
        return milliseconds(self.ended - self.planned)

    @property
    def service_ms(self) -> float:
        return milliseconds(self.ended - self.sent)

    @property
    def lag_ms(self) -> float:
        return milliseconds(self.sent - self.planned)

    @property
    def ttft_ms(self) -> float | None:
        return milliseconds(self.token_times[0] - self.planned) if self.token_times else None

    @property
    def tpot_ms(self) -> float | None:
        """(E2E - TTFT) / (n - 1); None for a whole answer and for a single token."""
        if self.ttft_ms is None or self.tokens is None or self.tokens < 2:
            return None
        return round((self.latency_ms - self.ttft_ms) / (self.tokens - 1), 3)

    @property
    def gaps_ms(self) -> list[float]:
        """Inter-token latencies."""
        return [milliseconds(after - before) for before, after in pairwise(self.token_times)]


def milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def connect() -> aiohttp.ClientSession:
    """A session without a limit on connections: an open loop must not queue in its own client."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "modelpress-loadtest"}
    if key := os.environ.get(API_KEY_VARIABLE):
        headers["Authorization"] = f"Bearer {key}"
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=None, keepalive_timeout=KEEPALIVE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(),
        headers=headers,
    )
    # aiohttp repeats an idempotent request when a kept connection was dropped, and offers no switch.
    session._retry_connection = False
    return session


async def send(session: aiohttp.ClientSession, arrival: Arrival, planned: float, timeout: float) -> Sample:
    """Send now what was planned for `planned`, and wait for its end, at most `timeout` seconds."""
    sample = Sample(arrival.request, planned, sent=now())
    try:
        async with asyncio.timeout(timeout):
            await _exchange(session, arrival, sample)
    except Exception as error:
        sample.ended = now()
        sample.error, sample.detail = kind_of(error, sample.status), detail_of(error)
    return sample


async def _exchange(session: aiohttp.ClientSession, arrival: Arrival, sample: Sample) -> None:
    call = arrival.call
    reader = call.new_reader()
    headers = JSON_HEADERS if call.body is not None else None
    async with session.request(
        call.method, arrival.url, data=call.body, headers=headers, allow_redirects=False
    ) as response:
        sample.status = response.status
        if not 200 <= response.status < 300:
            raise BadAnswer(f"http_{response.status}", excerpt(await response.read()))
        async for chunk in response.content.iter_any():
            reader.feed(chunk, now())
    sample.ended = now()
    answer = reader.finish()
    sample.tokens, sample.token_times = answer.tokens, answer.token_times


def kind_of(error: Exception, status: int) -> str:
    """What a failure is counted as. `status` is 0 when no response had begun.

    `generator` is everything that is our own failure, and makes a run invalid.
    """
    match error:
        case TimeoutError():
            return "timeout"
        case BadAnswer():
            return error.kind
        case OSError(errno=code) if code in OUR_LIMITS:
            return "generator"
        case aiohttp.ClientConnectorError():
            return "connect"
        case aiohttp.ClientPayloadError() | aiohttp.ClientConnectionError() | OSError():
            return "truncated" if status else "disconnected"
        case aiohttp.ClientResponseError():
            return "bad_http"
    return "generator"


def detail_of(error: Exception) -> str:
    """What to show of a failure, on one line: the operating system's words where there are any."""
    match error:
        case aiohttp.ClientConnectorError(os_error=OSError(errno=int(code))) if code > 0:
            return os.strerror(code)
    return " ".join(str(error).split()) or type(error).__name__
