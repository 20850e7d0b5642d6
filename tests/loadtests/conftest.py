"""A real server with known behaviour, on a free loopback port in a thread, and short runs against it."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web

from loadtests import address
from loadtests.client import Client
from loadtests.plan import draw
from loadtests.recording import Recording
from loadtests.scenario import Scenario
from loadtests.session import conduct
from tests.loadtests.recorded import recorded

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeServer:
    """Answers every request with `handler` and counts them."""

    def __init__(self, handler: Handler) -> None:
        self.requests = 0
        self.by_connection: Counter[object] = Counter()
        self._handler = handler
        self._arrived = threading.Condition()
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(60)

    def wait_for(self, requests: int, connections: int = 0) -> None:
        """Return when so many requests have arrived, or, on each of so many connections, so many."""

        def have() -> bool:
            busy = sum(count >= requests for count in self.by_connection.values())
            return busy >= connections if connections else self.requests >= requests

        with self._arrived:
            assert self._arrived.wait_for(have, timeout=120)

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Return when that is so: the server hears of what a client has done after the client is done."""
        latest = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < latest, "it did not come true"
            time.sleep(0.01)

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join(10)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        with self._arrived:
            self.requests += 1
            self.by_connection[request.transport] += 1
            self._arrived.notify_all()
        await request.read()
        return await self._handler(request)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._closing = asyncio.Event()
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._started.set()
        await self._closing.wait()
        await runner.cleanup()


@pytest.fixture
def serve() -> Iterator[Callable[[Handler], FakeServer]]:
    """Starts fake servers, and closes them after the test."""
    servers: list[FakeServer] = []

    def start(handler: Handler) -> FakeServer:
        servers.append(FakeServer(handler))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


class RawServer:
    """Answers the n-th request that it reads, on whatever connection, with the n-th of `answers`, verbatim.

    An answer that is None closes the connection; what is left after the last answer is answered by it too.
    """

    def __init__(self, *answers: bytes | None) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self._answers = answers
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=lambda: self._loop.run_until_complete(self._serve()), daemon=True
        )
        self._thread.start()
        assert self._started.wait(10)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._closing = asyncio.Event()
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._started.set()
        await self._closing.wait()
        server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                answer = self._answers[min(len(self.requests), len(self._answers)) - 1]
                if answer is None:
                    break
                writer.write(answer)
                if b"Connection: close" in answer:
                    break
        writer.close()


@pytest.fixture
def serve_raw() -> Iterator[Callable[..., RawServer]]:
    """Starts servers that say exactly what they are told to."""
    servers: list[RawServer] = []

    def start(*answers: bytes | None) -> RawServer:
        servers.append(RawServer(*answers))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def scenario() -> Callable[..., Scenario]:
    """Builds a short scenario of plain GETs; keywords replace its keys."""

    def build(**changes: object) -> Scenario:
        keys = {
            "arrivals": {"kind": "constant", "rate": 40},
            "duration": 0.25,
            "warmup": 0,
            "timeout": 5,
            "metrics": None,
            "mix": [{"dialect": "http"}],
        }
        return Scenario.model_validate(keys | changes)

    return build


@pytest.fixture
def record() -> Callable[[Scenario, str], Recording]:
    """Runs a scenario without the probe before it, for servers that would not pass one."""

    async def run(scenario: Scenario, url: str) -> Recording:
        client = Client(address.parse(url), scenario.headers, scenario.key_header)
        plan = draw(scenario, client)
        recording = recorded([])
        async with client:
            await conduct(client, plan, scenario.timeout, recording)
        return recording

    return lambda scenario, url: asyncio.run(run(scenario, url))


@pytest.fixture
def scenario_file(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a scenario file."""

    def write(text: str) -> Path:
        path = tmp_path / "scenario.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write
