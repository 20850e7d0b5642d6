"""What a data set is: two splits of numpy arrays, named as a model's inputs, and the raw inputs beside them.

It does not read files or encode anything. Splits are made on first use, so opening a data set costs nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy.typing as npt

from runtime.manifest import Processing, Task

Array = npt.NDArray[Any]
SplitName = Literal["train", "validation"]

# The target of a position that is not scored (torch's cross_entropy has the same default).
IGNORED = -100


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Examples along the first axis of every array.

    `targets` by task: classification int64 [examples]; token classification, next tokens and generation
    int64 [examples, sequence], IGNORED where nothing is scored (for the latter two, the token that follows);
    question answering int64 [examples, 2], the answer's first and last token; embedding float64 [pairs],
    where rows 2i and 2i+1 of the inputs are pair i. `raw` has the images or texts, and `references` the
    answers that are judged as texts, those of an encoder-decoder.
    """

    inputs: dict[str, Array]
    targets: Array | None
    raw: Sequence[Any] | None = None
    references: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


@dataclass(frozen=True)
class Dataset:
    """A data set as one model sees it. `fingerprint` covers its content and split, not the processing.

    `files` are what the processing needs at serving time, such as {"tokenizer.json": path}. `metric` is what
    it is judged by, where that is not the task's usual one.
    """

    name: str
    task: Task
    fingerprint: str
    labels: tuple[str, ...]
    processing: Processing
    load: Callable[[SplitName], Split] = field(repr=False)
    files: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    metric: str | None = None

    @cached_property
    def train(self) -> Split:
        """The split to learn from and to calibrate on."""
        return self.load("train")

    @cached_property
    def validation(self) -> Split:
        """The held-out split; nothing learns from it."""
        return self.load("validation")


@dataclass(frozen=True, slots=True)
class View:
    """How a model wants a data set encoded; the default is the data set's own way.

    `tokenizer` is a tokenizer.json; `labels` the model's label names, in the order of its logits; `window`
    the tokens in one row of a text-generation split.
    """

    task: Task | None = None
    processing: Processing | None = None
    tokenizer: Path | None = None
    labels: tuple[str, ...] = ()
    window: int = 256
