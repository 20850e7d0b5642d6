"""Completions side by side, cut where a variant first leaves the baseline. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from compress.reporting.group import Group

# What is marked at the first difference: the rest of a word, with the blanks before it.
_WORD = re.compile(r"\s*(\w+|\W)?")


@dataclass(frozen=True, slots=True)
class Answer:
    """A completion in three parts: as the baseline's, the first difference, and what follows from it.

    `ends_early` where the difference is that the baseline went on.
    """

    name: str
    hue: str
    same: str
    differs: str = ""
    rest: str = ""
    ends_early: bool = False

    @property
    def verdict(self) -> str:
        """How far the two agree."""
        if not self.differs and not self.ends_early:
            return "the same as the baseline's"
        return f"differs after {len(self.same)} characters" if self.same else "differs from the start"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One prompt and everybody's completion of it."""

    prompt: str
    baseline: str
    answers: list[Answer]


def comparisons(group: Group) -> list[Comparison]:
    """One for each prompt, with the baseline's completion that the variants were recorded against."""
    found: dict[tuple[str, str], list[Answer]] = {}
    for variant in group.compressed:
        for sample in variant.evidence.samples if variant.evidence else ():
            answer = compare(variant.name, variant.hue, sample.output, sample.baseline)
            found.setdefault((sample.input, sample.baseline), []).append(answer)
    return [Comparison(prompt, baseline, answers) for (prompt, baseline), answers in found.items()]


def without_samples(group: Group) -> Iterator[str]:
    """The generating variants that no completion was recorded of."""
    for variant in group.compressed:
        if variant.manifest.task == "text-generation" and not (variant.evidence and variant.evidence.samples):
            yield variant.name


def compare(name: str, hue: str, output: str, baseline: str) -> Answer:
    """Cut `output` where it leaves `baseline`."""
    pairs = enumerate(zip(output, baseline, strict=False))
    agreed = next(
        (index for index, (ours, theirs) in pairs if ours != theirs), min(len(output), len(baseline))
    )
    same, after = output[:agreed], output[agreed:]
    if not after:
        return Answer(name, hue, same, ends_early=len(same) < len(baseline))
    word = _WORD.match(after)
    cut = max(1, word.end()) if word else 1
    return Answer(name, hue, same, after[:cut], after[cut:])
