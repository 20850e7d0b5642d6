"""Attention maps against their definition, and as a part of a student's loss."""

import math
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from compress.distill.attention import attention_loss, attention_scores
from compress.distill.config import DistillConfig
from compress.distill.objective import soft_objective, with_attention
from compress.distill.student import build_student, example_batch
from compress.errors import StepError
from models.datasets.dataset import Dataset, Split
from models.sources.source import SourceModel
from models.sources.wrappers import EncoderModule
from runtime.manifest import TensorProcessing


def test_scores_are_the_scaled_products_of_each_head() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    scores = attention_scores(query, key, heads=2)
    for head, part in enumerate((slice(0, 4), slice(4, 8))):
        expected = query[1, 3, part] @ key[1, 2, part] / math.sqrt(4)
        torch.testing.assert_close(scores[1, head, 3, 2], expected)


def test_padding_neither_asks_nor_is_asked() -> None:
    torch.manual_seed(1)
    query, key, other = (torch.randn(1, 6, 4) for _ in range(3))
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    short = attention_loss([(query[:, :4], key[:, :4])], [(other[:, :4], key[:, :4])], 2)
    query[:, 4:] = 99
    torch.testing.assert_close(attention_loss([(query, key)], [(other, key)], 2, mask), short)
    assert float(attention_loss([(query, key)], [(query, key)], 2, mask)) == 0


@pytest.fixture
def encoder() -> SourceModel:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_labels=3,
    )
    rng = np.random.default_rng(0)
    inputs = {"input_ids": rng.integers(0, 64, (12, 9)), "attention_mask": np.ones((12, 9), np.int64)}
    inputs["attention_mask"][:, 6:] = 0
    split = Split(inputs, rng.integers(0, 3, 12))
    data = Dataset("tiny", "text-classification", "0" * 64, (), TensorProcessing(), lambda name: split)
    module = EncoderModule(BertForSequenceClassification(config).eval(), "logits")
    return SourceModel(
        "tiny",
        "py:tiny",
        "text-classification",
        TensorProcessing(),
        (),
        module,
        None,
        tuple(inputs),
        ("logits",),
        data,
    )


def configured(**attention: Any) -> DistillConfig:
    return DistillConfig.model_validate({"student": {"layers": "every-other"}, "attention": attention})


def test_a_student_learns_its_teachers_maps_in_every_layer(encoder: SourceModel) -> None:
    config = configured(weight=3.0)
    student = build_student(config.student, encoder, 0)
    assert encoder.module is not None
    plain = soft_objective(config, encoder.module)
    loss, batch = with_attention(config, student, encoder, "the student", plain), example_batch(encoder)
    added = loss(student, batch) - plain(student, batch)
    assert float(added.detach()) > 0
    added.backward()  # type: ignore[no-untyped-call]
    for name, parameter in student.named_parameters():
        if name.endswith(("query.weight", "key.weight")):
            assert parameter.grad is not None
            assert parameter.grad.abs().sum() > 0
    twin = deepcopy(encoder.module)
    same = with_attention(config, twin, encoder, "itself", plain)
    torch.testing.assert_close(same(twin, batch), plain(twin, batch))


def test_heads_that_do_not_pair_up_are_refused(encoder: SourceModel, decoder: SourceModel) -> None:
    config = configured()
    assert decoder.module is not None
    with pytest.raises(StepError, match=r"have blocks of \[2, 4\] heads.*use 'relations'"):
        with_attention(config, decoder.module, encoder, "the student", _zero)


def _zero(module: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return torch.zeros(())
