"""Judging a model: one sufficient statistic a row, so that a metric over any rows needs no second run.

The same function judges torch modules and shipped graphs: it sees only named numpy arrays in and out. It
knows nothing of confidence intervals; the rows of `scores` are what a bootstrap resamples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.datasets.dataset import IGNORED, Array, Dataset, Split
from models.detection import match_rows, mean_average_precision, overlap_rows
from models.drawing import class_coverage, drawing_rows, intra_class_distance, recognition_rows
from models.errors import DataError
from models.generation import torch_answers
from models.text_metrics import TEXT_METRICS, bleu, rouge_l, text_rows
from runtime.drawing import denoise
from runtime.manifest import DrawingProcessing, GenerationProcessing, Processing, TextProcessing
from runtime.processing import pool
from runtime.spans import best_spans, context_tokens

Predict = Callable[[dict[str, Array]], dict[str, Array]]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """A metric's sufficient statistics, `scores` float64 [examples, k], in the order of the split.

    For nodes of graphs, a row is a node.
    """

    metric: str
    scores: Array

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value is a better one."""
        return is_score(self.metric)

    def value(self, rows: Array | None = None) -> float:
        """The metric over the given row numbers (repeats count), or over all of them."""
        chosen = self.scores if rows is None else self.scores[rows]
        return _METRICS[self.metric].reduce(chosen)

    def judged_by(self, metric: str) -> "Evaluation | None":
        """The same answers by another metric; None where that one counts other things of them."""
        same = _METRICS[metric].score is _METRICS[self.metric].score
        return Evaluation(metric, self.scores) if same else None


@dataclass(frozen=True, slots=True)
class _Metric:
    """How rows are scored, (output, targets) -> [rows, k], and how scores become one figure."""

    score: Callable[[Array, Array], Array]
    reduce: Callable[[Array], float]
    higher_is_better: bool
    inputs_per_target: int = 1


def evaluate(
    predict: Predict, split: Split, metric: str, batch_size: int, processing: Processing | None = None
) -> Evaluation:
    """Score `predict` on every row of `split`, `batch_size` targets at a time.

    The first output is judged. "accuracy" takes logits [B, classes]; "token-accuracy" [B, S, classes];
    "exact-match" and "span-f1" [B, S, 2], a begin's and an end's;
    "node-accuracy" [B, nodes, classes]; "mean-iou" [B, height, width, classes]; "mean-average-precision",
    "-50" and "box-iou" detections as `models.detection` has them; "intra-class-frechet" and "class-coverage"
    drawings as `models.drawing` has them; "reconstruction-error" images like the targets; "perplexity"
    [B, S, vocabulary]; "spearman" vectors [B, width], or token vectors [B, S, width] together with the
    TextProcessing that says how to pool them; "bleu" and "rouge-l" texts [B], for the split's references;
    "neighbour-accuracy" similarities [B, vocabulary].

    Raises DataError when the split has no targets, and for one of "accuracy" that is none of the classes.
    """
    if split.targets is None:
        raise DataError(f"the data has no labels, and {metric} needs them; give data with labels")
    chosen, targets = _METRICS[metric], split.targets
    if split.references is not None:
        targets = np.array(split.references, object)
    scores = []
    for start in range(0, len(targets), batch_size):
        rows = slice(start * chosen.inputs_per_target, (start + batch_size) * chosen.inputs_per_target)
        inputs = {name: array[rows] for name, array in split.inputs.items()}
        output = _pooled(next(iter(predict(inputs).values())), inputs, processing)
        scores.append(chosen.score(output, targets[start : start + batch_size]))
    return Evaluation(metric, np.concatenate(scores))


def metric_for(dataset: Dataset) -> str | None:
    """The metric that fits a data set's task; None where there is nothing to judge by."""
    if dataset.task == "tensor":
        targets = dataset.validation.targets
        classes = targets is not None and targets.dtype.kind in "iu" and targets.ndim == 1
        return "accuracy" if classes else None
    return dataset.metric or _TASK_METRICS[dataset.task]


def is_score(metric: str) -> bool:
    """Whether a larger value of `metric` is a better one, as it is not of a perplexity or a distance."""
    return _METRICS[metric].higher_is_better


def check_labels(targets: Array, classes: int) -> None:
    """Raises DataError for a label that is none of the classes that a model tells apart."""
    if (wrong := targets[(targets < 0) | (targets >= classes)]).size:
        raise DataError(
            f"the data has the label {wrong[0]}, and the model tells {classes} classes apart, 0 to "
            f"{classes - 1}; give the data that it was trained for"
        )


def beside(metric: str) -> tuple[str, ...]:
    """The metrics that texts are judged by beside `metric`, from the same scores; none of other answers."""
    return tuple(other for other in TEXT_METRICS if other != metric) if metric in TEXT_METRICS else ()


def torch_predict(
    module: nn.Module,
    input_names: Sequence[str],
    output_names: Sequence[str],
    processing: Processing | None = None,
    tokenizer: Path | None = None,
) -> Predict:
    """`module` as a function of named numpy arrays; it is called with tensors in the order of `input_names`.

    The module may return a tensor, a tuple of them, or a mapping such as transformers' outputs. Where
    `processing` says that it is a step of a diffusion, all steps are run; where it says that the module reads
    a source, its whole answer is generated and put into words by `tokenizer`.
    """
    if isinstance(processing, GenerationProcessing) and processing.start_ids and tokenizer:
        return partial(torch_answers, module, processing, tokenizer)

    def predict(inputs: Mapping[str, Array]) -> dict[str, Array]:
        device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
        tensors = [torch.from_numpy(np.ascontiguousarray(inputs[name])).to(device) for name in input_names]
        with torch.inference_mode():
            outputs = module(*tensors)
        if isinstance(outputs, Mapping):
            outputs = [outputs[name] for name in output_names]
        elif isinstance(outputs, torch.Tensor):
            outputs = [outputs]
        return {name: value.float().cpu().numpy() for name, value in zip(output_names, outputs, strict=True)}

    if isinstance(processing, DrawingProcessing) and (diffusion := processing.diffusion):
        return lambda inputs: denoise(predict, inputs, diffusion)
    return predict


def negative_log_likelihood(logits: Array, targets: Array) -> Array:
    """-log softmax(logits)[targets] in nats, [...]; logits [..., vocabulary], targets [...] (all valid)."""
    shifted = logits - logits.max(-1, keepdims=True)
    chosen = np.take_along_axis(shifted, targets[..., None], -1)[..., 0]
    np.exp(shifted, out=shifted)
    return np.asarray(np.log(shifted.sum(-1)) - chosen)


def spearman(first: Array, second: Array) -> float:
    """Spearman's rank correlation of two [n] arrays: Pearson's, of ranks that are averaged over ties.

    Not a number where one of the values is none: it would rank above all others.
    """
    if np.isnan([first, second]).any():
        return float("nan")
    ranks = np.stack([_ranks(first), _ranks(second)])
    centred = ranks - ranks.mean(1, keepdims=True)
    norms = np.sqrt((centred**2).sum(1))
    return float(centred[0] @ centred[1] / (norms[0] * norms[1])) if norms.all() else float("nan")


def _ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])


def _pooled(output: Array, inputs: dict[str, Array], processing: Processing | None) -> Array:
    if isinstance(processing, TextProcessing) and processing.pair:
        # No answer comes from the question.
        return np.where(context_tokens(inputs)[..., None], output, -np.inf)
    if isinstance(processing, TextProcessing) and processing.pooling != "none":
        return pool(output, inputs["attention_mask"], processing)
    return output


def _guessed(logits: Array) -> Array:
    """The likeliest class of each; -1, which is none, where one of the logits is not a number."""
    return np.where(np.isnan(logits).any(-1), -1, logits.argmax(-1))


def _hits(logits: Array, targets: Array) -> Array:
    check_labels(targets, logits.shape[-1])
    hits: Array = _guessed(logits) == targets
    return hits.astype(np.float64)[:, None]


def _token_hits(logits: Array, targets: Array) -> Array:
    counted = targets != IGNORED
    return np.stack([((_guessed(logits) == targets) & counted).sum(1), counted.sum(1)], 1).astype(np.float64)


def _found_spans(logits: Array, targets: Array) -> Array:
    """Tokens that the answer and the span wanted share, of how many in the one and the other, [B, 3]."""
    spans, _ = best_spans(logits, np.isfinite(logits[..., 0]))
    shared = np.minimum(spans[:, 1], targets[:, 1]) - np.maximum(spans[:, 0], targets[:, 0]) + 1
    sizes = [span[:, 1] - span[:, 0] + 1 for span in (spans, targets)]
    # An answer that was cut off with its context's end (IGNORED) has been found by no one.
    shared = np.where(targets[:, 0] == IGNORED, 0, np.maximum(shared, 0))
    return np.stack([shared, *sizes], 1).astype(np.float64)


def _exact(scores: Array) -> float:
    return float(((scores[:, 0] == scores[:, 1]) & (scores[:, 0] == scores[:, 2])).mean())


def _span_f1(scores: Array) -> float:
    """The mean over answers of the harmonic mean of precision and recall, in tokens."""
    return float((2 * scores[:, 0] / (scores[:, 1] + scores[:, 2])).mean())


def _node_hits(logits: Array, targets: Array) -> Array:
    """One row a scored node: a graph of many is one example, and an interval wants more than one."""
    counted = targets != IGNORED
    return np.asarray((_guessed(logits) == targets)[counted], np.float64)[:, None]


def _overlaps(logits: Array, targets: Array) -> Array:
    """Pixels of each class in both, then in either: [B, 2 * classes]; their sums give the IoU."""
    guessed, classes = _guessed(logits)[..., None], np.arange(logits.shape[-1])
    ours, theirs = guessed == classes, targets[..., None] == classes
    parts = [(ours & theirs).sum((1, 2)), (ours | theirs).sum((1, 2))]
    return np.concatenate(parts, 1).astype(np.float64)


def _mean_iou(scores: Array) -> float:
    """The mean over the classes that are there of intersection over union."""
    shared, either = np.split(scores.sum(0), 2)
    return float((shared[either > 0] / either[either > 0]).mean())


def _token_losses(logits: Array, targets: Array) -> Array:
    counted = targets != IGNORED
    losses = negative_log_likelihood(logits, np.where(counted, targets, 0)) * counted
    return np.stack([losses.sum(1, dtype=np.float64), counted.sum(1)], 1)


def _cosines(vectors: Array, targets: Array) -> Array:
    first, second = vectors[0::2], vectors[1::2]
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.stack([(first * second).sum(1) / np.maximum(norms, 1e-12), targets], 1)


def _chosen(similarity: Array, targets: Array) -> Array:
    """Whether the first of `targets` [B, candidates] is the most similar of them."""
    offered = np.take_along_axis(similarity, targets, 1)
    return np.asarray((offered[:, :1] > offered[:, 1:]).all(1), np.float64)[:, None]


def _unexplained(images: Array, targets: Array) -> Array:
    """Of each image, the squared error and what it would be of a plain grey one, [B, 2]."""
    axes = tuple(range(1, targets.ndim))
    plain = targets.mean(axes, keepdims=True)
    parts = [((images - targets) ** 2).sum(axes), ((targets - plain) ** 2).sum(axes)]
    return np.stack(parts, 1).astype(np.float64)


_METRICS = {
    "accuracy": _Metric(_hits, lambda scores: float(scores.mean()), True),
    "token-accuracy": _Metric(
        _token_hits, lambda scores: float(scores[:, 0].sum() / scores[:, 1].sum()), True
    ),
    "exact-match": _Metric(_found_spans, _exact, True),
    "span-f1": _Metric(_found_spans, _span_f1, True),
    "mean-average-precision": _Metric(match_rows, mean_average_precision, True),
    "mean-average-precision-50": _Metric(
        match_rows, lambda scores: mean_average_precision(scores, np.array([0.5])), True
    ),
    "box-iou": _Metric(overlap_rows, lambda scores: float(scores[:, 0].sum() / scores[:, 1].sum()), True),
    "intra-class-frechet": _Metric(drawing_rows, intra_class_distance, False),
    "class-coverage": _Metric(recognition_rows, class_coverage, True),
    "reconstruction-error": _Metric(
        _unexplained, lambda scores: float(scores[:, 0].sum() / scores[:, 1].sum()), False
    ),
    "mean-iou": _Metric(_overlaps, _mean_iou, True),
    "neighbour-accuracy": _Metric(_chosen, lambda scores: float(scores.mean()), True),
    "node-accuracy": _Metric(_node_hits, lambda scores: float(scores.mean()), True),
    "bleu": _Metric(text_rows, bleu, True),
    "rouge-l": _Metric(text_rows, rouge_l, True),
    "perplexity": _Metric(
        _token_losses, lambda scores: float(np.exp(scores[:, 0].sum() / scores[:, 1].sum())), False
    ),
    "spearman": _Metric(
        _cosines, lambda scores: spearman(scores[:, 0], scores[:, 1]), True, inputs_per_target=2
    ),
}
_TASK_METRICS = {
    "image-classification": "accuracy",
    "zero-shot-image-classification": "accuracy",
    "text-classification": "accuracy",
    "token-classification": "token-accuracy",
    "question-answering": "exact-match",
    "text-generation": "perplexity",
    "next-token": "perplexity",
    "text2text-generation": "bleu",
    "embedding": "spearman",
    "node-classification": "node-accuracy",
    "segmentation": "mean-iou",
    "object-detection": "mean-average-precision-50",
    "image-reconstruction": "reconstruction-error",
    "image-generation": "intra-class-frechet",
    "word-vectors": "neighbour-accuracy",
}
