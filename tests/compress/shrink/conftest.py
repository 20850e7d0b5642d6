"""Sources around tiny modules, with data drawn by seed, and one tiny encoder."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.datasets.dataset import Dataset, Split
from models.sources.source import SourceModel
from runtime.manifest import TensorProcessing

MakeSource = Callable[..., SourceModel]


@pytest.fixture
def make_source() -> MakeSource:
    """`make_source(module, inputs, targets, task)`: the module as a source; without targets, without data."""

    def make(
        module: nn.Module,
        inputs: dict[str, np.ndarray],
        targets: np.ndarray | None = None,
        task: Any = "tensor",
    ) -> SourceModel:
        split = Split(inputs, targets)
        data = Dataset("tiny", task, "0" * 64, (), TensorProcessing(), lambda name: split)
        return SourceModel(
            name="tiny",
            reference="py:tiny",
            task=task,
            processing=TensorProcessing(),
            labels=(),
            module=module.eval(),
            graph=None,
            input_names=tuple(inputs),
            output_names=("logits",),
            dataset=data,
        )

    return make


@pytest.fixture(scope="session")
def bert() -> Any:
    """A two-layer BERT classifier with random weights: four heads of 8, 48 neurons."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
        num_labels=3,
        initializer_range=0.2,
    )
    model = BertForSequenceClassification(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model
