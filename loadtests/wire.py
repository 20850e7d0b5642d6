"""HTTP/1.1 over raw asyncio: kept connections, one request on each at a time, bytes in and bytes out.

Written because the generator must not be what is measured: a request costs a fifth of what a general client
takes (`benchmarks/loadgen.py`), as there is no task, no header object and no stream between the socket and
whoever waits. It does what a measurement needs and no more: no redirects, cookies, proxies, compression,
retries or HTTP/2, and no limit on connections, because an open loop must not queue in its own client.
httptools (llhttp) parses; what the parser cannot know, a body that ends with its connection, is done here.
"""

import asyncio
import socket
import ssl
from functools import partial
from typing import Any, Protocol, cast

import httptools

from loadtests.address import Address
from loadtests.errors import ConnectFailed, Dropped, NotHTTP, TransportError
from loadtests.pacing import now

# Below the 5 s after which uvicorn and Node close an idle connection: a request must not race with that.
KEEPALIVE_S = 4.0

# What the kernel may hold for a reader that is slow on purpose; small, so that the server gets to feel it.
SLOW_RECEIVE_BUFFER = 4096


class Receiver(Protocol):
    """Whoever waits for a response. Called in this order; `failed` ends it wherever it stands."""

    def head(self, status: int) -> None:
        """The status is known."""

    def body(self, chunk: bytes, arrived: float) -> None:
        """The next bytes of the body, and when they came in the clock of `now`."""

    def done(self) -> None:
        """The response is complete."""

    def failed(self, error: TransportError) -> None:
        """There will be no response, or no more of it."""


class Connection(asyncio.Protocol):
    """One connection. Give it a request only when it is idle."""

    def __init__(self, pool: "Pool") -> None:
        self.idle_since = 0.0
        self.reusable = True
        self._pool = pool
        self._receiver: Receiver | None = None
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._chunks: list[bytes] = []
        self._status: int | None = None
        self._announced = self._framed = self._complete = self._surplus = False

    def request(self, wire: bytes, receiver: Receiver) -> None:
        self._receiver = receiver
        self.transport.write(wire)

    def abort(self) -> None:
        """Close at once and tell nobody."""
        self._receiver = None
        self._pool.forget(self)
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        arrived = now()
        if self._receiver is None:
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                self._fail(NotHTTP(f"{type(error).__name__}: {error}"))
                return
            self._surplus = True
        self._deliver(arrived)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.forget(self)
        if self._receiver is None:
            return
        if self._announced and not self._framed and exc is None:
            self._end()
        else:
            self._fail(Dropped(str(exc) if exc else "the server closed the connection"))

    def on_message_begin(self) -> None:
        self._surplus = self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        self._framed = self._framed or name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        if self._status is None:
            self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if not self._complete:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        if self._status is not None and self._status < 200:
            self._status, self._framed = None, False
            return
        self._complete = True
        self.reusable = self.reusable and self._parser.should_keep_alive()

    def _deliver(self, arrived: float) -> None:
        """Outside the parser's callbacks, because the receiver may close this connection."""
        receiver = self._receiver
        assert receiver is not None
        if self._status is not None and not self._announced:
            self._announced = True
            receiver.head(self._status)
        chunks, self._chunks = self._chunks, []
        for chunk in chunks:
            if self._receiver is receiver:
                receiver.body(chunk, arrived)
        if self._receiver is not receiver or not self._complete:
            return
        if self._surplus:
            self._fail(NotHTTP("more bytes came than the response said it has"))
        else:
            self._end()

    def _end(self) -> None:
        """Free for the next request before the receiver is told: it may send one at once."""
        receiver, self._receiver = self._receiver, None
        assert receiver is not None
        if self.reusable and not self.transport.is_closing():
            self._announced = self._framed = self._complete = False
            self._status = None
            self._pool.put(self)
        else:
            self.transport.close()
        receiver.done()

    def _fail(self, error: TransportError) -> None:
        receiver, self._receiver = self._receiver, None
        self.transport.abort()
        if receiver is not None:
            receiver.failed(error)


class Pool:
    """Connections to one server: the one that was used last is used next."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._addresses: list[str] = []
        self._tls = ssl.create_default_context() if address.scheme == "https" else None
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()

    async def resolve(self) -> None:
        """Ask for the server's addresses, once and before the run. Raises ConnectFailed."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._address.host, self._address.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # a name that no DNS can have is no UTF-8 to Python
            raise ConnectFailed(str(error)) from error
        self._addresses = list(dict.fromkeys(str(address[4][0]) for address in found))

    def take(self) -> Connection | None:
        """A connection that is free now."""
        oldest = now() - KEEPALIVE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since > oldest and not connection.transport.is_closing():
                return connection
            connection.transport.close()
        return None

    async def connect(self, slow: bool = False) -> Connection:
        """A new connection, to the first of the server's addresses that takes one. Raises ConnectFailed."""
        failure: OSError | None = None
        for address in list(self._addresses):
            try:
                connection = await self._connect(address, slow)
            except OSError as error:
                failure = error
                continue
            # The next one begins with what has worked: `localhost` has an address that nobody listens on.
            self._addresses.sort(key=lambda other: other != address)
            return connection
        raise ConnectFailed("no address") from failure

    def put(self, connection: Connection) -> None:
        connection.idle_since = now()
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    async def close(self) -> None:
        for connection in list(self._open):
            connection.abort()
        await asyncio.sleep(0)

    async def _connect(self, address: str, slow: bool) -> Connection:
        loop = asyncio.get_running_loop()
        target: dict[str, Any] = {"host": address, "port": self._address.port}
        if slow:
            target = {"sock": await _slow_socket(address, self._address.port)}
        if self._tls:
            target |= {"ssl": self._tls, "server_hostname": self._address.host}
        _, connection = await loop.create_connection(partial(Connection, self), **target)
        connection.reusable = not slow
        self._open.add(connection)
        return connection


async def _slow_socket(address: str, port: int) -> socket.socket:
    """A connected socket that takes little ahead of its reader."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_RECEIVE_BUFFER)
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock
