"""What a training will take, found before it begins, so that it is refused and not killed.

Gradients and optimizer state follow from the parameters; activations are measured: what autograd saves for
one row and for two of a real batch, extended along the line through both. It predicts tensors, not the
allocator's own losses; short-lived ones (a layer's scratch, the logits' gradient) come under `HEADROOM`.
The trade-off: two forward passes over a row or two before every training.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.errors import MemoryExceeded
from models.registry import TrainingRecipe
from runtime.memory import available_memory

Batch = dict[str, Tensor]
# Beside what autograd saves, the backward pass holds gradients of activations: a margin, not a measurement.
HEADROOM = 1.25
# Of the trained weights, in memory at once beside them.
COPIES = 2
# Bytes of state for each trained parameter.
STATE_BYTES = {"adamw": 8, "lamb": 8, "lars": 4, "adamw-8bit": 2, "paged-adamw": 8}


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that a training adds to what is there: the parameters themselves are already."""

    gradients: int
    optimizer: int
    activations: int
    best: int
    copies: int = 0

    @property
    def total(self) -> int:
        """All of them at once."""
        kept = self.gradients + self.optimizer + self.best + self.copies
        return kept + int(self.activations * HEADROOM)


def predict(
    module: nn.Module, recipe: TrainingRecipe, batch: Batch, loss: Callable[[Batch], Tensor]
) -> Memory:
    """What training `module` by `recipe` takes; `loss` computes the mean loss of some rows of `batch`."""
    trained = sum(each.numel() for each in module.parameters() if each.requires_grad)
    on_host = not any(each.is_cuda for each in module.parameters())
    best = sum(each.numel() * each.element_size() for each in module.state_dict().values())
    return Memory(
        gradients=4 * trained,
        optimizer=STATE_BYTES[recipe.optimizer] * trained,
        activations=_activations(module, recipe, batch, loss),
        best=best if recipe.evaluate_every else 0,
        # A checkpoint as it is written, or the last good weights: on the CPU, wherever the training is.
        copies=COPIES * 4 * trained if on_host else 0,
    )


def check_memory(needed: Memory, limit: int, recipe: TrainingRecipe) -> None:
    """Raises MemoryExceeded where `needed` is more than `limit` bytes."""
    if needed.total <= limit:
        return
    parts = ("gradients", "optimizer", "activations")
    listed = ", ".join(f"{part} {_gib(getattr(needed, part))}" for part in parts)
    raise MemoryExceeded(
        f"training would take {_gib(needed.total)} GiB more ({listed}) and {_gib(limit)} GiB may be used; "
        f"{_advice(recipe)}"
    )


@contextmanager
def exhaustion_told(recipe: TrainingRecipe) -> Iterator[None]:
    """Raises MemoryExceeded where a GPU runs out of memory, for all that was predicted."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise MemoryExceeded(f"training ran out of the GPU's memory; {_advice(recipe)}") from None


def available_bytes(device: torch.device) -> int:
    """What a training on `device` may still take."""
    if device.type == "cuda":
        # What torch's allocator keeps of tensors that are gone is as good as free to this process.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    return available_memory()


def _advice(recipe: TrainingRecipe) -> str:
    return (
        f"lower batch_size (now {recipe.batch_size}), raise accumulation (now {recipe.accumulation}), or "
        "turn on gradient_checkpointing"
    )


def _activations(
    module: nn.Module, recipe: TrainingRecipe, batch: Batch, loss: Callable[[Batch], Tensor]
) -> int:
    """What autograd saves for the rows that go through the module at once."""
    rows = -(-len(batch["targets"]) // recipe.accumulation)
    with _evaluating(module):
        one = _saved(module, _first(batch, 1), loss)
        if rows == 1:
            return one
        two = _saved(module, _first(batch, 2), loss)
    return one + (two - one) * (rows - 1)


def _first(batch: Batch, rows: int) -> Batch:
    """Copies: a slice would count as the whole batch that it is cut from."""
    return {name: value[:rows].clone() for name, value in batch.items()}


def _saved(module: nn.Module, batch: Batch, loss: Callable[[Batch], Tensor]) -> int:
    """Bytes of all tensors that the backward pass would need, less the module's own."""
    own = {each.untyped_storage().data_ptr() for each in module.state_dict().values()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        # The loss holds the graph, and the graph the tensors: their addresses stay distinct until here.
        loss(batch)
    return sum(kept.values())


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Running statistics, dropout and whatever counts training steps stay out of it."""
    training = module.training
    module.eval()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        module.train(training)


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g}"
