"""Answers that follow a form: a JSON schema, a regular expression or a grammar.

The matching is llguidance's (https://github.com/guidance-ai/llguidance); this file turns its mask into
numpy and its errors into ours. A constraint follows one answer from its first token on: make one per request.
An answer that ends because its tokens run out is simply cut off. What a form may cost is bounded, because one
can be written to cost much: by llguidance's own limits, by one on ambiguity and by the form's length
(docs/log.md). One that reaches a limit only while it is followed has failed, and so has its answer.
Compiling leaves other threads running. llguidance takes 6 MB and is loaded when the first form is asked for.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.errors import InputError
from runtime.processing import Array

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer
    from tokenizers import Tokenizer


# Characters. The costliest of this length take 0.5 s to compile, which holds up nobody, or 20 ms of a step.
MAX_FORM = 4096
# Of all choices together. Plain texts cost less: 10 ms of the first step.
MAX_CHOICES = 16_384
# What a grammar may mean at once by what was written: at llguidance's 2,000, steps take up to 100 ms.
MAX_READINGS = 500


def grammar_tokenizer(tokenizer: "Tokenizer", eos_ids: Sequence[int]) -> "LLTokenizer":
    """A tokenizer as llguidance wants it. It costs up to a second for a large vocabulary: keep it."""
    from llguidance import LLTokenizer

    return LLTokenizer(tokenizer.to_str(), eos_token=list(eos_ids) or None)


class Constraint:
    """One answer's form, followed token by token. What makes one raises InputError for an unusable form.

    `has_failed` says that the form cannot be followed any further: that costs too much, or leads nowhere.
    """

    def __init__(
        self, tokenizer: "LLTokenizer", grammar: str, limits: "LLParserLimits | None" = None
    ) -> None:
        self.has_failed = False
        self._matcher = _matcher()(tokenizer, grammar, log_level=0, limits=limits)
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
        _check_length("the regular expression has", len(pattern), MAX_FORM)
        return cls(tokenizer, _matcher().grammar_from_regex(pattern))

    @classmethod
    def choice(cls, texts: Sequence[str], tokenizer: "LLTokenizer") -> "Constraint":
        """One of `texts`."""
        if not texts or not all(texts):
            raise InputError("there is nothing to choose from; send texts, none of them empty")
        _check_length("the choices have", sum(map(len, texts)), MAX_CHOICES)
        return cls(tokenizer, _matcher().grammar_from_regex("|".join(map(re.escape, texts))))

    @classmethod
    def grammar(cls, text: str, tokenizer: "LLTokenizer") -> "Constraint":
        """Text that a grammar derives: from `start` in Lark's notation, from `root` in llama.cpp's (GBNF)."""
        from llguidance import LLParserLimits
        from llguidance.gbnf_to_lark import any_to_lark

        _check_length("the grammar has", len(text), MAX_FORM)
        try:
            lark = any_to_lark(text)
        # It has no error of its own for what it cannot read, and calls itself for each parenthesis.
        except Exception as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise InputError(f"the grammar cannot be read: {_first_line(reason)}") from None
        limits = LLParserLimits(max_items_in_row=MAX_READINGS)
        return cls(tokenizer, _matcher().grammar_from_lark(lark), limits)

    def copy(self) -> "Constraint":
        """The same form for another answer, from where this one stands, without compiling it again."""
        twin = object.__new__(Constraint)
        twin.has_failed, twin._matcher = self.has_failed, self._matcher.deep_copy()
        return twin

    @property
    def is_complete(self) -> bool:
        """Whether nothing can follow any more."""
        return bool(self._matcher.is_stopped())

    def mask(self, logits: Array) -> None:
        """Set the logits [vocabulary] of all tokens that cannot come next to minus infinity, in place.

        Where the form has failed, they stay as they are.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, count=len(logits), bitorder="little").view(np.bool_)
        self.has_failed = bool(self._matcher.is_error()) or not allowed.any()
        if not self.has_failed:
            logits[~allowed] = -np.inf

    def advance(self, token: int) -> None:
        """Take note that `token` came next."""
        self.has_failed = not self._matcher.consume_token(token)


def _matcher() -> "type[LLMatcher]":
    from llguidance import LLMatcher

    return LLMatcher


def _check_length(what: str, length: int, most: int) -> None:
    if length > most:
        raise InputError(f"{what} {length:,} characters; send at most {most:,}")


def _first_line(message: str) -> str:
    return " ".join(message.split())[:300]
