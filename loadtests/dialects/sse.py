"""Server-sent events, read incrementally: bytes in, the data of each complete event out.

The parts of the WHATWG format (HTML standard, 9.2.6) that model servers use: `data` lines, joined by
newlines and closed by an empty line; comments and other fields are skipped. A lone carriage return does not
end a line here.
"""

from collections.abc import Iterator


class EventParser:
    """Holds the bytes of the line and the event that are still incomplete."""

    def __init__(self) -> None:
        self._line = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the data of every event that `chunk` completes."""
        *lines, self._line = (self._line + chunk).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                yield b"\n".join(self._data)
                self._data.clear()
