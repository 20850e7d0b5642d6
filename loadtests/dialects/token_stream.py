"""A stream of tokens as OpenAI's dialects send it, read while it comes.

A stream is good when it held at least one non-empty token and ended with `data: [DONE]`; a connection that
closes politely without it was truncated. Tokens are counted by the server's own `usage` when it sends one,
else by non-empty chunks. Tokens that arrive in one chunk share its time: what a client on that socket can
see is what is measured.
"""

from collections.abc import Callable
from typing import Any

from loadtests.dialects.exchange import Answer, excerpt, parse_object
from loadtests.dialects.sse import EventParser
from loadtests.errors import BadAnswer

# No answer is as long; a recording has four bytes for the number.
MOST_TOKENS = 2**31

TextOf = Callable[[dict[str, Any]], str | None]


class TokenStream:
    """Remembers when each non-empty token came. `text_of` finds the token in an event."""

    def __init__(self, text_of: TextOf) -> None:
        self._text_of = text_of
        self._events = EventParser()
        self._texts: list[str] = []
        self._token_times: list[float] = []
        self._usage: int | None = None
        self._done = False

    def feed(self, chunk: bytes, arrived: float) -> None:
        for data in self._events.feed(chunk):
            if data == b"[DONE]":
                self._done = True
            elif not self._done:
                self._take(parse_object(data), data, arrived)

    def finish(self) -> Answer:
        if not self._done:
            raise BadAnswer(
                "truncated", f"the stream ended after {len(self._token_times)} tokens, without [DONE]"
            )
        if not self._token_times:
            raise BadAnswer("bad_body", "the stream held no token")
        tokens = self._usage if self._usage is not None else len(self._token_times)
        return Answer(tuple(self._token_times), tokens, "".join(self._texts))

    def _take(self, event: dict[str, Any], data: bytes, arrived: float) -> None:
        if event.get("error"):
            raise BadAnswer("error_in_stream", excerpt(data))
        if text := self._text_of(event):
            self._token_times.append(arrived)
            self._texts.append(text)
        self._usage = completion_tokens(event) or self._usage


def completion_tokens(document: dict[str, Any]) -> int | None:
    """What the server says it generated; None when it does not say, or no number that can be."""
    match document:
        case {"usage": {"completion_tokens": int(tokens)}} if 0 <= tokens < MOST_TOKENS:
            return tokens
    return None


def check_whole(text_of: TextOf, text: bytes) -> Answer:
    """A whole completion, not streamed: it must hold a choice with text."""
    document = parse_object(text)
    chosen = text_of(document)
    if chosen is None:
        raise BadAnswer("bad_body", f"no text in the first choice: {excerpt(text)}")
    return Answer(tokens=completion_tokens(document), text=chosen)
