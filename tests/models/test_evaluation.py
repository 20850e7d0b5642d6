import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn

from models.datasets import IGNORED, Dataset, Split
from models.datasets.dataset import Array
from models.errors import DataError
from models.evaluation import evaluate, metric_for, spearman, torch_predict
from runtime.manifest import TensorProcessing, TextProcessing

RNG = np.random.default_rng(0)


def looked_up(table: Array) -> object:
    """A predictor whose output for row i is table[i]."""
    return lambda inputs: {"output": table[inputs["row"]]}


def rows(count: int) -> dict[str, Array]:
    return {"row": np.arange(count)}


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_accuracy(batch_size: int) -> None:
    logits, targets = RNG.normal(size=(11, 3)), RNG.integers(0, 3, 11)
    result = evaluate(looked_up(logits), Split(rows(11), targets), "accuracy", batch_size)  # type: ignore[arg-type]
    assert result.scores.shape == (11, 1)
    assert result.value() == np.mean([logits[i].argmax() == targets[i] for i in range(11)])
    assert result.higher_is_better


@pytest.mark.parametrize("label", [-1, 3, IGNORED])
def test_a_label_that_is_no_class_is_not_a_miss(label: int) -> None:
    split = Split(rows(2), np.array([0, label]))
    with pytest.raises(
        DataError, match=f"has the label {label}, and the model tells 3 classes apart, 0 to 2"
    ):
        evaluate(looked_up(RNG.normal(size=(2, 3))), split, "accuracy", 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [2, 5])
def test_perplexity_counts_every_scored_token_once(batch_size: int) -> None:
    logits = RNG.normal(size=(5, 7, 13)).astype(np.float32) * 4
    targets = RNG.integers(0, 13, (5, 7))
    targets[0, 3:] = targets[4, 1:] = IGNORED
    result = evaluate(looked_up(logits), Split(rows(5), targets), "perplexity", batch_size)  # type: ignore[arg-type]
    expected = F.cross_entropy(torch.from_numpy(logits).flatten(0, 1), torch.from_numpy(targets).flatten())
    assert result.value() == pytest.approx(float(expected.exp()), rel=1e-5)
    assert result.scores[:, 1].tolist() == [3, 7, 7, 7, 1]
    assert not result.higher_is_better


def test_token_accuracy() -> None:
    logits, targets = RNG.normal(size=(4, 6, 3)), RNG.integers(0, 3, (4, 6))
    targets[1, 2:] = IGNORED
    result = evaluate(looked_up(logits), Split(rows(4), targets), "token-accuracy", 3)  # type: ignore[arg-type]
    pairs = [
        (logits[i, j].argmax(), targets[i, j]) for i in range(4) for j in range(6) if targets[i, j] != IGNORED
    ]
    assert result.value() == np.mean([guess == target for guess, target in pairs])


def test_spearman_of_pooled_token_vectors() -> None:
    hidden = RNG.normal(size=(12, 5, 4))
    mask = (np.arange(5) < RNG.integers(1, 6, (12, 1))).astype(np.int64)
    gold = RNG.integers(0, 5, 6).astype(np.float64)
    split = Split(rows(12) | {"attention_mask": mask}, gold)
    processing = TextProcessing(max_length=5, pooling="mean")
    result = evaluate(looked_up(hidden), split, "spearman", 4, processing)  # type: ignore[arg-type]
    vectors = [hidden[i, : mask[i].sum()].mean(0) for i in range(12)]
    cosines = [
        vectors[i] @ vectors[i + 1] / np.linalg.norm(vectors[i]) / np.linalg.norm(vectors[i + 1])
        for i in range(0, 12, 2)
    ]
    assert result.scores[:, 0] == pytest.approx(cosines)
    assert result.value() == pytest.approx(spearmanr(cosines, gold).statistic)


def test_spearman_averages_the_ranks_of_ties() -> None:
    first, second = RNG.integers(0, 5, 50), RNG.integers(0, 9, 50)
    assert spearman(first, second) == pytest.approx(spearmanr(first, second).statistic)
    assert np.isnan(spearman(np.ones(3), np.arange(3)))


def test_a_resample_needs_no_second_run() -> None:
    logits, targets = RNG.normal(size=(5, 2, 4)), RNG.integers(0, 4, (5, 2))
    result = evaluate(looked_up(logits), Split(rows(5), targets), "perplexity", 5)  # type: ignore[arg-type]
    drawn = np.array([3, 3, 0, 1, 3])
    again = evaluate(looked_up(logits[drawn]), Split(rows(5), targets[drawn]), "perplexity", 5)  # type: ignore[arg-type]
    assert result.value(drawn) == pytest.approx(again.value())


def test_a_split_without_targets_is_refused() -> None:
    with pytest.raises(DataError, match="accuracy needs"):
        evaluate(looked_up(np.zeros((2, 2))), Split(rows(2), None), "accuracy", 1)  # type: ignore[arg-type]


class Two(nn.Module):
    """Inputs in the order (a, b), outputs as a tuple or a mapping."""

    def __init__(self, mapping: bool) -> None:
        super().__init__()
        self.mapping = mapping
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, a: Tensor, b: Tensor) -> object:
        outputs = {"difference": (a - b) * self.weight, "sum": a + b}
        return outputs if self.mapping else tuple(outputs.values())


@pytest.mark.parametrize("mapping", [False, True])
def test_torch_predict_names_inputs_and_outputs(mapping: bool) -> None:
    predict = torch_predict(Two(mapping), ("a", "b"), ("difference", "sum"))
    outputs = predict({"b": np.float32([1, 2]), "a": np.float32([5, 5])})
    assert outputs["difference"].tolist() == [4, 3]
    assert outputs["sum"].tolist() == [6, 7]


@pytest.mark.parametrize(
    ("targets", "metric"),
    [(np.arange(3), "accuracy"), (np.arange(3) / 2, None), (None, None)],
)
def test_tensors_are_judged_only_by_class_numbers(targets: Array | None, metric: str | None) -> None:
    split = Split({"x": np.zeros((3, 1))}, targets)
    dataset = Dataset("x.npz", "tensor", "", (), TensorProcessing(), lambda name: split)
    assert metric_for(dataset) == metric


def test_an_answers_span_is_the_contexts_best() -> None:
    logits = np.zeros((3, 6, 2))
    for row, (begin, end) in enumerate([(3, 4), (2, 4), (0, 5)]):
        logits[row, begin, 0] = logits[row, end, 1] = 9
    # The third wants what lies outside of its context, which no answer may come from.
    tokens = {
        "attention_mask": np.ones((3, 6), np.int64),
        "token_type_ids": np.tile([0, 0, 1, 1, 1, 1], (3, 1)),
    }
    targets = np.array([[3, 4], [3, 4], [IGNORED, IGNORED]])
    processing = TextProcessing(max_length=6, token_type_ids=True, pair=True)
    split = Split(rows(3) | tokens, targets)
    exact, shared = (
        evaluate(looked_up(logits), split, metric, 2, processing).value()  # type: ignore[arg-type]
        for metric in ("exact-match", "span-f1")
    )
    assert exact == pytest.approx(1 / 3)
    assert shared == pytest.approx((1 + 2 * 2 / (3 + 2) + 0) / 3)


def test_answers_that_were_judged_once_are_judged_by_another_metric_of_the_same_counts() -> None:
    said = np.array(["the cat sat down", "a dog"], object)
    split = Split(rows(2), np.zeros(2, np.int64), references=["the cat sat down", "a fox"])
    judged = evaluate(lambda inputs: {"text": said}, split, "bleu", 2)
    again = judged.judged_by("rouge-l")
    assert again is not None
    assert again.value() == evaluate(lambda inputs: {"text": said}, split, "rouge-l", 2).value()
    assert judged.judged_by("accuracy") is None


def test_answers_that_are_no_numbers_are_right_nowhere() -> None:
    """Of a row of nan the first is called the largest: a broken model would know the first class."""
    broken = np.full((4, 6, 3), np.nan)
    zeros = np.zeros((4, 6), np.int64)
    for metric, logits, targets in [
        ("accuracy", broken[:, 0], zeros[:, 0]),
        ("token-accuracy", broken, zeros),
        ("node-accuracy", broken, zeros),
        ("mean-iou", broken[:, None], zeros[:, None]),
    ]:
        assert evaluate(looked_up(logits), Split(rows(4), targets), metric, 3).value() == 0, metric  # type: ignore[arg-type]
    assert np.isnan(spearman(np.array([0.1, np.nan, 0.3]), np.array([1.0, 2.0, 3.0])))
