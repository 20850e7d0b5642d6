"""Properties of a run. As a script, this file is a run to kill: it prints each step."""

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.errors import TrainingDiverged, TrainingError, TrainingInterrupted
from models.registry import TrainingRecipe
from models.training import Batch, Report, TrainingResult, train

Weights = dict[str, Tensor]
RECIPE = TrainingRecipe(
    steps=40,
    batch_size=8,
    learning_rate=5e-2,
    threads=1,
)


class Toy(nn.Module):
    """Dropout makes the random state matter; a module list gives activation checkpointing something to do."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = torch.tanh(block(x))
        result: Tensor = self.head(self.dropout(x))[:, 0]
        return result


def toy(seed: int = 0) -> Toy:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Toy()


def batches(step: int, progress: float) -> Batch:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(RECIPE.batch_size, 4, generator=generator)
    return {"x": x, "targets": torch.tanh(x.sum(1))}


def squared_error(module: nn.Module, batch: Batch) -> Tensor:
    return ((module(batch["x"]) - batch["targets"]) ** 2).mean()


def run(module: nn.Module, checkpoint: Path | None = None, report: Report | None = None) -> TrainingResult:
    """Train `module` by RECIPE, saving after every step."""
    silent: Report = lambda progress, step, loss: None  # noqa: E731
    return train(
        module,
        batches,
        squared_error,
        RECIPE,
        checkpoint=checkpoint,
        checkpoint_seconds=0.0,
        report=report or silent,
    )


def weights(module: nn.Module) -> Weights:
    """Copies on the CPU, wherever the training took them."""
    return {name: value.cpu().clone() for name, value in module.state_dict().items()}


def same(left: Weights, right: Weights) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


def trained(**changes: object) -> Weights:
    module = toy()
    train(module, batches, squared_error, replace(RECIPE, **changes))  # type: ignore[arg-type]
    return weights(module)


def test_it_learns_and_leaves_the_module_in_evaluation_mode() -> None:
    module, untrained = toy(), toy().eval()
    result = run(module)
    assert result.steps == len(result.curve) == RECIPE.steps
    assert not module.training
    fresh = batches(10**6, 1.0)
    assert squared_error(module, fresh) < 0.5 * squared_error(untrained, fresh)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first, second, other = toy(), toy(), toy()
    for module, seed in ((first, 0), (second, 0), (other, 1)):
        train(module, batches, squared_error, RECIPE, seed=seed)
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(other))


def test_the_callers_random_state_and_threads_are_left_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    threads = torch.get_num_threads()
    torch.manual_seed(7)
    run(toy())
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_accumulated_parts_equal_one_big_batch() -> None:
    module = toy()
    module.dropout.p = 0.0
    parts = toy()
    parts.dropout.p = 0.0
    exact = replace(RECIPE, precision="float32")
    train(module, batches, squared_error, exact)
    train(parts, batches, squared_error, replace(exact, accumulation=3))
    for name, value in weights(module).items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_activation_checkpointing_changes_memory_and_not_the_result() -> None:
    assert same(trained(), trained(activation_checkpointing=True))
    module = toy()
    train(module, batches, squared_error, replace(RECIPE, activation_checkpointing=True))
    assert all("forward" not in block.__dict__ for block in module.blocks)


def test_a_killed_run_goes_on_to_the_very_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, __file__, str(checkpoint)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 12:
                process.kill()
                break
    steps: list[int] = []
    resumed, expected = toy(), toy()
    run(resumed, checkpoint, lambda progress, step, loss: steps.append(step))
    run(expected)
    assert 12 <= steps[0] < RECIPE.steps, "it should go on from the last checkpoint"
    assert same(weights(resumed), weights(expected))
    assert not checkpoint.exists()


def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"

    def interrupt(progress: float, step: int, loss: float) -> None:
        if step == 7:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(
        TrainingInterrupted, match=r"step 7 \(18% of the run\); the same command goes on"
    ) as stopped:
        run(toy(), checkpoint, interrupt)
    assert stopped.value.exit_code == 130
    steps: list[int] = []
    module, expected = toy(), toy()
    run(module, checkpoint, lambda progress, step, loss: steps.append(step))
    run(expected)
    assert steps[0] == 8
    assert same(weights(module), weights(expected))


@pytest.mark.parametrize(
    "settings", [{"optimizer": "lamb"}, {"optimizer": "adamw-8bit"}, {"precision": "float16"}]
)
def test_every_optimizer_and_the_loss_scale_go_on_from_a_checkpoint(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    recipe = replace(RECIPE, **settings)  # type: ignore[arg-type]
    checkpoint = tmp_path / "checkpoint.safetensors"

    def stop(progress: float, step: int, loss: float) -> None:
        if step == 7:
            signal.raise_signal(signal.SIGINT)

    module, expected = toy(), toy()
    with pytest.raises(TrainingInterrupted):
        train(module, batches, squared_error, recipe, checkpoint=checkpoint, report=stop)
    module = toy()
    result = train(module, batches, squared_error, recipe, checkpoint=checkpoint)
    train(expected, batches, squared_error, recipe)
    assert len(result.curve) == recipe.steps
    assert same(weights(module), weights(expected))


def test_gradients_that_overflow_half_precision_cost_a_step_and_not_the_run() -> None:
    """The scale begins at 2^16: with a loss this large it has to come down a long way first."""
    seen: list[float] = []
    module = toy()
    before = weights(module)

    def large(module: nn.Module, batch: Batch) -> Tensor:
        return 1e3 * squared_error(module, batch)

    recipe = replace(RECIPE, precision="float16", learning_rate=1e-2)

    def report(progress: float, step: int, loss: float) -> None:
        if same(weights(module), before):
            seen.append(step)

    train(module, batches, large, recipe, report=report)
    assert 0 < len(seen) < 20
    fresh = batches(10**6, 1.0)
    assert squared_error(module, fresh) < squared_error(toy().eval(), fresh)


def test_a_loss_that_diverges_in_half_precision_is_still_told() -> None:
    with pytest.raises(TrainingDiverged, match="loss is nan"):
        train(
            toy(),
            batches,
            lambda module, batch: squared_error(module, batch) * math.nan,
            replace(RECIPE, precision="float16"),
        )


def test_a_checkpoint_of_another_recipe_is_ignored(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"

    def stop(progress: float, step: int, loss: float) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(TrainingInterrupted):
        run(toy(), checkpoint, stop)
    module = toy()
    result = train(module, batches, squared_error, replace(RECIPE, steps=3), checkpoint=checkpoint)
    assert len(result.curve) == result.steps == 3


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    checkpoint.write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(TrainingError, match=r"checkpoint\.safetensors: damaged checkpoint .* delete it"):
        run(toy(), checkpoint)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, poison: float
) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"

    def poisoned(step: int, progress: float) -> Batch:
        batch = batches(step, progress)
        return batch | {"targets": batch["targets"] * poison} if step == 5 else batch

    module = toy()
    with pytest.raises(TrainingDiverged, match=f"step 5.*loss is {poison}.*{checkpoint}"):
        train(module, poisoned, squared_error, RECIPE, checkpoint=checkpoint, checkpoint_seconds=0.0)
    stored = load_file(checkpoint)
    assert all(torch.isfinite(value).all() for value in stored.values())
    assert torch.equal(stored["model.head.weight"], weights(module)["head.weight"])


def test_early_stopping_keeps_the_best_weights() -> None:
    figures = iter([3.0, 1.0, 2.0, 2.0, 2.0, 0.0])
    seen: list[Weights] = []

    def validate(module: nn.Module) -> float:
        assert not module.training
        seen.append(weights(module))
        return next(figures)

    module = toy()
    recipe = replace(RECIPE, evaluate_every=2, patience=3)
    result = train(module, batches, squared_error, recipe, validate=validate)
    assert (result.steps, result.best) == (10, 1.0)
    assert same(weights(module), seen[1])


def test_a_time_cap_shortens_the_schedule_instead_of_cutting_it() -> None:
    done: list[float] = []
    recipe = replace(RECIPE, steps=10**6, max_seconds=0.3)
    result = train(
        toy(), batches, squared_error, recipe, report=lambda progress, step, loss: done.append(progress)
    )
    assert result.steps < 10**5
    assert done == sorted(done)
    assert done[-1] == 1.0


if __name__ == "__main__":
    run(toy(), Path(sys.argv[1]), lambda progress, step, loss: print(step, flush=True))
