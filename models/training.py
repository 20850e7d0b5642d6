"""The one training loop: warm-up and cosine, clipping, accumulation, mixed precision, early stopping.

It knows nothing of models, tasks or data: it asks `batches` for a batch and `objective` for its loss. A run
is a function of its seed, so a run that was killed and started again ends with the very weights of one that
was not. The trade-offs: one process and one device; where `max_seconds` bites, a run depends on the machine.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from models.allocation import kept_pages
from models.checkpoint import RunState, load_checkpoint, save_checkpoint
from models.errors import TrainingDiverged, TrainingInterrupted
from models.memory import available_bytes, check_memory, predict
from models.optimizers import build_optimizer, set_learning_rate
from models.precision import SMALLEST_SCALE, autocast, loss_scaler
from models.registry import TrainingRecipe
from models.storage import digest

Batch = dict[str, Tensor]
# (step, progress in [0, 1]) -> a batch. A pure function: that is what makes a run resumable.
Batches = Callable[[int, float], Batch]
# A module in training mode and a batch -> the mean loss over the batch.
Objective = Callable[[nn.Module, Batch], Tensor]
# A module in evaluation mode -> a figure to minimise.
Validate = Callable[[nn.Module], float]
# (progress in [0, 1], step, loss), after every step.
Report = Callable[[float, int, float], None]

# A curve has at most about this many points, however long the run.
CURVE_POINTS = 400


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a finished run was: steps, seconds, (step, loss) points and the best validation figure, if any."""

    steps: int
    seconds: float
    curve: tuple[tuple[int, float], ...]
    best: float | None


def train(
    module: nn.Module,
    batches: Batches,
    objective: Objective,
    recipe: TrainingRecipe,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 30.0,
    validate: Validate | None = None,
    report: Report = lambda progress, step, loss: None,
) -> TrainingResult:
    """Train `module` in place and leave it on the CPU in evaluation mode, with its best weights.

    "Best" is by `validate` every `recipe.evaluate_every` steps, else the last. With `checkpoint`, the run is
    saved there every `checkpoint_seconds`, goes on from there when it is already there, and deletes it at the
    end. Raises MemoryExceeded before the first step where it would not fit, TrainingDiverged for a loss or
    gradient that is not finite (the last checkpoint stays), and TrainingInterrupted after Ctrl-C (the
    checkpoint is saved first).
    """
    run = _Run(module, recipe, seed, checkpoint)
    with _settings(recipe), _recomputed(module, recipe), _deferred_interrupt() as interrupted, kept_pages():
        run.start()
        run.check_memory(batches, objective)
        while not run.finished():
            loss = run.step(batches, objective)
            if validate and recipe.evaluate_every and run.state.step % recipe.evaluate_every == 0:
                run.consider(validate)
            report(run.progress(), run.state.step, loss)
            if interrupted.is_set():
                raise TrainingInterrupted(run.stop())
            if run.unsaved_seconds() >= checkpoint_seconds:
                run.save()
    return run.finish()


class _Run:
    """One run's parts and state. `train` reads as their order."""

    def __init__(self, module: nn.Module, recipe: TrainingRecipe, seed: int, checkpoint: Path | None) -> None:
        self.module, self.recipe, self.seed, self.checkpoint = module, recipe, seed, checkpoint
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.optimizer = build_optimizer(module.to(self.device), recipe)
        self.scaler = loss_scaler(recipe.precision, self.device)
        self.key = digest(repr(recipe), str(seed))
        self.state = RunState()
        self.began = self.saved = time.monotonic()

    def start(self) -> None:
        torch.manual_seed(self.seed)
        self.module.train()
        if self.checkpoint and self.checkpoint.is_file():
            self.state = load_checkpoint(self.checkpoint, self.key, self.module, self.optimizer) or self.state
        if self.state.scaler:
            self.scaler.load_state_dict(self.state.scaler)
        self.began = time.monotonic() - self.state.seconds
        self.saved = time.monotonic()

    def check_memory(self, batches: Batches, objective: Objective) -> None:
        """Refuse a run that would not fit."""
        batch = self._on_device(batches(self.state.step, self.progress()))

        def loss(part: Batch) -> Tensor:
            with autocast(self.recipe.precision, self.device):
                return objective(self.module, part)

        needed = predict(self.module, self.recipe, batch, loss)
        check_memory(needed, available_bytes(self.device), self.recipe)

    def progress(self) -> float:
        """Share of the run that is done, in steps or in time, whichever is further."""
        spent = self.state.seconds / self.recipe.max_seconds if self.recipe.max_seconds else 0.0
        return min(1.0, max(self.state.step / self.recipe.steps, spent))

    def finished(self) -> bool:
        waited = self.state.step - self.state.best_step
        limit = self.recipe.patience * self.recipe.evaluate_every
        return self.progress() >= 1 or (self.state.best is not None and 0 < limit <= waited)

    def step(self, batches: Batches, objective: Objective) -> float:
        set_learning_rate(self.optimizer, self.recipe, self.progress())
        batch = batches(self.state.step, self.progress())
        loss = self._backward(self._on_device(batch), objective)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.clip_norm)
        self._check_finite(loss, float(norm))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.state.step += 1
        self.state.seconds = time.monotonic() - self.began
        if self.state.step % max(1, self.recipe.steps // CURVE_POINTS) == 0:
            self.state.curve.append((self.state.step, loss))
        return loss

    def consider(self, validate: Validate) -> None:
        """Keep these weights if they are the best so far."""
        self.module.eval()
        figure = validate(self.module)
        self.module.train()
        if self.state.best is None or figure < self.state.best:
            self.state.best, self.state.best_step = figure, self.state.step
            weights = self.module.state_dict()
            self.state.best_weights = {name: value.detach().clone() for name, value in weights.items()}

    def unsaved_seconds(self) -> float:
        return time.monotonic() - self.saved

    def save(self) -> None:
        self.state.scaler = self.scaler.state_dict()
        if self.checkpoint:
            save_checkpoint(self.checkpoint, self.key, self.module, self.optimizer, self.state)
        self.saved = time.monotonic()

    def stop(self) -> str:
        """Save, and say where the run stands."""
        self.save()
        where = f"interrupted after step {self.state.step} ({self.progress():.0%} of the run)"
        return f"{where}; the same command goes on from there" if self.checkpoint else where

    def finish(self) -> TrainingResult:
        if self.state.best_weights:
            self.module.load_state_dict(self.state.best_weights)
        self.module.to("cpu").eval()
        if self.checkpoint:
            self.checkpoint.unlink(missing_ok=True)
        state = self.state
        return TrainingResult(state.step, state.seconds, tuple(state.curve), state.best)

    def _on_device(self, batch: Batch) -> Batch:
        return {name: value.to(self.device) for name, value in batch.items()}

    def _backward(self, batch: Batch, objective: Objective) -> float:
        """Add up gradients of the mean loss, over as many parts as the recipe says. Returns the loss."""
        rows = len(batch["targets"])
        total = torch.zeros((), device=self.device)
        for start, end in _parts(rows, self.recipe.accumulation):
            part = {name: value[start:end] for name, value in batch.items()}
            with autocast(self.recipe.precision, self.device):
                loss = objective(self.module, part) * ((end - start) / rows)
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return float(total)

    def _check_finite(self, loss: float, norm: float) -> None:
        # An overflow of scaled gradients is not a divergence: the step is left out and the scale lowered.
        overflows = self.scaler.is_enabled() and self.scaler.get_scale() > SMALLEST_SCALE
        if math.isfinite(loss) and (math.isfinite(norm) or overflows):
            return
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
        kept = f"; the last good checkpoint is {self.checkpoint}" if self.checkpoint else ""
        raise TrainingDiverged(f"training diverged at step {self.state.step}: {what}; lower the rate{kept}")


def _parts(rows: int, count: int) -> Iterator[tuple[int, int]]:
    size = -(-rows // count)
    return ((start, min(start + size, rows)) for start in range(0, rows, size))


@contextmanager
def _settings(recipe: TrainingRecipe) -> Iterator[None]:
    """Torch's random state and thread count are the caller's again afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(recipe.threads or threads)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _deferred_interrupt() -> Iterator[threading.Event]:
    """The first Ctrl-C sets the event, so that the run ends between steps; the second interrupts at once."""
    interrupted = threading.Event()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def _recomputed(module: nn.Module, recipe: TrainingRecipe) -> Iterator[None]:
    """Activation checkpointing: the blocks of every ModuleList run again in the backward pass."""
    lists = [layer for layer in module.modules() if isinstance(layer, nn.ModuleList)]
    blocks = [block for layer in lists for block in layer] if recipe.activation_checkpointing else []
    for block in blocks:
        block.__dict__["forward"] = partial(recompute, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.__dict__["forward"]
