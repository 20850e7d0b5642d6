"""The weights to go back to when a fine-tuning diverges: copied in memory as it goes, written if it does.

A loss tells of the weights before its step, so a copy is good only once a later loss is finite. Frozen
weights are left out: they are what they were. It resumes nothing, since a run that diverged would again. The
trade-off: two copies of what is trained, in memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from safetensors.torch import save
from torch import Tensor, nn

from models.errors import TrainingDiverged
from models.storage import digest, home, write_atomically

# Copies in one run.
COPIES = 20


class LastGood:
    """Copies of `module`'s trained weights and statistics, every `steps` / COPIES steps."""

    def __init__(self, module: nn.Module, steps: int) -> None:
        self.module, self.every = module, max(1, steps // COPIES)
        self.good = self.newest = (0, self._copy())

    def note(self, step: int) -> None:
        """Call it after every step whose loss was finite."""
        # The loss of a step is of the weights that the step before left.
        if step > self.newest[0]:
            self.good = self.newest
        if step % self.every == 0:
            self.newest = (step, self._copy())

    def _copy(self) -> dict[str, Tensor]:
        trained = [(name, each) for name, each in self.module.named_parameters() if each.requires_grad]
        kept = [*trained, *self.module.named_buffers()]
        return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in kept}


@contextmanager
def kept_when_diverging(module: nn.Module, steps: int, name: str) -> Iterator[LastGood]:
    """Write the last good weights where the run inside diverges, and let the error say where."""
    kept = LastGood(module, steps)
    try:
        yield kept
    except TrainingDiverged as error:
        step, weights = kept.good
        content = save(weights)
        path = home() / "diverged" / f"{name}-{digest(content)[:12]}.safetensors"
        write_atomically(path, content)
        raise TrainingDiverged(f"{error}; the last good weights, of step {step}, are in {path}") from None
