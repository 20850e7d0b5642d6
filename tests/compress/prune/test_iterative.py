"""Rounds of pruning, and the search for a lottery ticket, on a network that learns in a second."""

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compress.prune.iterative import fresh_weights, matches
from compress.prune.masks import round_ratio
from compress.prune.step import run
from compress.step import validate
from models.sources import load_source
from models.sources.source import SourceModel

NETWORK = """
import torch

def network():
    torch.manual_seed(5)
    return torch.nn.Sequential(torch.nn.Linear(6, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))
"""
TRAINING = {"steps": 60, "learning_rate": 0.03, "threads": 1}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SourceModel:
    (tmp_path / "round_network.py").write_text(NETWORK)
    x = np.random.default_rng(0).standard_normal((400, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, labels=x[:, :3].argmax(1))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "round_network", raising=False)
    return load_source("py:round_network:network", str(tmp_path / "data.npz"))


def pruned(source: SourceModel, **settings: Any) -> dict[str, Any]:
    config = {"method": "prune", "criterion": "iterative", "ratio": 0.7, "rounds": 3, "finetune": TRAINING}
    changed, figures = run(validate({**config, **settings}), source, 0)
    assert changed.module is not None
    return figures


def test_each_round_drops_the_same_share_of_what_is_left_and_the_last_reaches_the_ratio() -> None:
    left = [1 - round_ratio(0.9, number, 4) for number in range(5)]
    assert left[0] == 1
    assert left[4] == pytest.approx(0.1)
    shares = {round(after / before, 9) for before, after in pairwise(left)}
    assert len(shares) == 1


def test_rounds_from_trained_weights_end_sparse_and_good(source: SourceModel) -> None:
    figures = pruned(source)
    assert figures["sparsity"] == pytest.approx(0.7, abs=0.01)
    ratios = [each["ratio"] for each in figures["rounds"]]
    assert ratios == sorted(ratios)
    assert figures["rounds"][-1]["metric"] > 0.85
    assert "ticket" not in figures


def test_a_ticket_is_trained_from_the_early_weights_and_compared_with_the_dense_network(
    source: SourceModel,
) -> None:
    figures = pruned(source, rewind={"steps": 4})
    assert figures["sparsity"] == pytest.approx(0.7, abs=0.01)
    assert figures["begins"] == "anew"
    assert figures["dense"] > 0.85
    assert figures["ticket"] == figures["rounds"][-1]["metric"]
    assert figures["matches"] == (figures["ticket"] >= figures["dense"] - 0.005)


@pytest.mark.parametrize(
    ("metric", "ticket", "dense", "found"),
    [
        ("accuracy", 0.9, 0.904, True),
        ("accuracy", 0.9, 0.906, False),
        ("perplexity", 50.2, 50.0, True),
        ("perplexity", 80.0, 50.0, False),
        ("reconstruction-error", 0.2, 0.1, False),
        ("intra-class-frechet", 3.0, 6.0, True),
    ],
)
def test_a_ticket_matches_by_what_its_metric_counts(
    metric: str, ticket: float, dense: float, found: bool
) -> None:
    assert matches(metric, ticket, dense) is found


def test_a_network_begins_anew_by_seed() -> None:
    torch.manual_seed(0)
    first, second = (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)) for _ in range(2))
    assert fresh_weights(first, 1)
    assert fresh_weights(second, 1)
    assert torch.equal(first[0].weight, second[0].weight)


class Scaled(nn.Module):
    """A layer that does not say how it is initialised."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.scale = inner, nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.inner(x) * self.scale
        return result


def test_a_search_that_cannot_begin_anew_rewinds_to_the_weights_it_was_given(source: SourceModel) -> None:
    """A rate near zero leaves the survivors where the last rewinding put them."""
    assert source.module is not None
    module = Scaled(source.module)
    given = {name: value.clone() for name, value in module.state_dict().items()}
    assert not fresh_weights(module, 0)
    still = {**TRAINING, "steps": 2, "learning_rate": 1e-9}
    figures = pruned(replace(source, module=module), rewind={"steps": 0}, finetune=still, scope="layer")
    assert figures["begins"] == "as given"
    for name, value in module.state_dict().items():
        kept = value != 0
        torch.testing.assert_close(value[kept], given[name][kept], atol=1e-5, rtol=0)
