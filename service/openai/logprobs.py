"""Log-probabilities in OpenAI's two shapes: parallel lists for completions, one object a token for chat."""

import math
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

from runtime.scheduler import TokenLogprob
from runtime.vocabulary import token_bytes, token_text

# OpenAI's own stand-in for a probability of zero: JSON has no infinity.
LEAST = -9999.0


def completion_logprobs(
    tokenizer: Tokenizer, scored: Sequence[TokenLogprob], offset: int
) -> tuple[dict[str, Any], int]:
    """The lists for `scored`, whose text begins at `offset`; and where it ends, in characters.

    A token that begins within a character is where that character is.
    """
    texts = [token_text(tokenizer, each.token_id) for each in scored]
    starts = []
    for each in scored:
        raw = token_bytes(tokenizer, each.token_id)
        starts.append(offset - _goes_on(raw[:1]))
        offset += len(raw) - _goes_on(raw)
    return {
        "tokens": texts,
        "token_logprobs": [_number(each.logprob) for each in scored],
        "top_logprobs": [_by_text(tokenizer, each, text) for each, text in zip(scored, texts, strict=True)],
        "text_offset": starts,
    }, offset


def chat_logprobs(tokenizer: Tokenizer, scored: Sequence[TokenLogprob]) -> dict[str, Any]:
    """`{"content": [...]}` for `scored`."""
    content = [
        _described(tokenizer, each.token_id, each.logprob)
        | {"top_logprobs": [_described(tokenizer, token, logprob) for token, logprob in each.top]}
        for each in scored
    ]
    return {"content": content, "refusal": None}


def _goes_on(raw: bytes) -> int:
    """How many bytes of UTF-8 do not begin a character."""
    return sum(byte & 0xC0 == 0x80 for byte in raw)


def _by_text(tokenizer: Tokenizer, scored: TokenLogprob, text: str) -> dict[str, float | None] | None:
    """The likeliest tokens, and the chosen one if it is not among them; nothing for a text's first token."""
    if math.isnan(scored.logprob):
        return None
    top = {token_text(tokenizer, token): _number(logprob) for token, logprob in scored.top}
    return {text: _number(scored.logprob), **top}


def _described(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    raw = token_bytes(tokenizer, token)
    return {"token": token_text(tokenizer, token), "logprob": _number(logprob), "bytes": list(raw)}


def _number(logprob: float) -> float | None:
    return None if math.isnan(logprob) else max(logprob, LEAST)
