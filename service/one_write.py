"""A response's head and body in one write.

uvicorn writes them one after the other, and its transports send each at once: two system calls for every
answer, and a client that is woken twice. Here the head waits for what comes next, as ASGI would have it: a
response begins with its first body. Everything else passes through.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

# How a response's head begins. A chunk begins with its length, and a body follows a head.
HEAD = b"HTTP/1."
# Nothing follows this one before the client has read it.
CONTINUE = b"HTTP/1.1 100 "


class JoinedWrites:
    """A transport that keeps a head until something follows; everything else is `transport`'s."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def write(self, data: bytes) -> None:
        """Send `data`, after the head that was kept; or keep it, if it is a head."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(HEAD) and not data.startswith(CONTINUE):
            self._head = data
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Send a head that nothing follows."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Close once everything is sent."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether it is closed or about to be; asked at the end of every response."""
        return self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class OneWriteProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's protocol over such a transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A client has connected."""
        super().connection_made(JoinedWrites(transport))

    def on_response_complete(self) -> None:
        """A response is over: to HEAD, a head is all of it."""
        self.transport.flush()
        super().on_response_complete()
