"""Prompts made of real text: so many words from somewhere in it, a share of them common to all prompts.

Real words, because random letters make more tokens to a word than any user's text and make speculative and
prefix caching look worse than they are. Without a file it is the Python language reference, which every
installation has. Lengths are in words: an outside client does not know the server's tokenizer (English has
about four tokens to three words).
"""

from functools import cache
from pathlib import Path

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationInfo, field_validator

from loadtests.config import Config
from loadtests.files import beside, is_recorded
from loadtests.spread import Spread, draw_lengths


class Generated(Config):
    """`count` different prompts of `words` words; the first `shared_prefix` of each is the same in all."""

    words: PositiveInt | Spread = 100
    count: PositiveInt = 64
    shared_prefix: float = Field(default=0.0, ge=0, le=1)
    text: Path | None = None
    seed: NonNegativeInt = 0

    @field_validator("text")
    @classmethod
    def _readable(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        found = path and beside(path, info)
        if found and not is_recorded(info) and not read_words(found):
            raise ValueError(f"{found} holds no words")
        return found


def prompts(generated: Generated) -> list[str]:
    """All of them, the same for the same seed."""
    generator = np.random.default_rng(generated.seed)
    lengths = draw_lengths(generated.words, generator, generated.count)
    starts = generator.random(generated.count)
    return [compose(generated, length, start) for length, start in zip(lengths, starts.tolist(), strict=True)]


def compose(generated: Generated, length: int, start: float) -> str:
    """One prompt of `length` words, whose own part begins at the fraction `start` of the text."""
    words = read_words(generated.text)
    shared = round(length * generated.shared_prefix)
    return " ".join(_run(words, 0, shared) + _run(words, int(start * len(words)), length - shared))


@cache
def read_words(path: Path | None) -> tuple[str, ...]:
    if path is not None:
        return tuple(path.read_text(encoding="utf-8", errors="replace").split())
    from pydoc_data.topics import topics

    return tuple(" ".join(topics.values()).split())


def _run(words: tuple[str, ...], start: int, length: int) -> list[str]:
    """So many words from `start` on; after the last comes the first."""
    return [words[(start + place) % len(words)] for place in range(length)]
