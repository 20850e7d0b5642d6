"""The loss that each task is trained by. Distillation and regularisers are not here but in `compress`."""

import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import TrainingError
from models.training import Batch, Objective
from runtime.manifest import Task


def objective_for(task: Task, label_smoothing: float = 0.0) -> Objective:
    """Mean cross-entropy over the targets that are scored. Raises TrainingError for a task without labels.

    `label_smoothing` is the share of each target that is spread over all classes (Szegedy et al.,
    arXiv:1512.00567, section 7).
    """
    if task in ("embedding", "tensor"):
        raise TrainingError(
            f"there is no training objective for the task '{task}'; give a model of another task"
        )
    return lambda module, batch: cross_entropy(forward(module, batch), batch["targets"], label_smoothing)


def forward(module: nn.Module, batch: Batch) -> Tensor:
    """The logits of a batch; its inputs go in by position, since a user's module names them as it likes."""
    output = module(*(value for name, value in batch.items() if name != "targets"))
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean over the targets that are scored; logits [..., classes], targets [...] or, where they are
    probabilities (mixup makes such), [..., classes].
    """
    wanted = targets.flatten(0, -2) if targets.is_floating_point() else targets.flatten()
    return F.cross_entropy(logits.flatten(0, -2).float(), wanted, label_smoothing=label_smoothing)
