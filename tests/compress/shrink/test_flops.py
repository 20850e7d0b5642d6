"""Counted work against sums by hand, and the ratio that removes a share of it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compress.errors import StepError
from compress.shrink.config import ShrinkConfig
from compress.shrink.flops import multiply_accumulates, smallest_ratio
from compress.shrink.step import run
from models.sources.source import SourceModel

MakeSource = Callable[..., SourceModel]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.Flatten(),
        nn.Linear(2048, 10),
    )


def image_source(make_source: MakeSource) -> SourceModel:
    images = np.random.default_rng(0).standard_normal((8, 1, 8, 8)).astype(np.float32)
    return make_source(network(), {"x": images})


def test_convolutions_and_linear_layers_are_counted_as_by_hand() -> None:
    by_hand = 64 * 9 * 16 + 64 * 9 * 16 * 32 + 2048 * 10
    assert multiply_accumulates(network(), {"x": torch.zeros(3, 1, 8, 8)}) == 3 * by_hand


def test_the_smallest_ratio_is_found_or_there_is_none() -> None:
    assert smallest_ratio(50, lambda ratio: int(100 * (1 - ratio))) == pytest.approx(0.5, abs=0.01)
    assert smallest_ratio(5, lambda ratio: 10) is None


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_a_share_of_the_work_goes_and_hardly_more(make_source: MakeSource, share: float, scope: str) -> None:
    config = ShrinkConfig.model_validate({"remove": {"flops": share}, "scope": scope})
    _, figures = run(config, image_source(make_source), 0)
    assert 1 - share - 0.12 < figures["flops_kept"] <= 1 - share


def test_a_transformer_loses_neurons_and_heads(make_source: MakeSource, bert: Any) -> None:
    from copy import deepcopy

    from models.sources.wrappers import EncoderModule

    numbers = np.random.default_rng(0).integers(0, 64, (4, 9))
    inputs = {"input_ids": numbers, "attention_mask": np.ones((4, 9), np.int64)}
    source = make_source(EncoderModule(deepcopy(bert), "logits"), inputs, task="text-classification")
    _, figures = run(ShrinkConfig.model_validate({"remove": {"flops": 0.4}}), source, 0)
    assert figures["flops_kept"] <= 0.6
    assert {name.rpartition(".")[2] for name in figures["kept"]} >= {"attention"}


def test_more_than_can_go_is_refused_with_what_can(make_source: MakeSource) -> None:
    source = make_source(
        nn.Sequential(nn.Linear(64, 2), nn.ReLU(), nn.Linear(2, 8)), {"x": np.ones((4, 64), np.float32)}
    )
    with pytest.raises(StepError, match=r"at most 50% can go .*'flops: 0.9' is more"):
        run(ShrinkConfig.model_validate({"remove": {"flops": 0.9}}), source, 0)


def test_flops_stand_alone() -> None:
    with pytest.raises(ValueError, match="give one or the other"):
        ShrinkConfig.model_validate({"remove": {"flops": 0.5, "ffn": 0.2}})
