"""Tokens to text as it grows: never half a character, never a part of a stop string.

It does not decide when generation ends on its own account: it says that a stop string was reached. The
trade-off: an answer of bytes that are no characters is from there on read byte by byte, because the
tokenizer's own stream would wait for its end, or take back what it has given.
"""

from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from runtime.vocabulary import token_bytes

# What stands for bytes that are no character, and how many bytes a character has at most (RFC 3629).
REPLACEMENT, CHARACTER_BYTES = "\ufffd", 4


class TextStream:
    """One answer's text. Feed it every token; it gives back what may be shown.

    `prompt`: the tokens that the text goes on from, so that a space between the two is not taken for one
    before a text, which some tokenizers leave out.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), prompt: Sequence[int] = ()) -> None:
        self.stopped = False
        self._tokenizer = tokenizer
        before = list(prompt[-1:])
        # Of a character that the prompt leaves unfinished the stream would give the beginning, too.
        whole = not tokenizer.decode(before).endswith(REPLACEMENT)
        self._stream = DecodeStream(before if whole else [], skip_special_tokens=True)
        # Tokens that no text has come of yet.
        self._pending: list[int] = []
        self._utf8: IncrementalDecoder | None = None
        self._stop = [text for text in stop if text]
        self._held = ""

    def push(self, token_id: int) -> str:
        """The text that `token_id` adds and that no stop string can still swallow. Sets `stopped`."""
        if self.stopped:
            return ""
        return self._show(self._text(token_id))

    def flush(self) -> str:
        """What was held back in case a stop string followed; call it once, at the end."""
        if self.stopped:
            return ""
        # U+FFFD itself looks like a character that is not whole yet.
        shown = self._show(self._as_bytes() if self._is_torn() else "")
        return shown if self.stopped else shown + self._release(len(self._held))

    def _text(self, token_id: int) -> str:
        """The characters that are whole with this token."""
        self._pending.append(token_id)
        if self._utf8:
            return self._as_bytes()
        try:
            text = self._stream.step(self._tokenizer, token_id)
        except Exception:  # tokenizers has no kind of its own for what reads differently with more bytes
            return self._as_bytes()
        if text is None and len(self._pending) < CHARACTER_BYTES:
            return ""
        if text is None and self._is_torn():
            return self._as_bytes()
        self._pending.clear()
        return text or ""

    def _is_torn(self) -> bool:
        return bool(self._tokenizer.decode(self._pending).endswith(REPLACEMENT))

    def _as_bytes(self) -> str:
        """The pending tokens' whole characters. From now on tokens are read as bytes."""
        self._utf8 = self._utf8 or getincrementaldecoder("utf-8")("replace")
        added = self._tokenizer.get_added_tokens_decoder() if self._pending else {}
        said = [token for token in self._pending if token not in added or not added[token].special]
        self._pending.clear()
        return self._utf8.decode(b"".join(token_bytes(self._tokenizer, token) for token in said))

    def _show(self, text: str) -> str:
        if not self._stop:
            return text
        self._held += text
        ends = [at for text in self._stop if (at := self._held.find(text)) >= 0]
        if ends:
            self.stopped = True
            return self._release(min(ends))
        return self._release(len(self._held) - max(map(self._partial, self._stop)))

    def _partial(self, stop: str) -> int:
        """Length of the longest end of the held text that begins `stop`."""
        lengths = range(min(len(stop) - 1, len(self._held)), 0, -1)
        return next((length for length in lengths if self._held.endswith(stop[:length])), 0)

    def _release(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        return text
