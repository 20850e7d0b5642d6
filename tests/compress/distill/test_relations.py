"""Self-attention relations against their definition, and as a part of a student's loss."""

import math
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from compress.distill.config import DistillConfig
from compress.distill.objective import soft_objective, with_relations
from compress.distill.relations import relation_loss, relations
from compress.distill.student import build_student, example_batch
from compress.errors import StepError
from models.sources.source import SourceModel


def by_definition(student: Tensor, teacher: Tensor, heads: int) -> float:
    """KL of softmax(Q Q^T / sqrt(d)), position by position and head by head, in plain loops."""
    total, count = 0.0, 0
    batch, length, _ = student.shape
    for row in range(batch):
        for head in range(heads):
            ours, theirs = (
                torch.softmax(part @ part.T / math.sqrt(part.shape[1]), -1)
                for each in (student, teacher)
                for part in [each[row].chunk(heads, -1)[head]]
            )
            for position in range(length):
                p, q = theirs[position], ours[position]
                total += float((p * (p / q).log()).sum())
                count += 1
    return total / count


def test_the_loss_is_the_mean_divergence_whatever_the_widths() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 8), torch.randn(2, 5, 12)
    loss = relation_loss({"query": student}, {"query": teacher}, heads=2)
    assert float(loss) == pytest.approx(by_definition(student, teacher, 2), rel=1e-4)
    assert float(relation_loss({"query": teacher}, {"query": teacher}, heads=2)) == pytest.approx(0, abs=1e-6)
    assert torch.allclose(relations(student, 4).exp().sum(-1), torch.ones(2, 4, 5))


def test_padding_neither_asks_nor_is_asked() -> None:
    torch.manual_seed(1)
    student, teacher = torch.randn(1, 6, 4), torch.randn(1, 6, 4)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    short = relation_loss({"key": student[:, :4]}, {"key": teacher[:, :4]}, 2)
    student[:, 4:] = 99
    student.requires_grad_(True)
    padded = relation_loss({"key": student}, {"key": teacher}, 2, mask)
    torch.testing.assert_close(padded, short)
    padded.backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_a_student_learns_its_teachers_relations(decoder: SourceModel) -> None:
    settings = {"student": {"layers": "every-other"}, "relations": {"weight": 2.0, "heads": 2}}
    config = DistillConfig.model_validate(settings)
    student = build_student(config.student, decoder, 0)
    assert decoder.module is not None
    plain = soft_objective(config, decoder.module)
    loss = with_relations(config, student, decoder, "the student", plain)
    batch = example_batch(decoder)
    added = loss(student, batch) - plain(student, batch)
    assert float(added.detach()) > 0
    # A layer of the teacher's own, compared with itself, has nothing to learn.
    twin = deepcopy(decoder.module)
    same = with_relations(config, twin, decoder, "itself", plain)
    torch.testing.assert_close(same(twin, batch), plain(twin, batch))


def test_heads_that_do_not_divide_and_layers_that_are_not_there_are_refused(decoder: SourceModel) -> None:
    for relation, message in (
        ({"heads": 3}, "3 heads do not divide the 32 columns"),
        ({"teacher_layer": 9}, "has no layer 9; it has 4"),
    ):
        config = DistillConfig.model_validate({"student": {"layers": [0]}, "relations": relation})
        assert decoder.module is not None
        with pytest.raises(StepError, match=message):
            with_relations(config, decoder.module, decoder, "x", soft_objective(config, decoder.module))
