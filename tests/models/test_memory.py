"""Predicted memory against what can be counted by hand, and the refusal."""

import resource
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from models.errors import MemoryExceeded
from models.memory import Memory, available_bytes, check_memory, exhaustion_told, predict
from models.registry import TrainingRecipe
from models.training import train

WIDTH, ROWS = 64, 8
RECIPE = TrainingRecipe(steps=2, batch_size=ROWS, learning_rate=1e-3, precision="float32", threads=1)
BATCH = {"x": torch.ones(ROWS, WIDTH), "targets": torch.zeros(ROWS)}


def network(depth: int = 3) -> nn.Module:
    layers = [layer for _ in range(depth) for layer in (nn.Linear(WIDTH, WIDTH), nn.Tanh())]
    return nn.Sequential(*layers)


def predicted(module: nn.Module, recipe: TrainingRecipe = RECIPE) -> Memory:
    return predict(module, recipe, BATCH, lambda batch: module(batch["x"]).mean())


def test_it_counts_gradients_state_and_what_autograd_saves() -> None:
    module = network()
    needed = predicted(module)
    trained = 3 * (WIDTH * WIDTH + WIDTH)
    assert (needed.gradients, needed.optimizer, needed.best) == (4 * trained, 8 * trained, 0)
    # Each linear layer saves its input, and each tanh its output, which is the next one's input.
    assert needed.activations == 4 * ROWS * WIDTH * 4
    assert needed.copies == 2 * 4 * trained
    assert needed.total > needed.gradients + needed.optimizer + needed.activations + needed.copies


def test_frozen_parameters_accumulation_and_early_stopping_count() -> None:
    module = network()
    assert predicted(module, replace(RECIPE, accumulation=4)).activations == 4 * 2 * WIDTH * 4
    assert predicted(module, replace(RECIPE, evaluate_every=1)).best == 4 * 3 * (WIDTH * WIDTH + WIDTH)
    assert predicted(module, replace(RECIPE, optimizer="lars")).optimizer == predicted(module).gradients
    module.requires_grad_(False)
    module[0].requires_grad_(True)  # type: ignore[index]
    assert predicted(module).gradients == 4 * (WIDTH * WIDTH + WIDTH)


def test_it_leaves_the_module_its_statistics_and_the_random_state_alone() -> None:
    module = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.Dropout()).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    predicted(module)
    assert torch.equal(torch.rand(1), expected)
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_what_does_not_fit_is_refused_in_one_line_that_says_what_to_do() -> None:
    needed = Memory(gradients=2**30, optimizer=2**31, activations=2**32, best=0)
    check_memory(needed, needed.total, RECIPE)
    message = (
        r"8 GiB more \(gradients 1, optimizer 2, activations 4\) and 3 GiB may be used; lower batch_size"
    )
    with pytest.raises(MemoryExceeded, match=message):
        check_memory(needed, 3 * 2**30, RECIPE)


def test_what_fits_for_all_that_was_known_and_then_does_not_is_one_line_as_well() -> None:
    with (
        pytest.raises(MemoryExceeded, match="ran out of the GPU's memory; lower batch_size"),
        exhaustion_told(TrainingRecipe(steps=1, batch_size=8, learning_rate=0.1)),
    ):
        raise torch.OutOfMemoryError


def test_a_run_that_cannot_fit_under_the_processs_own_limit_is_refused_before_its_first_step() -> None:
    """In a process of its own, whose address space is limited to little more than it has."""
    code = "import tests.models.test_memory as here; here.refused()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MemoryExceeded: training would take" in done.stderr, done.stderr
    assert "step" not in done.stdout


def refused() -> None:
    """The process: a linear layer whose gradients and state are more than what is left."""
    import psutil

    module = nn.Linear(4096, 4096)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 150 * 2**20, -1))

    def objective(module: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        result: Tensor = module(batch["x"]).mean()
        return result

    batch = {"x": torch.ones(2, 4096), "targets": torch.zeros(2)}
    train(module, lambda step, progress: batch, objective, RECIPE, report=lambda *_: print("step"))


def test_there_is_memory_here() -> None:
    assert 0 < available_bytes(torch.device("cpu")) < 2**50
