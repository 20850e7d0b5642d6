"""A graph's outputs in the task's own words: what a person asked for, ready to be JSON.

One function a task, vectorised over the batch, and one door to them. It runs no graph and reads no file but
through the tokenizer that it is handed, so torch's outputs and onnxruntime's are answered alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from runtime.manifest import Processing, Task, TextProcessing
from runtime.processing import Array, classify, pool, tag_tokens

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One batch that went through a model: its tensors in and out, by name, and what the model says of itself.

    `tokenizer` is there where the processing has one.
    """

    task: Task
    processing: Processing
    labels: Sequence[str]
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    tokenizer: Tokenizer | None = None

    @property
    def first(self) -> Array:
        """The first output, which is the one that counts for tasks with one."""
        return next(iter(self.outputs.values()))


def answer(run: Run) -> list[Answer]:
    """One answer for each example of the batch; the plain tensors for a task that has no words."""
    return _TASKS.get(run.task, _tensors)(run)


def _classes(run: Run) -> list[Answer]:
    return classify(run.first, run.labels)


def _tokens(run: Run) -> list[Answer]:
    assert run.tokenizer is not None
    return tag_tokens(run.first, run.inputs, run.tokenizer, run.labels)


def _vectors(run: Run) -> list[Answer]:
    processing = run.processing
    if not isinstance(processing, TextProcessing):
        return _tensors(run)
    return [
        {"embedding": vector.tolist()} for vector in pool(run.first, run.inputs["attention_mask"], processing)
    ]


def _tensors(run: Run) -> list[Answer]:
    return [
        {name: output[row].tolist() for name, output in run.outputs.items()} for row in range(len(run.first))
    ]


_TASKS: Mapping[str, Callable[[Run], list[Answer]]] = {
    "image-classification": _classes,
    "text-classification": _classes,
    "token-classification": _tokens,
    "embedding": _vectors,
}
