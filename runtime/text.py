"""Tokens to text as it grows: never half a character, never a part of a stop string.

It does not decide when generation ends on its own account: it says that a stop string was reached.
"""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class TextStream:
    """One answer's text. Feed it every token; it gives back what may be shown."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self._tokenizer = tokenizer
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._stop = [text for text in stop if text]
        self._held = ""

    def push(self, token_id: int) -> str:
        """The text that `token_id` adds and that no stop string can still swallow. Sets `stopped`."""
        if self.stopped:
            return ""
        text = self._decoder.step(self._tokenizer, token_id) or ""
        if not self._stop:
            return text
        self._held += text
        ends = [at for text in self._stop if (at := self._held.find(text)) >= 0]
        if ends:
            self.stopped = True
            return self._release(min(ends))
        return self._release(len(self._held) - self._partial_stop())

    def flush(self) -> str:
        """What was held back in case a stop string followed; call it once, at the end."""
        return "" if self.stopped else self._release(len(self._held))

    def _partial_stop(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        starts = (n for text in self._stop for n in range(1, len(text)) if self._held.endswith(text[:n]))
        return max(starts, default=0)

    def _release(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        return text
