"""The cheapest honest HTTP client that Python has: raw keep-alive connections, about 20 µs a request.

`modelpress loadtest` is the tool for deployments; this one is for comparing servers that answer in a fifth
of a millisecond, where a real client would be most of what is measured. Closed loop: each of `clients`
connections sends as soon as it is answered. Open loop: requests have planned times, and latency counts from
those.
"""

import asyncio
import selectors
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from placement import clients as on_clients_cores


@dataclass
class Result:
    """What came back. Latencies are in seconds, in order of arrival; `good` are those of status 200."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    good: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.statuses[200] / self.seconds

    def note(self, status: int, seconds: float) -> None:
        """One more answer."""
        self.statuses[status] += 1
        self.latencies.append(seconds)
        if status == 200:
            self.good.append(seconds)

    def in_time(self, limit: float) -> int:
        """Good answers that took at most `limit` seconds."""
        return sum(latency <= limit for latency in self.good)

    def percentile(self, share: float) -> float:
        """A latency in milliseconds."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        at = lower.find(b"content-length:")
        length = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(body) >= length and self._answer and not self._answer.done():
            self._buffer = body[length:]
            self._answer.set_result(int(head[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_result(0)

    def close(self) -> None:
        self._transport.close()

    async def ask(self, request: bytes) -> int:
        """The status of the answer to `request`; 0 for a connection that broke."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer


def post(url: str, body: bytes, **headers: str) -> bytes:
    """A request's bytes."""
    parts = urlsplit(url)
    lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


async def connect(url: str, count: int) -> list[Connection]:
    """Open connections."""
    parts, loop = urlsplit(url), asyncio.get_running_loop()
    pairs = [await loop.create_connection(Connection, parts.hostname, parts.port) for _ in range(count)]
    return [connection for _, connection in pairs]


async def closed(url: str, body: bytes, clients: int, seconds: float) -> Result:
    """`clients` connections, each of them always waiting for one answer."""
    connections, request, result = await connect(url, clients), post(url, body), Result()
    end = time.perf_counter() + seconds

    async def client(connection: Connection) -> None:
        while (sent := time.perf_counter()) < end:
            result.note(await connection.ask(request), time.perf_counter() - sent)

    started = time.perf_counter()
    with on_clients_cores():
        await asyncio.gather(*map(client, connections))
    result.seconds = time.perf_counter() - started
    for connection in connections:
        connection.close()
    return result


def run_on_time(load: Coroutine[None, None, Result]) -> Result:
    """Run an open loop on select(): its waits end on time, where epoll's are whole milliseconds.

    With those, requests that are planned a third of a millisecond apart leave three at once. It looks at
    every connection each time, so there should be few.
    """
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(load)


async def opened(
    url: str, body: bytes, rate: float, seconds: float, *, connections: int = 256, **headers: str
) -> Result:
    """`rate` requests a second at even times, whatever becomes of the ones before.

    As clients' pools do, it takes the connection that was used last: of 256, few are in use, and warm.
    """
    free, result = asyncio.LifoQueue[Connection](), Result()
    for connection in await connect(url, connections):
        free.put_nowait(connection)
    request, tasks = post(url, body, **headers), set()

    async def send(planned: float) -> None:
        connection = await free.get()
        result.note(await connection.ask(request), time.perf_counter() - planned)
        free.put_nowait(connection)

    started = time.perf_counter()
    with on_clients_cores():
        for index in range(int(rate * seconds)):
            planned = started + index / rate
            if (wait := planned - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(send(planned))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
    result.seconds = time.perf_counter() - started
    while not free.empty():
        free.get_nowait().close()
    return result
