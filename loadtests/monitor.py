"""Looks at the server from beside the load: its own `/metrics`, and what its process takes if it is local.

Both are read before, during and after a run, seldom enough to cost the server nothing that shows. Reading is
all that happens here; `server.py` makes sense of it afterwards.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import psutil

from loadtests.address import Address
from loadtests.client import Client, Ready
from loadtests.dialects.exchange import Answer, Call
from loadtests.pacing import now

# Seconds. A server counts a request when it is done with it, which is after the client has read the answer.
SETTLE_S = 0.1
# Seconds. A scrape costs a server a millisecond or a few.
INTERVAL_S = 2.0
SCRAPE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What the server's processes have used: `cpu_s` since they began, `memory_bytes` resident now."""

    at: float
    cpu_s: float
    memory_bytes: int
    processes: int


@dataclass(slots=True)
class Observed:
    """In clock seconds of `now`. Both are empty where there is nothing to look at."""

    scrapes: list[tuple[float, str]] = field(default_factory=list)
    usage: list[Usage] = field(default_factory=list)


class Text:
    """Reads a body as it is."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def feed(self, chunk: bytes, arrived: float) -> None:
        self._chunks.append(chunk)

    def finish(self) -> Answer:
        return Answer(text=b"".join(self._chunks).decode(errors="replace"))


@asynccontextmanager
async def watching(
    client: Client, metrics_path: str | None, observed: Observed, look: bool = True
) -> AsyncIterator[None]:
    """Look once, then every other second as long as the body runs, and once more. Or not at all."""
    if not look:
        yield
        return
    scrape = client.prepare(Call("GET", metrics_path, None, Text), -1) if metrics_path else None
    processes = listeners(client.address)
    if not await _scrape(client, scrape, observed):
        scrape = None
    _use(processes, observed)
    task = asyncio.create_task(_keep_looking(client, scrape, processes, observed))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        _use(processes, observed)
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(SETTLE_S if scrape else 0)
            await _scrape(client, scrape, observed)


def listeners(address: Address) -> list[psutil.Process]:
    """The processes of this machine that listen on the server's port, with their children."""
    if not _is_local(address.host):
        return []
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return []
    pids = {
        connection.pid
        for connection in connections
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == address.port
    }
    found: dict[int, psutil.Process] = {}
    for pid in pids - {None}:
        with suppress(psutil.Error):
            parent = psutil.Process(pid)
            found |= {process.pid: process for process in (parent, *parent.children(recursive=True))}
    return list(found.values())


async def _keep_looking(
    client: Client, scrape: Ready | None, processes: list[psutil.Process], observed: Observed
) -> None:
    while True:
        await asyncio.sleep(INTERVAL_S)
        _use(processes, observed)
        await _scrape(client, scrape, observed)


async def _scrape(client: Client, scrape: Ready | None, observed: Observed) -> bool:
    """Whether there was anything to read."""
    if scrape is None:
        return False
    sample = await client.ask(scrape, SCRAPE_TIMEOUT_S)
    if sample.error is not None or "# TYPE" not in sample.text:
        return False
    observed.scrapes.append((now(), sample.text))
    return True


def _use(processes: list[psutil.Process], observed: Observed) -> None:
    cpu, memory, alive = 0.0, 0, 0
    for process in processes:
        # An OSError where this process has no file left to read it with: that makes a run invalid, not void.
        with suppress(psutil.Error, OSError):
            times = process.cpu_times()
            cpu += times.user + times.system
            memory += process.memory_info().rss
            alive += 1
    if alive:
        observed.usage.append(Usage(now(), cpu, memory, alive))


def _is_local(host: str) -> bool:
    """Whether this machine answers under that name: only then is its port one of ours."""
    mine = {
        address.address.partition("%")[0]
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
    }
    try:
        return any(str(found[4][0]) in mine for found in socket.getaddrinfo(host, None))
    except OSError:
        return False
