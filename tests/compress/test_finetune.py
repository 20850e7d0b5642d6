"""Training after a step: the one loop, with a teacher or without."""

import copy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from compress.errors import StepError
from compress.finetune import FinetuneConfig, SoftTargets, TrainingConfig, finetune, own_objective
from models.errors import TrainingDiverged, TrainingError
from models.sources import load_source
from models.sources.source import SourceModel

NETWORK = "import torch\n\ndef network():\n    return torch.nn.Linear(6, 3)\n"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SourceModel:
    """A linear layer, and data that one can learn."""
    (tmp_path / "linear_network.py").write_text(NETWORK)
    x = np.random.default_rng(0).standard_normal((400, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, labels=x[:, :3].argmax(1))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "linear_network", raising=False)
    return load_source("py:linear_network:network", str(tmp_path / "data.npz"))


def accuracy(source: SourceModel) -> float:
    assert source.module is not None
    assert source.dataset is not None
    split = source.dataset.validation
    return float(
        (source.module(torch.from_numpy(split.inputs["x"])).argmax(1).numpy() == split.targets).mean()
    )


def test_it_learns_the_data_and_says_what_it_did(source: SourceModel) -> None:
    figures = finetune(source, TrainingConfig(steps=200, learning_rate=0.03, threads=1), 0)
    assert accuracy(source) > 0.9
    assert figures["steps"] == 200
    assert figures["loss"] < 0.5
    assert source.module is not None
    assert not source.module.training


def test_with_soft_targets_alone_it_becomes_its_teacher(source: SourceModel) -> None:
    assert source.module is not None
    teacher = copy.deepcopy(source.module)
    (weight, _) = source.module.parameters()
    torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(1))
    soft = SoftTargets(alpha=0.0, temperature=1.0)
    config = FinetuneConfig(steps=400, learning_rate=0.03, threads=1, distill=soft)
    finetune(source, config, 0, teacher=teacher)
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(source.module(x).softmax(-1), teacher(x).softmax(-1), atol=0.01, rtol=0)


def test_an_objective_of_the_steps_own_replaces_the_tasks(source: SourceModel) -> None:
    def shrinking(module: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return sum((each.square().sum() for each in module.parameters()), torch.zeros(()))

    finetune(source, FinetuneConfig(steps=300, learning_rate=0.01, threads=1), 0, objective=shrinking)
    assert source.module is not None
    assert max(float(each.detach().abs().max()) for each in source.module.parameters()) < 0.05


def test_a_sources_own_objective_replaces_the_tasks(source: SourceModel) -> None:
    def own(module: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.zeros(())

    assert own_objective(replace(source, task="object-detection", objective=own)) is own


def test_the_same_seed_gives_the_same_weights(source: SourceModel) -> None:
    twins = [replace(source, module=copy.deepcopy(source.module)) for _ in range(2)]
    for twin in twins:
        finetune(twin, FinetuneConfig(steps=5, threads=1), 3)
    first, second = (list(twin.module.parameters()) for twin in twins if twin.module)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_without_data_it_is_refused(source: SourceModel) -> None:
    with pytest.raises(StepError, match="py:linear_network:network: fine-tuning needs a torch model and la"):
        finetune(replace(source, dataset=None), FinetuneConfig(), 0)


def test_a_task_without_classes_has_no_objective(source: SourceModel) -> None:
    with pytest.raises(TrainingError, match="no training objective for the task 'embedding'"):
        own_objective(replace(source, task="embedding"))


def test_its_settings_load_no_torch() -> None:
    """Recipes are read with them."""
    code = "import compress.finetune, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_training_setting_reaches_the_loop(source: SourceModel) -> None:
    settings = {"accumulation": 2, "precision": "float32", "optimizer": "lamb", "label_smoothing": 0.1}
    config = TrainingConfig.model_validate(
        {"steps": 60, "learning_rate": 0.03, "threads": 1, "gradient_checkpointing": True, **settings}
    )
    steps: list[int] = []
    finetune(source, config, 0, before_step=steps.append)
    assert accuracy(source) > 0.8
    # Once more for the look at memory before the first.
    assert steps == [0, *range(60)]


def test_a_loss_of_the_sources_own_smooths_no_labels(source: SourceModel) -> None:
    own = replace(source, objective=own_objective(source))
    with pytest.raises(StepError, match="has a loss of its own, without smoothing"):
        finetune(own, TrainingConfig(steps=1, label_smoothing=0.1, threads=1), 0)


def test_a_diverging_run_says_at_which_step_and_where_its_last_good_weights_are(
    source: SourceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELPRESS_HOME", str(tmp_path / "cache"))
    losses = []

    def objective(module: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        losses.append(own(module, batch) * (torch.nan if len(losses) > 12 else 1))
        return losses[-1]

    own = own_objective(source)
    with pytest.raises(TrainingDiverged, match=r"diverged at step \d+: .*of step \d+, are in"):
        finetune(source, TrainingConfig(steps=40, threads=1), 0, objective=objective)
    (path,) = (tmp_path / "cache" / "diverged").iterdir()
    assert all(torch.isfinite(value).all() for value in load_file(path).values())
