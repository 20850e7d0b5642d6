"""A graph's outputs in the task's own words: what a person asked for, ready to be JSON.

One function a task, vectorised over the batch, and one door to them. It runs no graph and reads no file but
through the tokenizer that it is handed, so torch's outputs and onnxruntime's are answered alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from runtime.captions import captions_of, rank_captions
from runtime.detection import Detections, detect
from runtime.drawing import drawn, restored
from runtime.manifest import (
    ImageProcessing,
    Processing,
    Suppression,
    Task,
    TextProcessing,
    WordProcessing,
)
from runtime.next_tokens import rank_next
from runtime.processing import Array, classify, png, pool, tag_tokens
from runtime.spans import answer_questions
from runtime.words import nearest_words, rows_asked

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One batch that went through a model: its tensors by name, and what the model says of itself.

    `tokenizer` is there where the processing has one; `items` where the answer depends on what was asked
    beyond the tensors, or is a piece of it.
    """

    task: Task
    processing: Processing
    labels: Sequence[str]
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    tokenizer: Tokenizer | None = None
    items: Sequence[Any] = ()

    @property
    def first(self) -> Array:
        """The first output, which is the one that counts for tasks with one."""
        return next(iter(self.outputs.values()))


def answer(run: Run) -> list[Answer]:
    """One answer for each example of the batch; the plain tensors for a task that has no words."""
    return _TASKS.get(run.task, _tensors)(run)


def _classes(run: Run) -> list[Answer]:
    return classify(run.first, run.labels)


def _captions(run: Run) -> list[Answer]:
    """As classes, each row over the captions that were sent with its image, or over the model's own."""
    items = run.items or [None] * len(run.first)
    return [
        rank_captions(logits, captions_of(item, run.labels))
        for logits, item in zip(run.first, items, strict=True)
    ]


def _tokens(run: Run) -> list[Answer]:
    assert run.tokenizer is not None
    return tag_tokens(run.first, run.inputs, run.tokenizer, run.labels)


def _spans(run: Run) -> list[Answer]:
    """`{answer, start, end, probability}`: a piece of the context, and where it stands, in characters."""
    assert run.tokenizer is not None
    assert isinstance(run.processing, TextProcessing)
    return answer_questions(run.first, run.tokenizer, run.items, run.processing)


def _next(run: Run) -> list[Answer]:
    """`{next: [{text, probability}]}`: the pieces that the text most likely goes on with."""
    assert run.tokenizer is not None
    return rank_next(run.first, run.inputs["attention_mask"], run.tokenizer)


def _nodes(run: Run) -> list[Answer]:
    """`{nodes: [{label, probability, scores}]}`; padding answers too, and is cut off by whoever padded."""
    return [{"nodes": classify(logits, run.labels)} for logits in run.first]


def _boxes(run: Run) -> list[Answer]:
    """`{objects: [{label, probability, box}]}`; a box is left, top, right, bottom in parts of the image."""
    assert isinstance(run.processing, ImageProcessing)
    found = detect(run.first, run.processing.suppression or Suppression())
    return [{"objects": _objects(each, run.labels)} for each in found]


def _objects(found: Detections, labels: Sequence[str]) -> list[Answer]:
    return [
        {
            "label": labels[int(label)] if labels else str(label),
            "probability": float(score),
            "box": [float(edge) for edge in box],
        }
        for box, score, label in zip(np.clip(found.boxes, 0, 1), found.scores, found.classes, strict=True)
    ]


def _masks(run: Run) -> list[Answer]:
    """`{mask, regions: [{label, share}]}`: a grey PNG in base64, a pixel's value being its class's number."""
    return [_mask(pixels, run.labels) for pixels in run.first.argmax(-1)]


def _mask(pixels: Array, labels: Sequence[str]) -> Answer:
    classes, counts = np.unique(pixels, return_counts=True)
    regions = [
        {"label": labels[label] if labels else str(label), "share": float(count / pixels.size)}
        for label, count in zip(classes.tolist(), counts.tolist(), strict=True)
    ]
    return {"mask": png(pixels.astype(np.uint8)), "regions": regions}


def _drawings(run: Run) -> list[Answer]:
    """`{label, image}`: the label that was asked for, and a grey PNG in base64."""
    asked = [run.labels[label] for label in run.inputs["label"].tolist()]
    return [
        {"label": label, "image": png(pixels)} for label, pixels in zip(asked, drawn(run.first), strict=True)
    ]


def _reconstructions(run: Run) -> list[Answer]:
    """`{image, error}`: a grey PNG in base64, and its mean squared difference, in parts of full white."""
    assert isinstance(run.processing, ImageProcessing)
    scale = run.processing.std[0] / (run.processing.rescale * 255)
    difference = (run.first - next(iter(run.inputs.values()))) * scale
    return [
        {"image": png(pixels), "error": float(error)}
        for pixels, error in zip(
            restored(run.first, run.processing), (difference**2).mean((1, 2, 3)), strict=True
        )
    ]


def _vectors(run: Run) -> list[Answer]:
    processing = run.processing
    if not isinstance(processing, TextProcessing):
        return _tensors(run)
    return [
        {"embedding": vector.tolist()} for vector in pool(run.first, run.inputs["attention_mask"], processing)
    ]


def _words(run: Run) -> list[Answer]:
    """`{vector, neighbours: [{word, similarity}]}`, the nearest other words of the vocabulary."""
    assert isinstance(run.processing, WordProcessing)
    asked = rows_asked(run.inputs, run.processing)
    found = nearest_words(run.outputs["similarity"], asked, run.labels)
    return [
        {"vector": vector.tolist(), "neighbours": nearest}
        for vector, nearest in zip(run.outputs["vector"], found, strict=True)
    ]


def _tensors(run: Run) -> list[Answer]:
    return [
        {name: output[row].tolist() for name, output in run.outputs.items()} for row in range(len(run.first))
    ]


_TASKS: Mapping[str, Callable[[Run], list[Answer]]] = {
    "image-classification": _classes,
    "zero-shot-image-classification": _captions,
    "text-classification": _classes,
    "token-classification": _tokens,
    "question-answering": _spans,
    "next-token": _next,
    "embedding": _vectors,
    "node-classification": _nodes,
    "object-detection": _boxes,
    "segmentation": _masks,
    "image-reconstruction": _reconstructions,
    "image-generation": _drawings,
    "word-vectors": _words,
}
