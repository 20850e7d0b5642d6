"""A response's head and body in one write.

uvicorn writes them one after the other, and its transports send each at once: two system calls for every
answer, and a client that is woken twice. Here what is written within one turn of the event loop leaves
together at the turn's end. The trade-off: a stream's event leaves that turn later, which is some
microseconds.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

# More is not kept back: flow control must hear of a body that is written faster than it is read.
MOST = 64 * 1024


class JoinedWrites:
    """A transport that keeps what is written until the turn is over; everything else is `transport`'s."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Send `data`, after what was written before."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size > MOST:
            self._flush()

    def close(self) -> None:
        """Close once everything is sent."""
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        # The connection may have been lost since.
        if data and not self._transport.is_closing():
            self._transport.write(data)


class OneWriteProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's protocol over such a transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A client has connected."""
        super().connection_made(JoinedWrites(transport, self.loop))
