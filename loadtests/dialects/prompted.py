"""Entries of a mix that send text: where their prompts come from."""

from pathlib import Path
from typing import Self

import numpy as np
from pydantic import ValidationInfo, field_validator, model_validator

from loadtests import corpus
from loadtests.config import complaint
from loadtests.corpus import Generated
from loadtests.dialects.entry import Entry
from loadtests.files import beside, is_recorded
from loadtests.spread import Spread, draw_lengths


class Prompted(Entry):
    """Prompts are a list, the lines of a file, or generated from a text; which one is sent is drawn."""

    model: str
    prompts: tuple[str, ...] = ()
    prompts_file: Path | None = None
    generated: Generated | None = None

    @field_validator("prompts_file")
    @classmethod
    def _beside_the_scenario(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return path and beside(path, info)

    @model_validator(mode="after")
    def _has_prompts(self, info: ValidationInfo) -> Self:
        if sum(map(bool, (self.prompts, self.prompts_file, self.generated))) != 1:
            raise complaint("give one of prompts, prompts_file and generated", at=())
        if not is_recorded(info) and not read_prompts(self):
            raise complaint("the file holds no prompt", at=("prompts_file",))
        return self

    @property
    def target(self) -> str:
        return self.model


def read_prompts(request: Prompted) -> list[str]:
    """The prompts, from wherever they come. A file holds one prompt to a line."""
    if request.generated is not None:
        return corpus.prompts(request.generated)
    if request.prompts_file is None:
        return list(request.prompts)
    lines = request.prompts_file.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip()]


def sized_prompt(request: Prompted, words: int, number: int) -> str:
    """A prompt of so many words, another one for another `number`. Only generated ones have a size."""
    assert request.generated is not None
    start = np.random.default_rng([request.generated.seed, number]).random()
    return corpus.compose(request.generated, words, start)


def answer_lengths(max_tokens: int | Spread, count: int) -> list[int]:
    """How long each answer may become, the same every time."""
    return draw_lengths(max_tokens, np.random.default_rng(count), count)
