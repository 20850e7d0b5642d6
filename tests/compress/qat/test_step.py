"""The step on a user's own network: it learns, ends as integers, and everything else composes with it."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compress.errors import StepError
from compress.pipeline import run as run_recipe
from compress.qat.batchnorm import fold_batch_norms
from compress.qat.layers import QuantizedLayer
from compress.qat.step import check, restore, run
from compress.recipe import parse_recipe
from compress.step import validate
from models.sources import load_source
from models.sources.source import SourceModel
from runtime.manifest import TensorProcessing

CODE = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 32, 3, padding=1), nn.BatchNorm1d(32), nn.ReLU(),
        nn.Conv1d(32, 32, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 2),
    )
"""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network and data that it can learn: which of two channels is larger on the whole."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 2, 8)).astype(np.float32)
    targets = (x[:, 0].sum(-1) > x[:, 1].sum(-1)).astype(np.int64)
    np.savez(tmp_path / "data.npz", x=x, targets=targets)
    (tmp_path / "rounded_network.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELPRESS_HOME", str(tmp_path / "home"))
    return tmp_path


def own_network() -> SourceModel:
    return load_source("py:rounded_network:network", "data.npz")


def config(**settings: Any) -> Any:
    finetune = {"steps": 60, "batch_size": 32, "learning_rate": 0.003, **settings.pop("finetune", {})}
    return validate({"method": "qat", "samples": 64, "finetune": finetune, **settings})


def accuracy(source: SourceModel) -> float:
    assert source.module is not None
    assert source.dataset is not None
    split = source.dataset.validation
    with torch.inference_mode():
        return float(
            (source.module(torch.from_numpy(split.inputs["x"])).argmax(1).numpy() == split.targets).mean()
        )


@pytest.mark.parametrize("ranges", ["learned", "moving-average"])
def test_a_network_learns_under_rounding_and_ends_as_integers(workplace: Path, ranges: str) -> None:
    source, figures = run(config(ranges=ranges), own_network(), 0)
    assert accuracy(source) > 0.85
    assert (figures["layers"], figures["multiplied_in_int8"], figures["batch_norms_folded"]) == (4, 3, 1)
    kinds = [type(layer) for layer in source.module.modules()]
    assert kinds.count(QuantizedLayer) == 4
    assert not {nn.BatchNorm1d, nn.Linear, nn.Conv1d}.intersection(
        type(layer) for name, layer in source.module.named_modules() if not name.endswith("call")
    )


def test_the_pipeline_exports_it_and_finds_it_again(workplace: Path) -> None:
    """Restored from its stored weights, exported, proven, judged; the second run makes nothing."""
    recipe = parse_recipe("""
model: py:rounded_network:network
data: data.npz
steps:
  - method: prune
    criterion: magnitude
    ratio: 0.5
  - method: qat
    samples: 64
    finetune: {steps: 40, learning_rate: 0.003, distill: {alpha: 0.5}}
gate: {max_drop: null}
""")
    result = run_recipe(recipe)
    assert result.bundle.manifest.variant == "magnitude-50-qat"
    assert result.evidence.baseline_size_bytes / result.evidence.size_bytes > 2.5
    assert all(stage.cached for stage in run_recipe(recipe).stages)


def test_half_precision_may_store_what_was_left_in_float32(workplace: Path) -> None:
    step = "{method: qat, samples: 64, exclude: ['6'], finetune: {steps: 5}}"
    about = "model: py:rounded_network:network, data: data.npz, gate: {max_drop: null}"
    before, after = (
        run_recipe(parse_recipe(f"{{{about}, steps: [{steps}]}}"))
        for steps in (step, f"{step}, {{method: quantize, scheme: fp16}}")
    )
    saved = before.evidence.size_bytes - after.evidence.size_bytes
    assert saved == pytest.approx(256 * 32 * 2, rel=0.05)
    assert after.evidence.quality.value == pytest.approx(before.evidence.quality.value, abs=0.03)


def test_a_restored_source_computes_the_same(workplace: Path) -> None:
    source, _ = run(config(finetune={"steps": 5}), own_network(), 0)
    fresh = restore(config(), own_network(), {})
    fresh.module.load_state_dict(source.module.state_dict())
    x = torch.randn(5, 2, 8)
    torch.testing.assert_close(fresh.module(x), source.module(x), rtol=0, atol=0)


def test_pruned_weights_stay_zero(workplace: Path) -> None:
    source = own_network()
    zeros = torch.rand_like(source.module[6].weight) < 0.7
    source.module[6].weight.data[zeros] = 0
    made, _ = run(config(), source, 0)
    assert (made.module[6].weight_codes.T[zeros] == 0).all()
    assert (made.module[6].weight_codes != 0).any()


def test_patterns_decide_what_is_rounded(workplace: Path) -> None:
    source, figures = run(config(exclude=["8"], finetune={"steps": 3}), own_network(), 0)
    assert figures["layers"] == 3
    assert isinstance(source.module[8], nn.Linear)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 161}, "161 calibration samples asked, but"),
        ({"targets": ["head"]}, "targets: 'head' matches no linear or convolution layer"),
    ],
)
def test_what_cannot_work_is_refused_before_training(
    workplace: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(StepError, match=message):
        run(config(finetune={"steps": 10**9}, **settings), own_network(), 0)


def test_models_that_cannot_be_trained_are_refused_by_name() -> None:
    with pytest.raises(StepError, match="no labels to train by"):
        check(config(), "embedding")
    for module, message in ((None, "needs a torch model"), (nn.Linear(2, 2), "give 'data'")):
        source = SourceModel(
            "tiny", "test:tiny", "tensor", TensorProcessing(), (), module, None, ("x",), ("y",), None
        )
        with pytest.raises(StepError, match=message):
            run(config(), source, 0)


def test_batch_norms_fold_only_where_nothing_else_reads_the_convolution() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
            self.two, self.other = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.two(self.norm(self.one(x)))
            return y + self.other(y)

    torch.manual_seed(0)
    network, x = Network(), torch.randn(8, 2, 6, 6)
    network(x)
    network.eval()
    before = deepcopy(network)(x)
    assert fold_batch_norms(network) == 1
    assert isinstance(network.norm, nn.Identity)
    torch.testing.assert_close(network(x), before, rtol=1e-4, atol=1e-5)


def test_a_forward_that_cannot_be_traced_keeps_its_norms() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.conv(x)) if x.sum() > 0 else x

    assert fold_batch_norms(Branching()) == 0


def test_a_norm_without_statistics_of_its_own_stays() -> None:
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    assert fold_batch_norms(network.eval()) == 0
