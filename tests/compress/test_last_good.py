"""What is kept of a run that diverges."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from compress.last_good import LastGood, kept_when_diverging
from models.errors import TrainingDiverged


def test_weights_are_good_once_a_later_loss_was_finite() -> None:
    module = nn.Linear(1, 1, bias=False)
    kept = LastGood(module, steps=40)
    for step in range(1, 5):
        module.weight.data.fill_(float(step))
        kept.note(step)
    # The weights of step 4 have had no loss yet.
    step, weights = kept.good
    assert (step, float(weights["weight"])) == (2, 2.0)


def test_frozen_weights_are_left_out_and_statistics_are_not() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    module[0].requires_grad_(False)
    assert set(LastGood(module, 1).good[1]) == {name for name in module.state_dict() if name[0] == "1"}


def test_a_diverging_run_leaves_them_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPRESS_HOME", str(tmp_path))
    module = nn.Linear(1, 1, bias=False)
    first = module.weight.detach().clone()

    def diverge() -> None:
        with kept_when_diverging(module, 1, "toy") as kept:
            module.weight.data.fill_(torch.nan)
            kept.note(1)
            raise TrainingDiverged("training diverged at step 1: the loss is nan")

    with pytest.raises(TrainingDiverged, match=r"at step 1.*of step 0, are in .*toy-.*safetensors"):
        diverge()
    (path,) = (tmp_path / "diverged").iterdir()
    assert torch.equal(load_file(path)["weight"], first)
