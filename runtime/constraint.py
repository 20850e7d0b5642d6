"""Answers that follow a form: a JSON schema, a regular expression or a grammar.

The matching is llguidance's (https://github.com/guidance-ai/llguidance); this file turns its mask into
numpy and its errors into ours. A constraint follows one answer from its first token on: make one per request.
An answer that ends because its tokens run out is simply cut off. llguidance's own limits bound what a form
may cost: the work of a step, and its size when it is compiled, which leaves other threads running.
It takes 6 MB and is loaded when the first form is asked for.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.errors import InputError
from runtime.processing import Array

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from tokenizers import Tokenizer


def grammar_tokenizer(tokenizer: "Tokenizer", eos_ids: Sequence[int]) -> "LLTokenizer":
    """A tokenizer as llguidance wants it. It costs up to a second for a large vocabulary: keep it."""
    from llguidance import LLTokenizer

    return LLTokenizer(tokenizer.to_str(), eos_token=list(eos_ids) or None)


class Constraint:
    """One answer's form, followed token by token. What makes one raises InputError for an unusable form."""

    def __init__(self, tokenizer: "LLTokenizer", grammar: str) -> None:
        self._matcher = _matcher()(tokenizer, grammar, log_level=0)
        if self._matcher.is_error():
            raise InputError(f"the output format cannot be used: {_first_line(self._matcher.get_error())}")

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | None, tokenizer: "LLTokenizer") -> "Constraint":
        """JSON on one line that is valid under `schema`; None: any JSON object."""
        try:
            text = json.dumps({"type": "object"} if schema is None else schema)
            # As Python writes it. Where blanks are free, a small model writes them until its tokens run out
            # (docs/log.md). A schema's own "x-guidance" comes before this.
            grammar = _matcher().grammar_from_json_schema(
                text, {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
            )
        except (TypeError, ValueError) as error:
            raise InputError(f"the JSON schema cannot be read: {_first_line(str(error))}") from None
        return cls(tokenizer, grammar)

    @classmethod
    def regex(cls, pattern: str, tokenizer: "LLTokenizer") -> "Constraint":
        """Text that matches `pattern` from end to end (Rust's syntax: no look-around, no back-references)."""
        return cls(tokenizer, _matcher().grammar_from_regex(pattern))

    @classmethod
    def grammar(cls, lark: str, tokenizer: "LLTokenizer") -> "Constraint":
        """Text that a grammar in Lark's notation derives from its rule `start`."""
        return cls(tokenizer, _matcher().grammar_from_lark(lark))

    def copy(self) -> "Constraint":
        """The same form for another answer, from where this one stands, without compiling it again."""
        twin = object.__new__(Constraint)
        twin._matcher = self._matcher.deep_copy()
        return twin

    @property
    def is_complete(self) -> bool:
        """Whether nothing can follow any more."""
        return bool(self._matcher.is_stopped())

    def mask(self, logits: Array) -> None:
        """Set the logits [vocabulary] of all tokens that cannot come next to minus infinity, in place."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, count=len(logits), bitorder="little").view(np.bool_)
        logits[~allowed] = -np.inf

    def advance(self, token: int) -> None:
        """Take note that `token` came next."""
        self._matcher.consume_token(token)


def _matcher() -> "type[LLMatcher]":
    from llguidance import LLMatcher

    return LLMatcher


def _first_line(message: str) -> str:
    return " ".join(message.split())[:300]
