"""What a dialect and the client say to each other: calls to make, and readers of what comes back.

A dialect knows bodies and answers; it knows no sockets, clocks or schedules. Bodies are bytes before the
run starts, so that sending costs no serialising. A reader is told when each chunk arrived and never asks
for the time itself.
"""

import json
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from loadtests.errors import BadAnswer

JSON = "application/json"
GOOD_STATUS = range(200, 300)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a good response held. `token_times`: when a stream's non-empty tokens came, in clock seconds.

    `text` is what it said, for the next turn of a conversation.
    """

    token_times: tuple[float, ...] = ()
    tokens: int | None = None
    text: str = ""


class Reader(Protocol):
    """Reads one response as it comes."""

    def feed(self, chunk: bytes, arrived: float) -> None:
        """Take the next bytes of the body."""

    def finish(self) -> Answer:
        """The body is complete. Raises BadAnswer when it is not what the dialect promises."""


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request, ready to send. `new_reader` is called once for each time it is sent.

    `headers` are its own, beside those of every request. `body` is None, or the pieces between which the
    earlier answers of a conversation go: one piece for everything that is no later turn. `rows` is how many
    inputs it carries, `then` the next turn.
    """

    method: str
    path: str
    body: tuple[bytes, ...] | None
    new_reader: Callable[[], Reader]
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    rows: int = 1
    expected: Container[int] = GOOD_STATUS
    then: "Call | None" = None


@dataclass(slots=True)
class WholeBody:
    """Reads a body that is one document, and leaves it to `check` to say what it held."""

    check: Callable[[bytes], Answer]
    chunks: list[bytes] = field(default_factory=list)

    def feed(self, chunk: bytes, arrived: float) -> None:
        self.chunks.append(chunk)

    def finish(self) -> Answer:
        return self.check(b"".join(self.chunks))


def fill(pieces: Sequence[bytes], answers: Sequence[str]) -> bytes:
    """The body of a later turn: its pieces with the earlier answers between them, as JSON strings."""
    filled = [pieces[0]]
    for piece, answer in zip(pieces[1:], answers, strict=True):
        filled += [json.dumps(answer).encode(), piece]
    return b"".join(filled)


def parse_object(text: bytes) -> dict[str, Any]:
    """The JSON object in `text`. Raises BadAnswer for anything else."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise BadAnswer("bad_body", f"not JSON ({error}): {excerpt(text)}") from error
    if not isinstance(document, dict):
        raise BadAnswer("bad_body", f"not a JSON object: {excerpt(text)}")
    return document


def excerpt(text: bytes) -> str:
    """The beginning of a body, on one line, short enough for an error message."""
    line = " ".join(text[:200].decode(errors="replace").split())
    return line + ("…" if len(text) > 200 else "")
